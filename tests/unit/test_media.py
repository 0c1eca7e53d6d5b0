"""Reading audio from real files, written by the wave module and by PyAV."""

import os
import socketserver
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from relay.media import RawInput, open_audio
from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat
from relay.vocabulary.errors import UserError
from tests.support.audio_files import TONE_HZ, encode, pitch, tone, write_wav
from tests.support.ports import free_port

MONO = AudioFormat()


def decoded(path: Path, rate: int | None = None, channels: int | None = None) -> tuple[AudioFormat, NDArray[np.int16]]:
    source = open_audio(path, rate, channels)
    audio = b"".join(source.blocks())
    return source.audio_format, np.frombuffer(audio, "<i2").reshape(-1, source.audio_format.channels)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("channels", CHANNEL_COUNTS)
def test_16_bit_wav_is_passed_on_untouched(tmp_path: Path, rate: int, channels: int) -> None:
    samples = tone(rate, channels).tobytes()
    source = open_audio(write_wav(tmp_path / "tone.wav", samples, rate, channels))
    assert source.name == "tone.wav"
    assert source.audio_format == AudioFormat(rate=rate, channels=channels)
    assert source.duration_seconds == 1.0
    blocks = list(source.blocks())
    assert b"".join(blocks) == samples
    assert max(map(len, blocks)) <= source.audio_format.bytes_per_second // 4
    assert b"".join(source.blocks()) == samples, "a file can be read again"


def test_plain_wav_does_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wav(tmp_path / "tone.wav", b"\1\2" * 100)
    monkeypatch.setitem(sys.modules, "av", None)
    assert b"".join(open_audio(path, 16_000, 1).blocks()) == b"\1\2" * 100
    with pytest.raises(UserError, match=r"Install PyAV to decode it: pip install 'audio-relay\[media\]'"):
        open_audio(path, rate=8_000)


def test_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", b"\1\2" * 100)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content + b"\3")
    source = open_audio(path)
    assert b"".join(source.blocks()) == b"\1\2" * 100
    assert source.duration_seconds == 100 / 16_000


def test_24_bit_wav_keeps_its_upper_16_bits(tmp_path: Path) -> None:
    samples = tone(44_100, 2)
    wide = b"".join(b"\0" + struct.pack("<h", sample) for sample in samples.ravel())
    audio_format, read = decoded(write_wav(tmp_path / "wide.wav", wide, 44_100, 2, width=3))
    assert audio_format == AudioFormat(rate=44_100, channels=2)
    assert np.array_equal(read, samples)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("tone.flac", "flac", 44_100), ("f.wav", "pcm_f32le", 48_000), ("e.wav", "pcm_s32le", 8_000)],
)
def test_lossless_audio_is_exact(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    samples = tone(rate, 2)
    audio_format, read = decoded(encode(tmp_path / name, codec, samples, rate, "stereo"))
    assert audio_format == AudioFormat(rate=rate, channels=2)
    assert np.array_equal(read, samples)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("tone.mp3", "libmp3lame", 22_050), ("tone.opus", "libopus", 48_000), ("tone.m4a", "aac", 44_100)],
)
def test_lossy_audio_has_its_length_and_its_pitch(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = encode(tmp_path / name, codec, tone(rate, 1, 2.0), rate)
    source = open_audio(path)
    audio_format, read = decoded(path)
    assert audio_format == AudioFormat(rate=rate)
    assert source.duration_seconds == pytest.approx(2.0, abs=0.1)
    assert len(read) / rate == pytest.approx(2.0, abs=0.1)
    middle = read[rate // 2 : rate // 2 + rate, 0]
    assert pitch(middle, rate) == pytest.approx(TONE_HZ, abs=1)
    assert np.abs(middle).max() == pytest.approx(16_000, rel=0.1)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 2), (11_025, 2), (44_100, 1)])
def test_a_conversion_keeps_pitch_and_length(tmp_path: Path, rate: int, channels: int) -> None:
    path = write_wav(tmp_path / "tone.wav", tone(22_050, 1, 2.0).tobytes(), 22_050)
    audio_format, read = decoded(path, rate, channels)
    assert audio_format == AudioFormat(rate=rate, channels=channels)
    assert len(read) == pytest.approx(2 * rate, abs=2)
    for channel in range(channels):
        assert pitch(read[:rate, channel], rate) == pytest.approx(TONE_HZ, abs=1)


