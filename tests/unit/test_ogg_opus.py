"""Opus in Ogg: packets are read as they were written, whatever became of some pages, and other programs read ours."""

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.media import open_audio, open_pipe
from relay.media.ogg_opus import OggOpusStream, OggPackets, OpusHead, look_for_head, read_head
from relay.media.opus_recorder import OggOpusPages, OpusRecorder
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.errors import UserError
from tests.support.audio_files import encode, tone

MONO = AudioFormat(Codec.OPUS, 48_000)
STEREO = AudioFormat(Codec.OPUS, 48_000, 2)
SILENT = b"\xf8\xff\xfe"
HEADERS = 2


class Dribble:
    """Data that comes in pieces of these sizes, over and over."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._file = io.BytesIO(data)
        self._sizes = sizes
        self._count = 0

    def read(self, most_bytes: int, /) -> bytes:
        self._count += 1
        return self._file.read(min(most_bytes, self._sizes[self._count % len(self._sizes)]))


def packet(number: int, size: int = 40) -> bytes:
    """20 ms whose bytes are its number."""
    return b"\xf8" + bytes([number % 251]) * size


def demuxed(path: Path) -> list[bytes]:
    """The packets of a file as FFmpeg finds them."""
    with av.open(str(path)) as container:
        return [bytes(each) for each in container.demux(container.streams.audio[0]) if each.size]


def decoded(path: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", 48_000)
        frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def stream_of(packets: list[bytes], head: OpusHead = OpusHead(1)) -> bytes:  # noqa: B008 - it is immutable
    stream = OggOpusStream(head, 77)
    pages = [stream.begin()]
    pages += [stream.add([each], 960, is_last=number == len(packets) - 1) for number, each in enumerate(packets)]
    return b"".join(pages)


@given(
    st.lists(st.lists(st.integers(0, 1200), min_size=1, max_size=9), max_size=6),
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
)
def test_packets_are_read_as_they_were_written_however_they_arrive(pages: list[list[int]], sizes: list[int]) -> None:
    stream = OggOpusStream(OpusHead(2, 312, 44_100, -5.5), 1)
    written: list[bytes] = []
    data = stream.begin()
    for page in pages:
        packets = [packet(len(written) + number, size) for number, size in enumerate(page)]
        written += packets
        data += stream.add(packets, 960 * len(packets))
    reading = OggPackets(Dribble(data, sizes))
    head, tags, *rest = reading
    assert rest == written
    assert reading.damaged == 0
    assert read_head(head) == OpusHead(2, 312, 44_100, -5.5) == look_for_head(data[:47])
    assert tags.startswith(b"OpusTags")


@given(st.data())
def test_a_damaged_page_costs_only_what_was_in_it(data: st.DataObject) -> None:
    packets = [packet(number) for number in range(20)]
    stream = bytearray(stream_of(packets))
    page_bytes = len(stream_of(packets)) - len(stream_of(packets[:-1]))
    start = len(stream) - 20 * page_bytes
    hit = data.draw(st.integers(0, 18))
    at = start + hit * page_bytes + data.draw(st.integers(0, page_bytes - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    reading = OggPackets(io.BytesIO(bytes(stream)))
    read = list(reading)[HEADERS:]
    assert read == packets[:hit] + packets[hit + 1 :]
    assert reading.damaged >= 1


def test_a_packet_over_several_pages_is_whole_or_left_out() -> None:
    big = packet(1, 70_000)
    laces = bytes([255] * 255), bytes([255] * (len(big) // 255 - 255) + [len(big) % 255])
    whole = stream_of([SILENT])
    # Our own pages have whole packets.
    stream = OggOpusStream(OpusHead(1), 77)
    stream.begin()
    parts = [big[: 255 * 255], big[255 * 255 :]]
    pages = [
        page_of(2 + number, number, lace, part) for number, (lace, part) in enumerate(zip(laces, parts, strict=True))
    ]
    begin = whole[: len(whole) - len(stream.add([SILENT], 960))]
    assert list(OggPackets(io.BytesIO(begin + b"".join(pages))))[HEADERS:] == [big]
    for lost in (0, 1):
        torn = OggPackets(io.BytesIO(begin + pages[1 - lost]))
        assert list(torn)[HEADERS:] == []


def page_of(sequence: int, flags: int, laces: bytes, body: bytes) -> bytes:
    """A page as other programs make them."""
    fields = (b"OggS", 0, flags, -1, 77, sequence)
    blank = struct.pack("<4sBBqIIIB", *fields, 0, len(laces)) + laces + body
    checksum = 0
    for bit in np.unpackbits(np.frombuffer(blank, np.uint8)):
        checksum = (checksum << 1 & 0xFFFF_FFFF) ^ (0x04C1_1DB7 if checksum >> 31 ^ int(bit) else 0)
    return struct.pack("<4sBBqIIIB", *fields, checksum, len(laces)) + laces + body


@pytest.mark.parametrize("channels", [1, 2])
def test_the_packets_of_a_file_pass_through_unchanged(tmp_path: Path, channels: int) -> None:
    layout = "mono" if channels == 1 else "stereo"
    path = encode(tmp_path / "a.opus", "libopus", tone(48_000, channels, 2.0), 48_000, layout)
    packets = demuxed(path)
    assert len(packets) > 90
    source = open_audio(path, keeps_opus=True)
    assert source.audio_format == AudioFormat(Codec.OPUS, 48_000, channels)
    assert list(source.blocks()) == packets
    assert list(source.blocks()) == packets
    assert source.damaged_packets == 0
    # Without the wish for it, or with another one, it is decoded.
    assert open_audio(path).audio_format.codec is Codec.PCM_S16LE
    assert open_audio(path, channels=3 - channels, keeps_opus=True).audio_format.codec is Codec.PCM_S16LE
    assert open_audio(path, 16_000, keeps_opus=True).audio_format == AudioFormat(Codec.OPUS, 16_000, channels)


def test_a_pipe_passes_through_unchanged(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.opus", "libopus", tone(48_000, 1, 1.0), 48_000)
    reading, writing = os.pipe()
    os.write(writing, path.read_bytes())
    os.close(writing)
    source = open_pipe(reading, keeps_opus=True)
    assert source.name == "standard input as Ogg Opus"
    assert list(source.blocks()) == demuxed(path)
    os.close(reading)


def test_links_follow_one_another_and_another_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "chained.opus"
    first, second = [packet(1), packet(2)], [packet(3)]
    path.write_bytes(stream_of(first) + stream_of(second))
    source = open_audio(path, keeps_opus=True)
    assert list(source.blocks()) == first + second
    path.write_bytes(stream_of(first) + stream_of(second, OpusHead(2)))
    packets = []
    with pytest.raises(UserError, match="goes on in another format"):
        for each in open_audio(path, keeps_opus=True).blocks():
            packets.append(each)  # noqa: PERF402 - what came before the error counts
    assert packets == first


def test_malformed_packets_are_left_out_and_counted_and_a_gain_is_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.opus"
    path.write_bytes(stream_of([packet(1), b"\xfb\x00", packet(2)], OpusHead(1, gain_db=-5.5)))
    source = open_audio(path, keeps_opus=True)
    assert list(source.blocks()) == [packet(1), packet(2)]
    assert source.damaged_packets == 1
    assert source.remark == f"{path} asks players for -5.5 dB, which listeners do not hear."
    path.write_bytes(stream_of([]))
    with pytest.raises(UserError, match="holds no audio"):
        list(open_audio(path, keeps_opus=True).blocks())


def packets_of(path: Path) -> list[bytes]:
    return list(OggPackets(io.BytesIO(path.read_bytes())))[HEADERS:]


def tone_packets(channels: int = 1) -> Iterator[bytes]:
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono" if channels == 1 else "stereo", "s16"
    samples = tone(48_000, channels, 2.0)
    for start in range(0, len(samples), 960):
        frame = av.AudioFrame.from_ndarray(
            samples[start : start + 960].reshape(1, -1), format="s16", layout=encoder.layout.name
        )
        frame.sample_rate, frame.pts = 48_000, start
        yield from (bytes(each) for each in encoder.encode(frame))


def test_a_recording_is_heard_by_other_programs_and_keeps_time(tmp_path: Path) -> None:
    path = tmp_path / "out.opus"
    packets = list(tone_packets())
    with OpusRecorder(path) as recorder:
        recorder.set_format(MONO)
        for each in packets[:50]:
            recorder.write(each)
        # The first two are shorter than the shortest packet.
        for seconds in (0.001, 0.001, 0.498):
            recorder.write_silence(seconds)
        for each in packets[50:]:
            recorder.write(each)
    assert demuxed(path) == packets[:50] + [SILENT] * 25 + packets[50:]
    heard = decoded(path)
    assert len(heard) == (len(packets) + 25) * 960 - 312
    quiet = np.abs(heard[: len(heard) // 240 * 240].reshape(-1, 240).astype(int)).max(axis=1) < 2000
    edges = np.flatnonzero(np.diff(quiet[8:].astype(int))) * 240 + 8 * 240
    # The tone rings, and a decoder needs a moment to hear it again.
    assert edges == pytest.approx([48_000, 72_000], abs=1920)


def test_a_recording_that_breaks_off_is_valid_up_to_its_last_second(tmp_path: Path) -> None:
    path = tmp_path / "out.opus"
    recorder = OpusRecorder(path)
    assert look_for_head(path.read_bytes()) is not None
    for number in range(120):
        recorder.write(packet(number))
    assert packets_of(path) == [packet(number) for number in range(100)]
    recorder.__exit__(None, None, None)
    assert packets_of(path) == [packet(number) for number in range(120)]


def test_stereo_after_mono_goes_to_another_file_and_another_rate_does_not(tmp_path: Path) -> None:
    path = tmp_path / "out.opus"
    path.write_bytes(b"an earlier recording")
    with OpusRecorder(path) as recorder:
        assert path.read_bytes() == b"an earlier recording"
        recorder.set_format(STEREO)
        recorder.write(b"\xfc\xff\xfe")
        recorder.set_format(AudioFormat(Codec.OPUS, 16_000, 2))
        recorder.write(b"\xfc\xff\xfe")
        recorder.set_format(MONO)
        recorder.write(SILENT)
    assert packets_of(path) == [b"\xfc\xff\xfe"] * 2
    assert packets_of(tmp_path / "out-2.opus") == [SILENT]
    with pytest.raises(UserError, match="sends pcm_s16le and no Opus"), OpusRecorder(tmp_path / "b.opus") as recorder:
        recorder.set_format(AudioFormat())


def test_pages_hold_no_more_than_255_segments() -> None:
    pages = OggOpusPages(1, 48_000)
    data = pages.begin()
    packets = [packet(number, 6000) for number in range(40)]
    for each in packets:
        data += pages.add(each, 960)
    data += pages.flush(is_last=True)
    assert list(OggPackets(io.BytesIO(data)))[HEADERS:] == packets
