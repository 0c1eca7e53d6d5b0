"""Ogg Opus, in both directions, with FFmpeg as the other end."""

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.media.ogg_opus import OggOpusPages, OpusHead, OpusPackets, is_ogg_opus
from relay.media.ogg_pages import MAX_SEGMENTS, NO_GRANULE, Page, PageReader, segments
from relay.media.opus_files import OpusFile, OpusInput, OpusRecorder
from relay.media.pipe import Pipe
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.errors import UserError
from tests.support.audio_files import encode, tone

MONO = AudioFormat(Codec.OPUS, 48_000, 1)
STEREO = AudioFormat(Codec.OPUS, 48_000, 2)


def packets_of(path: Path | io.BytesIO) -> list[bytes]:
    """What FFmpeg finds in a file of one stream."""
    with av.open(str(path) if isinstance(path, Path) else path, "r") as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def decoded_samples(path: Path | io.BytesIO) -> int:
    """How many samples FFmpeg plays."""
    with av.open(str(path) if isinstance(path, Path) else path, "r") as container:
        return sum(frame.samples for frame in container.decode(audio=0))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a tone, encoded by FFmpeg."""
    return encode(tmp_path_factory.mktemp("opus") / "tone.opus", "libopus", tone(48_000, 1, 3.0), 48_000)


def test_packets_are_read_as_they_are(speech: Path) -> None:
    source = OpusFile(speech)
    packets = list(source.blocks())
    assert packets == packets_of(speech)
    assert list(source.blocks()) == packets, "a file can be read any number of times"
    assert (source.audio_format, source.damaged_packets, source.name) == (MONO, 0, "tone.opus")
    assert source.duration_seconds == pytest.approx(3.0, abs=0.01)
    assert OpusFile(speech, rate=16_000).audio_format.rate == 16_000
    assert is_ogg_opus(speech.read_bytes()[:36])


def test_a_pipe_is_read_as_it_comes(speech: Path) -> None:
    data, (reading, writing) = speech.read_bytes(), os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        first_page_end = next(end for end in range(200, len(data)) if data[end : end + 4] == b"OggS" and end > 200)
        writer.write(data[:first_page_end])
        source = OpusInput(Pipe(reader.fileno()))
        assert source.audio_format == MONO
        writer.write(data[first_page_end:])
        writer.close()
        assert list(source.blocks()) == packets_of(speech)


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
def test_the_rate_is_that_of_the_head(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "other.opus"
    path.write_bytes(OggOpusPages(1, OpusHead(2, rate=rate)).head())
    assert OpusFile(path).audio_format == AudioFormat(Codec.OPUS, rate, 2)
    path.write_bytes(OggOpusPages(1, OpusHead(2, rate=44_100)).head())
    assert OpusFile(path).audio_format.rate == 48_000
    path.write_bytes(OggOpusPages(1, OpusHead(2, rate=0)).head())
    assert OpusFile(path).audio_format.rate == 48_000


well_formed = st.one_of(
    st.builds(lambda count, part: b"\xf8" + part * count, st.integers(0, 1275), st.sampled_from([b"\0", b"\xff"])),
    st.builds(lambda size: b"\xfb\x46" + bytes([size]) + bytes(6 * 1275 + size), st.integers(0, 254)),
)


@given(st.lists(st.lists(well_formed, max_size=30), max_size=5), st.integers(2, 2**32 + 5))
def test_what_is_written_is_read_again(pages: list[list[bytes]], number: int) -> None:
    writer = OggOpusPages(7, OpusHead(1), [("TITLE", "Grüße")])
    writer.number = number
    data = writer.head() + b"".join(writer.pack(packets) for packets in pages) + writer.pack([], is_last=True)
    reader = OpusPackets(io.BytesIO(data))
    packets = [packet for page in pages for packet in page]
    assert list(reader) == packets
    assert (reader.damaged, reader.head) == (0, OpusHead(1))
    assert reader.comments == [("TITLE", "Grüße")]
    found = list(PageReader(io.BytesIO(data)))
    numbers = [page.number for page in found]
    assert numbers == [each % 2**32 for each in range(number - 2, number - 2 + len(found))]
    assert found[0].is_first
    assert found[-1].is_last
    assert found[-1].granule == writer.granule == sum(map(opus_packet.measure, packets))


@given(st.lists(st.binary(max_size=700), max_size=8), st.booleans(), st.booleans())
def test_a_page_is_read_as_it_was_written(packets: list[bytes], is_continued: bool, is_unfinished: bool) -> None:
    if is_unfinished:
        packets.append(bytes(510))
    page = Page(2**32 - 1, 5, -1, packets, is_continued, is_unfinished, is_last=True)
    assert list(PageReader(io.BytesIO(page.pack()))) == [page]


def test_a_page_holds_255_segments() -> None:
    packet = bytes(254 * 255 - 1)
    assert segments(packet) == 254
    Page(1, 1, 0, [packet, b""]).pack()
    with pytest.raises(ValueError, match="256 segments do not fit on one page of 255"):
        Page(1, 1, 0, [packet, b"", b""]).pack()
    stream = OggOpusPages(1, OpusHead(1))
    data = stream.pack([opus_packet.silence(960, 1)] * (MAX_SEGMENTS + 1))
    assert [len(page.packets) for page in PageReader(io.BytesIO(data))] == [255, 1]


def split_page(page: Page, size: int) -> Iterator[Page]:
    """Cut packets of 20 ms into pages of `size` segments, as other writers do."""
    lacing = [(packet[at : at + 255]) for packet in page.packets for at in range(0, len(packet) + 1, 255)]
    number, is_open = page.number, False
    for at in range(0, len(lacing), size):
        packets, is_continued = [b""], is_open
        for segment in lacing[at : at + size]:
            packets[-1] += segment
            is_open = len(segment) == 255
            if not is_open:
                packets.append(b"")
        if not is_open:
            packets.pop()
        ended = sum(len(segment) < 255 for segment in lacing[: at + size])
        granule = 960 * ended if any(len(segment) < 255 for segment in lacing[at : at + size]) else NO_GRANULE
        yield Page(page.serial, number, granule, packets, is_continued, is_open)
        number += 1


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_packets_may_go_on_over_pages(size: int) -> None:
    packets = [b"\xf8" + bytes([number]) * size for number, size in enumerate([0, 253, 254, 255, 1000, 1275, 3])]
    stream = OggOpusPages(1, OpusHead(1))
    head = stream.head()
    [page] = PageReader(io.BytesIO(stream.pack(packets)))
    data = head + b"".join(part.pack() for part in split_page(page, size))
    assert list(OpusPackets(io.BytesIO(data))) == packets
    assert packets_of(io.BytesIO(data)) == packets


def test_chained_streams_are_one_sequence(speech: Path) -> None:
    other = OggOpusPages(77, OpusHead(2), [("ARTIST", "b")])
    more = [opus_packet.silence(2880, 2)] * 3
    data = speech.read_bytes() + other.head() + other.pack(more, is_last=True)
    reader = OpusPackets(io.BytesIO(data))
    assert reader.head.channels == 1
    assert list(reader) == packets_of(speech) + more
    assert (reader.head.channels, reader.comments, reader.damaged) == (2, [("ARTIST", "b")], 0)
    assert OpusFile(write(speech.with_name("chained.opus"), data)).duration_seconds is None


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_other_streams_beside_it_are_skipped() -> None:
    stream = OggOpusPages(1, OpusHead(1))
    packets = [opus_packet.silence(960, 1), b"\xf8\x01"]
    video = [Page(9, 0, 0, [b"\x80theora"], is_first=True), Page(9, 1, 5, [b"picture"] * 3)]
    [opus_head, opus_tags] = PageReader(io.BytesIO(stream.head()))
    pages = [video[0], opus_head, opus_tags, *PageReader(io.BytesIO(stream.pack(packets))), video[1]]
    assert list(OpusPackets(io.BytesIO(b"".join(page.pack() for page in pages)))) == packets


def test_what_is_damaged_is_skipped_and_counted() -> None:
    stream = OggOpusPages(1, OpusHead(1))
    head = stream.head()
    pages = [stream.pack([b"\xf8" + bytes([number])] * 2) for number in range(6)]
    wrong = bytearray(pages[1])
    wrong[-1] ^= 1
    malformed = stream.pack([]) + Page(1, stream.number, 0, [b"\xfb\0", b"\xf8ok"]).pack()
    data = head + pages[0] + bytes(wrong) + pages[2] + b"garbage Ogg" + pages[3] + malformed + pages[4][:20]
    reader = OpusPackets(io.BytesIO(data))
    assert list(reader) == [b"\xf8\0", b"\xf8\0", b"\xf8\2", b"\xf8\2", b"\xf8\3", b"\xf8\3", b"\xf8ok"]
    assert reader.damaged == 4, "a page, garbage, a packet, and the end"


def test_a_packet_whose_end_is_lost_is_left_out() -> None:
    stream = OggOpusPages(1, OpusHead(1))
    head = stream.head()
    [page] = PageReader(io.BytesIO(stream.pack([b"\xf8" + bytes(600), b"\xf8" + bytes(600), b"\xf8\1"])))
    parts = [part.pack() for part in split_page(page, 2)]
    assert len(parts) == 4
    reader = OpusPackets(io.BytesIO(head + parts[0] + parts[2] + parts[3]))
    assert list(reader) == [b"\xf8\1"]
    assert reader.damaged == 1


@given(st.binary(max_size=2000), st.integers(0, 5000), st.integers(0, 3000))
def test_no_bytes_are_too_strange(noise: bytes, at: int, cut: int) -> None:
    stream = OggOpusPages(1, OpusHead(1))
    whole = stream.head() + b"".join(stream.pack([b"\xf8" + bytes(200)] * 4) for _ in range(4))
    data = whole[:at] + noise + whole[at + cut :]
    try:
        reader = OpusPackets(io.BytesIO(data))
    except UserError:
        return
    for packet in reader:
        assert opus_packet.measure(packet)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"ID3 is no Ogg at all", "There is no Ogg Opus in it."),
        (b"", "There is no Ogg Opus in it."),
        (Page(1, 0, 0, [b"OpusHead\1\6" + bytes(9)], is_first=True).pack(), "has 6 channels. Opus is passed on in"),
        (Page(1, 0, 0, [b"OpusHead\x10\1" + bytes(9)], is_first=True).pack(), "has version 16"),
        (Page(1, 0, 0, [b"OpusHead\1\1"], is_first=True).pack(), "is damaged"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = write(tmp_path / "x.opus", data)
    with pytest.raises(UserError, match=says) as caught:
        OpusFile(path)
    assert str(caught.value).startswith(f"{path} can not be passed on as Opus. ")


def test_a_missing_file_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        OpusFile(tmp_path / "none.opus")


def record(path: Path, packets: Sequence[bytes], audio_format: AudioFormat = MONO) -> None:
    with OpusRecorder(path) as recorder:
        recorder.set_format(audio_format)
        for packet in packets:
            recorder.write(packet)


def test_a_recording_plays_elsewhere(tmp_path: Path, speech: Path) -> None:
    packets = packets_of(speech)
    record(tmp_path / "out.opus", packets)
    assert packets_of(tmp_path / "out.opus") == packets
    assert decoded_samples(tmp_path / "out.opus") == sum(map(opus_packet.measure, packets)) - 312
    with av.open(str(tmp_path / "out.opus"), "r") as container:
        assert container.streams.audio[0].rate == 48_000
        assert container.duration == pytest.approx(3_000_000, abs=40_000)
    pages = list(PageReader(io.BytesIO((tmp_path / "out.opus").read_bytes())))
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert len({page.serial for page in pages}) == 1


def test_padding_at_the_end_is_trimmed() -> None:
    stream = OggOpusPages(1, OpusHead(1))
    packets = [opus_packet.silence(960, 1)] * 10
    data = stream.head() + stream.pack(packets[:5]) + stream.pack(packets[5:], is_last=True, trim_ticks=500)
    assert decoded_samples(io.BytesIO(data)) == 10 * 960 - 312 - 500


def test_a_listener_that_joins_late_gets_the_head_first(speech: Path) -> None:
    packets = packets_of(speech)
    stream = OggOpusPages(1, OpusHead(1))
    pages = [stream.pack(packets[at : at + 5]) for at in range(0, 100, 5)]
    late = stream.head() + b"".join(stream.pack(packets[at : at + 5]) for at in range(100, 150, 5))
    numbers = [page.number for page in PageReader(io.BytesIO(late))]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
    assert numbers[2] == 2 + len(pages)
    assert packets_of(io.BytesIO(late)) == packets[100:150]
    assert decoded_samples(io.BytesIO(late)) > 49 * 960 - 312


def test_a_recording_is_valid_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "out.opus"
    silence = opus_packet.silence(960, 2)
    with OpusRecorder(path) as recorder:
        assert list(OpusFile(path).blocks()) == []
        recorder.set_format(STEREO)
        assert OpusFile(path).audio_format == STEREO
        for _ in range(120):
            recorder.write(silence)
        assert packets_of(path) == [silence] * 100, "whole seconds are on disk"
    assert packets_of(path) == [silence] * 120


@pytest.mark.parametrize("audio_format", [MONO, STEREO])
def test_an_earlier_recording_stays_until_there_is_audio(tmp_path: Path, audio_format: AudioFormat) -> None:
    path = write(tmp_path / "out.opus", b"an earlier recording" * 100)
    record(path, [], audio_format)
    assert path.read_bytes() == b"an earlier recording" * 100
    record(path, [opus_packet.silence(960, 1)], audio_format)
    assert OpusFile(path).audio_format == audio_format
    source = OpusFile(path)
    assert len(list(source.blocks())) == 1
    assert source.damaged_packets == 0, "nothing is left of it"


def test_another_format_is_another_stream_in_the_file(tmp_path: Path) -> None:
    mono, stereo = opus_packet.silence(960, 1), opus_packet.silence(960, 2)
    with OpusRecorder(tmp_path / "out.opus") as recorder:
        recorder.write(mono)
        recorder.set_format(STEREO)
        recorder.set_format(MONO)
        recorder.set_format(STEREO)
        recorder.write(stereo)
    data = (tmp_path / "out.opus").read_bytes()
    assert list(OpusPackets(io.BytesIO(data))) == [mono, stereo]
    heads = [page for page in PageReader(io.BytesIO(data)) if page.is_first]
    assert [OpusHead.unpack(page.packets[0]).channels for page in heads] == [1, 2]
    assert len({page.serial for page in heads}) == 2


def test_a_recording_needs_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.opus")
    with pytest.raises(UserError, match="is not a regular file; Ogg Opus can be written to nothing else"):
        OpusRecorder(tmp_path / "pipe.opus")
    with pytest.raises(UserError, match="can not be written: No such file"):
        OpusRecorder(tmp_path / "none" / "out.opus")
