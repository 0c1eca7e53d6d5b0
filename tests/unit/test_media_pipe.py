"""Audio from a pipe: recognised by its first bytes and decoded as it arrives. Raw PCM is never mistaken."""

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from relay.media import AudioSource, open_audio, open_pipe
from relay.media.signatures import HEAD_BYTES, recognise
from relay.vocabulary.audio import CHANNEL_COUNTS, AudioFormat
from relay.vocabulary.errors import UserError
from tests.support.audio_files import TONE_HZ, encode, pitch, tone, write_wav


@contextmanager
def written(content: bytes, *, is_blocking: bool = True) -> Iterator[int]:
    """Yield the reading end of a pipe into which a thread writes `content`."""
    reading, writing = os.pipe()
    os.set_blocking(reading, is_blocking)

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    yield reading
    os.close(reading)
    writer.join()


def read(source: AudioSource) -> np.ndarray:
    return np.frombuffer(b"".join(source.blocks()), "<i2").reshape(-1, source.audio_format.channels)


ENCODED = [
    ("a.mp3", "libmp3lame", "MP3"),
    ("a.aac", "aac", "AAC"),
    ("a.flac", "flac", "FLAC"),
    ("a.opus", "libopus", "Ogg"),
    ("a.mka", "aac", "Matroska or WebM"),
    ("a.ts", "aac", "MPEG transport stream"),
    ("a.aiff", "pcm_s16be", "AIFF"),
    ("a.au", "pcm_s16be", "AU"),
    ("a.caf", "pcm_s16le", "CAF"),
    ("a.w64", "pcm_s16le", "Sony Wave64"),
    ("a.wav", "pcm_s24le", "WAV"),
    ("a.ac3", "ac3", "AC-3"),
    ("a.mp2", "mp2", "MP3"),
    ("a.avi", "pcm_s16le", "AVI"),
]