@pytest.mark.parametrize(
    ("rate", "layout", "expected"),
    [
        (96_000, "5.1", AudioFormat(rate=48_000, channels=2)),
        (37_800, "mono", AudioFormat(rate=44_100, channels=1)),
        (6_000, "stereo", AudioFormat(rate=8_000, channels=2)),
    ],
)
def test_what_a_channel_can_not_carry_becomes_the_nearest_that_it_can(
    tmp_path: Path, rate: int, layout: str, expected: AudioFormat
) -> None:
    channels = av.AudioLayout(layout).nb_channels
    path = encode(tmp_path / "odd.wav", "pcm_s16le", tone(rate, channels), rate, layout)
    audio_format, read = decoded(path)
    assert audio_format == expected
    assert len(read) == pytest.approx(expected.rate, abs=2)
    assert pitch(read[:, 0], expected.rate) == pytest.approx(TONE_HZ, abs=2)


@pytest.mark.parametrize(
    ("name", "codec", "filling"),
    [("tone.mp3", "libmp3lame", b"\0"), ("tone.m4a", "aac", b"\0"), ("tone.m4a", "aac", b"\xff")],
)
def test_torn_pieces_are_left_out_and_counted(tmp_path: Path, name: str, codec: str, filling: bytes) -> None:
    path = encode(tmp_path / name, codec, tone(44_100, 1, 3.0), 44_100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = filling * 2000
    path.write_bytes(content)
    source = open_audio(path)
    assert source.damaged_packets == 0
    seconds = len(b"".join(source.blocks())) / source.audio_format.bytes_per_second
    assert source.damaged_packets > 0
    assert 2.0 < seconds < 3.0


def test_a_torn_beginning_is_counted_once(tmp_path: Path) -> None:
    path = encode(tmp_path / "tone.m4a", "aac", tone(44_100, 1), 44_100)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 300] = b"\0" * 300
    path.write_bytes(content)
    source = open_audio(path)
    assert source.damaged_packets == 0
    list(source.blocks())
    assert source.damaged_packets > 0


def test_files_that_were_joined_are_one_stream(tmp_path: Path) -> None:
    one = encode(tmp_path / "one.mp3", "libmp3lame", tone(22_050, 1, 2.0), 22_050)
    two = encode(tmp_path / "two.mp3", "libmp3lame", tone(44_100, 2, 2.0), 44_100, "stereo")
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    audio_format, read = decoded(joined)
    assert audio_format == AudioFormat(rate=22_050)
    assert len(read) / 22_050 == pytest.approx(4.0, abs=0.2)
    for start in (0.5, 2.5):
        second = read[round(start * 22_050) :][:22_050, 0]
        assert pitch(second, 22_050) == pytest.approx(TONE_HZ, abs=1)


def video(path: Path) -> None:
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))


def wav_without_rate(path: Path) -> None:
    content = bytearray(write_wav(path, b"\1\2" * 16_000).read_bytes())
    content[24:28] = bytes(4)
    path.write_bytes(content[:-1000])


BAD_FILES = {
    "missing": (lambda _: None, "{} cannot be read: No such file or directory."),
    "loop": (lambda path: path.symlink_to(path), "{} cannot be read: Too many levels of symbolic links."),
    "directory": (lambda path: path.mkdir(), "{} is a directory, not an audio file."),
    "pipe": (os.mkfifo, "{} is not a regular file. To read audio from a pipe, give - as FILE."),
    "empty": (lambda path: path.touch(), "{} is empty; give a file with audio."),
    "text": (lambda path: path.write_text("hello " * 1000), "{} cannot be read as audio: "),
    "torn header": (lambda path: path.write_bytes(b"RIFF\0\0\0\0WAVEfmt "), "{} "),
    "video": (video, "{} has no audio."),
    "no rate": (wav_without_rate, "{} cannot be read as audio: "),
    "9 channels": (lambda path: write_wav(path, bytes(18 * 100), channels=9), "{} has 9 channels of an unknown layout"),
    "64 channels": (
        lambda path: write_wav(path, bytes(128 * 100), channels=64),
        "{} has 64 channels of an unknown layout",
    ),
    "silent": (lambda path: write_wav(path, b""), "{} has no audio: it is a WAV file without samples."),
}