@pytest.mark.parametrize(("name", "codec", "found"), ENCODED)
def test_what_pyav_decodes_is_decoded_from_a_pipe(tmp_path: Path, name: str, codec: str, found: str) -> None:
    content = encode(tmp_path / name, codec, tone(48_000, 1, 2.0), 48_000).read_bytes()
    with written(content) as pipe:
        source = open_pipe(pipe)
        assert source.name == f"standard input as {found}"
        samples = read(source)
    assert len(samples) / source.audio_format.rate == pytest.approx(2.0, abs=0.15)
    rate = source.audio_format.rate
    assert pitch(samples[rate // 2 :][:rate, 0], rate) == pytest.approx(TONE_HZ, abs=2)


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.aac", "aac")])
def test_a_stream_that_was_joined_in_the_middle_of_a_frame_is_recognised(tmp_path: Path, name: str, codec: str) -> None:
    content = encode(tmp_path / name, codec, tone(48_000, 1, 2.0), 48_000).read_bytes()
    for start in range(2_000, 2_400, 7):
        assert recognise(content[start:][:HEAD_BYTES]) is not None, start


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a"])
def test_a_pipe_without_pyav_names_the_format_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    codec = {"a.mp3": "libmp3lame", "a.m4a": "aac"}[name]
    content = encode(tmp_path / name, codec, tone(48_000, 1), 48_000).read_bytes()
    monkeypatch.setitem(sys.modules, "av", None)
    with written(content) as pipe, pytest.raises(UserError) as refusal:
        open_pipe(pipe)
    assert str(refusal.value).startswith(f"Standard input is {'MP3' if name == 'a.mp3' else 'MP4'}. Convert it")
    assert "pip install 'audio-relay[media]'" in str(refusal.value)
    assert "ffmpeg -i - -f s16le" in str(refusal.value)


def test_what_a_pipe_is_not_enough_for_is_one_sentence(tmp_path: Path) -> None:
    content = encode(tmp_path / "a.m4a", "aac", tone(48_000, 1), 48_000).read_bytes()
    with (
        written(content) as pipe,
        pytest.raises(UserError, match="begins like MP4, which may not be readable from a pipe"),
    ):
        open_pipe(pipe)


def test_a_page_of_a_web_server_is_no_audio() -> None:
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
    with written(page) as pipe, pytest.raises(UserError, match="begins with text"):
        open_pipe(pipe)


@pytest.mark.parametrize("seed", range(4))
def test_no_raw_pcm_is_taken_for_a_file(seed: int) -> None:
    random = np.random.default_rng(seed)
    times = np.arange(HEAD_BYTES // 2) / 16_000
    for _ in range(250):
        hertz, level = random.uniform(20, 8_000), random.integers(1, 32_767)
        sine = np.sin(2 * np.pi * hertz * times + random.uniform(0, 6))
        # A tone, a square wave, a constant level and noise, each quiet or loud.
        for wave in (sine, np.sign(sine), np.full_like(sine, random.choice([-1, 1])), random.uniform(-1, 1, len(sine))):
            for channels in CHANNEL_COUNTS:
                content = np.repeat((wave * level).astype("<i2"), channels).tobytes()[:HEAD_BYTES]
                assert recognise(content) is None, content[:16]


def test_raw_pcm_that_comes_slowly_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"\1\2\3")
    source = open_pipe(reading, 8_000, 2)
    assert source.name == "standard input as raw PCM"
    assert source.audio_format == AudioFormat(rate=8_000, channels=2)
    os.write(writing, b"\4\5")
    blocks = source.blocks()
    seen = next(blocks)
    os.close(writing)
    with pytest.raises(UserError, match="middle of a sample: 5 bytes"):
        list(blocks)
    assert seen == b"\1\2\3\4"
    os.close(reading)


@pytest.mark.parametrize(
    ("name", "codec", "tenths"), [("a.mp3", "libmp3lame", 1), ("a.aac", "aac", 1), ("a.flac", "flac", 2)]
)
def test_a_live_pipe_is_decoded_while_its_writer_goes_on(tmp_path: Path, name: str, codec: str, tenths: int) -> None:
    """Audio comes out after one second of input. FLAC needs two, because a frame is certain only ten frames later."""
    content = encode(tmp_path / name, codec, tone(48_000, 1, 10.0), 48_000).read_bytes()
    reading, writing = os.pipe()
    os.write(writing, content[: len(content) * tenths // 10])
    source = open_pipe(reading)
    assert next(source.blocks())
    os.close(writing)
    os.close(reading)


def test_a_long_stream_is_not_kept(tmp_path: Path) -> None:
    """The reader is never far ahead of the audio that it has returned."""
    content = encode(tmp_path / "a.mp3", "libmp3lame", tone(48_000, 1, 60.0), 48_000).read_bytes()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    taken = os.write(writing, content)
    source = open_pipe(reading)
    blocks = source.blocks()
    given_seconds = 0.0
    ahead_seconds = []
    while taken < len(content):
        given_seconds += len(next(blocks)) / source.audio_format.bytes_per_second
        try:
            taken += os.write(writing, content[taken:])
        except BlockingIOError:
            continue
        ahead_seconds.append(taken / len(content) * 60 - given_seconds)
    os.close(writing)
    # The reader is ahead by what the pipe (64 KiB) and FFmpeg's own buffer hold.
    assert max(ahead_seconds) < 120 * 1024 / len(content) * 60
    os.close(reading)


def test_a_non_blocking_pipe_is_waited_for_and_stays_one(tmp_path: Path) -> None:
    content = write_wav(tmp_path / "a.wav", tone(16_000, 1, 3.0).tobytes()).read_bytes()
    with written(content, is_blocking=False) as pipe:
        samples = read(open_pipe(pipe))
        assert os.get_blocking(pipe) is False
    assert samples.tobytes() == content[44:]


def link(codec: str, rate: int, channels: int) -> bytes:
    """Return two seconds of audio in Ogg."""
    file = io.BytesIO()
    layout = "mono" if channels == 1 else "stereo"
    with av.open(file, "w", format="ogg") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray(tone(rate, channels, 2.0).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


CHAINS = [
    [("libopus", 48_000, 2), ("libopus", 48_000, 1), ("libopus", 48_000, 2)],
    [("libopus", 48_000, 1), ("libopus", 48_000, 1)],
    [("vorbis", 44_100, 2), ("vorbis", 22_050, 2)],
    [("vorbis", 44_100, 2), ("libopus", 48_000, 1)],
]


@pytest.mark.parametrize("links", CHAINS)
@pytest.mark.parametrize("through_pipe", [False, True])
def test_each_link_of_chained_ogg_is_heard(
    tmp_path: Path, links: list[tuple[str, int, int]], through_pipe: bool
) -> None:
    content = b"".join(link(*each) for each in links)
    if through_pipe:
        with written(content) as pipe:
            source = open_pipe(pipe)
            samples = read(source)
    else:
        (tmp_path / "chain.ogg").write_bytes(content)
        source = open_audio(tmp_path / "chain.ogg")
        samples = read(source)
    rate = source.audio_format.rate
    assert source.audio_format.channels == links[0][2]
    assert source.damaged_packets == 0
    assert len(samples) / rate == pytest.approx(2.0 * len(links), abs=0.15)
    for number in range(len(links)):
        second = samples[round((2 * number + 0.5) * rate) :][:rate, 0]
        assert pitch(second, rate) == pytest.approx(TONE_HZ, abs=2)