@pytest.mark.parametrize(("make", "problem"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_sentence(tmp_path: Path, make: Any, problem: str) -> None:
    path = tmp_path / "bad"
    make(path)
    with pytest.raises(UserError) as refusal:
        open_audio(path)
    assert str(refusal.value).startswith(problem.format(path))
    assert "\n" not in str(refusal.value)


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


def test_a_file_that_names_another_does_not_open_it(tmp_path: Path) -> None:
    other = encode(tmp_path / "other.mp3", "libmp3lame", tone(44_100, 1), 44_100)
    for name, text in (("list.m3u8", HLS.format(other)), ("list.ffconcat", "ffconcat version 1.0\nfile other.mp3\n")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(UserError, match="cannot be read as audio"):
            open_audio(path)


def test_a_file_that_names_an_address_does_not_use_the_network(tmp_path: Path) -> None:
    asked: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(1000))

    path = tmp_path / "list.m3u8"
    with socketserver.TCPServer(("127.0.0.1", free_port()), Handler) as server:
        answering = threading.Thread(target=server.serve_forever)
        answering.start()
        path.write_text(HLS.format(f"http://127.0.0.1:{server.server_address[1]}/a.mp3"))
        try:
            with pytest.raises(UserError, match="cannot be read as audio"):
                open_audio(path)
        finally:
            server.shutdown()
            answering.join()
    assert asked == []


def test_names_in_an_old_encoding_are_no_fault(tmp_path: Path) -> None:
    song = encode(tmp_path / "song.mp3", "libmp3lame", tone(44_100, 1), 44_100)
    song.write_bytes(song.read_bytes() + b"TAG" + "Größe".encode("latin-1").ljust(124, b"\0") + b"\xff")
    assert len(decoded(song)[1]) == pytest.approx(44_100, abs=4000)
    wide = write_wav(tmp_path / "wide.wav", bytes(3 * 100), width=3)
    title = "Größe!".encode("latin-1")
    tag = b"INFOINAM" + struct.pack("<I", len(title)) + title
    content = wide.read_bytes() + b"LIST" + struct.pack("<I", len(tag)) + tag
    wide.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    assert len(decoded(wide)[1]) == 100


def test_a_file_that_was_replaced_goes_on_only_in_the_same_format(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", b"\1\2" * 100)
    source = open_audio(path)
    write_wav(path, b"\3\4" * 200)
    assert b"".join(source.blocks()) == b"\3\4" * 200
    for replace in (lambda: write_wav(path, bytes(400), 48_000, 2), lambda: path.write_text("no audio at all")):
        replace()
        with pytest.raises(
            UserError, match=r"tone\.wav was replaced by a file that is not 16-bit WAV of 16000 Hz and 1 "
        ):
            next(source.blocks())


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", b"\1\2" * 16_000)
    blocks = open_audio(path).blocks()
    read = next(blocks)
    os.truncate(path, 44 + 16_000)
    with pytest.raises(UserError, match=r"tone.wav is damaged: its last 0\.50 s cannot be read\."):
        for block in blocks:
            read += block
    assert read == b"\1\2" * 8_000


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tone.wav", b"\1\2" * 16_000)
    source = open_audio(path)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        next(source.blocks())


def raw(content: bytes, audio_format: AudioFormat) -> tuple[bytes, str]:
    """Return the audio read from a pipe, and the error at its end."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    read = b""
    try:
        for block in RawInput(reading, audio_format).blocks():
            assert len(block) % audio_format.sample_bytes == 0
            read += block
    except UserError as error:
        return read, str(error)
    finally:
        os.close(reading)
    return read, ""


@pytest.mark.parametrize("channels", CHANNEL_COUNTS)
def test_raw_pcm_is_read_to_its_end(channels: int) -> None:
    content = bytes(range(256)) * 200
    assert raw(content, AudioFormat(channels=channels)) == (content, "")


@pytest.mark.parametrize(("channels", "extra"), [(1, 1), (2, 1), (2, 2), (2, 3)])
def test_half_a_sample_is_told_after_the_audio(channels: int, extra: int) -> None:
    content = b"\1\2\3\4" * 10_000
    read, problem = raw(content + b"\5" * extra, AudioFormat(channels=channels))
    assert read == content
    assert problem.startswith(f"Standard input ended in the middle of a sample: {40_000 + extra} bytes")


def test_samples_that_arrive_in_pieces_are_put_together() -> None:
    reading, writing = os.pipe()
    blocks = RawInput(reading, AudioFormat(channels=2)).blocks()
    os.write(writing, b"\1\2\3\4\5")
    assert next(blocks) == b"\1\2\3\4"
    os.write(writing, b"\6\7\x08")
    assert next(blocks) == b"\5\6\7\x08"
    os.close(writing)
    assert list(blocks) == []
    os.close(reading)


def test_nothing_is_no_raw_pcm() -> None:
    assert raw(b"", MONO) == (b"", "Standard input ended without any audio.")


def test_input_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UserError, match=r"Standard input cannot be read: Is a directory\."):
        next(RawInput(descriptor, MONO).blocks())
    os.close(descriptor)
