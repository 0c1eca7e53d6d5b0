from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from relay.loadtest.frame_reader import (
    MAX_MESSAGE_BYTES,
    Closing,
    FrameReader,
    Greeting,
    Happening,
    PingFrame,
    Stream,
    ToldGap,
)
from relay.loadtest.source import quiet_audio
from relay.loadtest.target import STREAM_MARK, Expect, stamp, stamp_for_stream, stamp_opus
from relay.protocol.json_messages import encode
from relay.protocol.messages import ErrorNotice, Pong, StateChange
from relay.protocol.wire import Header, pack_audio
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import PolicyError

EPOCH = 65_535
WRAP = 1 << 32


def websocket(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=False)


def text(message: str) -> bytes:
    return websocket(Opcode.TEXT, message.encode())


FORMAT = {"codec": "pcm_s16le", "rate": 16_000, "channels": 1, "clock_rate": 16_000}


def hello(next_seq: int) -> bytes:
    members = {"connection_id": "c", "state": "live", "format": FORMAT, "epoch": EPOCH, "next_seq": next_seq}
    return text(encode("hello", protocol="relay.v1", **members, clock_ms=77))


def audio(seq: int, length: int = 640, due_ms: int = 0, epoch: int = EPOCH) -> bytes:
    return websocket(Opcode.BINARY, Header(epoch, seq, 0, due_ms).pack() + bytes(length))


def gap(first: int, count: int) -> bytes:
    members = {"epoch": EPOCH, "from_seq": first, "to_seq": (first + count - 1) % WRAP, "duration_ms": 20 * count}
    return text(encode("gap", **members, reason="overflow"))


def receive(
    reader: FrameReader, stream: Stream, received: bytes, cuts: Sequence[int] = (), now_ms: int = 0
) -> list[Happening]:
    """Feed bytes to the reader in pieces, as the receiver does."""
    happenings: list[Happening] = []
    edges = [0, *sorted({cut % (len(received) + 1) for cut in cuts}), len(received)]
    for first, last in pairwise(edges):
        piece = stream.rest + received[first:last]
        reader.buffer[: len(piece)] = piece
        happenings += reader.take(stream, len(piece), now_ms)
        while happenings and isinstance(happenings[-1], Greeting) and stream.rest:
            reader.buffer[: len(stream.rest)] = stream.rest
            told = reader.take(stream, len(stream.rest), now_ms)
            if not told:
                break
            happenings += told
    return happenings


@dataclass(frozen=True)
class Conversation:
    """Bytes from a relay, and the result that they must have."""

    received: bytes
    end: int
    delivered: int
    gap_frames: int
    happenings: tuple[type, ...]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    start = draw(st.integers(0, WRAP - 1) | st.integers(WRAP - 40, WRAP - 1))
    seq, delivered, gap_frames = start, 0, 0
    parts = [hello(start)]
    happenings: list[type] = [Greeting]
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["audio", "audio", "audio", "fragments", "gap", "ping", "pong", "state", "error"]))
        if kind == "audio":
            length = draw(st.sampled_from([640, 640, 640, 0, 100, 109, 110, 66_000]))
            count = draw(st.integers(1, 6 if length < 66_000 else 1))
            parts += [audio((seq + number) % WRAP, length) for number in range(count)]
            seq, delivered = seq + count, delivered + count
        elif kind == "fragments":
            payload = Header(EPOCH, seq % WRAP, 0, 0).pack() + bytes(30)
            parts += [
                websocket(Opcode.BINARY, payload[:9], fin=False),
                websocket(Opcode.PING, b"between"),
                websocket(Opcode.CONT, payload[9:20], fin=False),
                websocket(Opcode.CONT, payload[20:]),
            ]
            happenings.append(PingFrame)
            seq, delivered = seq + 1, delivered + 1
        elif kind == "gap":
            count = draw(st.integers(1, 100))
            parts.append(gap(seq % WRAP, count))
            happenings.append(ToldGap)
            seq, gap_frames = seq + count, gap_frames + count
        elif kind == "ping":
            parts.append(websocket(Opcode.PING, draw(st.binary(max_size=125))))
            happenings.append(PingFrame)
        elif kind == "pong":
            parts += [text(encode("pong", id=3, clock_ms=9)), websocket(Opcode.PONG, b"")]
            happenings.append(Pong)
        elif kind == "state":
            parts += [text(StateChange(ChannelState.LIVE).text()), text(encode("tomorrow", value=1))]
        else:
            parts.append(text(ErrorNotice(1008, "No.").text()))
            happenings.append(ErrorNotice)
    parts.append(websocket(Opcode.CLOSE, (1000).to_bytes(2) + b"The session ended."))
    return Conversation(b"".join(parts), seq % WRAP, delivered, gap_frames, (*happenings, Closing))


@given(conversations(), st.lists(st.integers(0, 1 << 20), max_size=30), st.integers(0, 30_000))
def test_everything_is_read_wherever_the_bytes_are_cut(
    conversation: Conversation, cuts: list[int], late_ms: int
) -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    happenings = receive(reader, stream, conversation.received, cuts, now_ms=late_ms)
    account = stream.account
    assert tuple(type(happening) for happening in happenings) == conversation.happenings
    assert (account.delivered, account.gap_frames) == (conversation.delivered, conversation.gap_frames)
    assert (account.unaccounted, account.owed(conversation.end)) == (0, 0)
    assert stream.rest == b""
    assert reader.latency.total == conversation.delivered
    assert reader.latency.maximum == (late_ms if conversation.delivered else None)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40), st.lists(st.integers(0, 1 << 20), max_size=10))
def test_no_loss_is_overlooked_in_a_run_of_frames(count: int, lost: int, doubled: int, cuts: list[int]) -> None:
    frames = [audio(seq) for seq in range(count)]
    wrong = [frame for seq, frame in enumerate(frames) if seq != lost for _ in range(2 if seq == doubled else 1)]
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    receive(reader, stream, hello(0) + b"".join(wrong), cuts)
    found = stream.account.unaccounted + stream.account.owed(count)
    assert found == (lost < count) + (doubled < count and doubled != lost)
    assert reader.latency.total == len(wrong)
    assert stream.rest == b""


def test_a_frame_that_comes_in_two_reads_is_one() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    receive(reader, stream, hello(WRAP - 1) + audio(WRAP - 1) + audio(0))
    receive(reader, stream, audio(1) + audio(2), cuts=[1000])
    receive(reader, stream, audio(3))
    assert (stream.account.delivered, stream.account.unaccounted, stream.account.next_seq) == (5, 0, 4)


def test_numbers_wrap_in_the_middle_of_a_run() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    run = [WRAP - 3, WRAP - 2, WRAP - 1, 0, 1]
    receive(reader, stream, hello(run[0]) + audio(run[0]))
    receive(reader, stream, b"".join(map(audio, run[1:3])))
    assert stream.account.next_seq == 0
    receive(reader, stream, b"".join(map(audio, run[3:])))
    assert (stream.account.delivered, stream.account.unaccounted, stream.account.next_seq) == (5, 0, 2)


def test_a_run_is_taken_at_once_and_each_frame_has_its_own_latency() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    receive(reader, stream, hello(0) + audio(0, due_ms=1000), now_ms=1005)
    run = b"".join(audio(seq, due_ms=1000 + 20 * seq) for seq in range(1, 5))
    assert receive(reader, stream, run, now_ms=1090) == []
    assert reader.latency.items() == [(5, 1), (10, 1), (30, 1), (50, 1), (70, 1)]


def test_due_times_wrap_and_a_clock_may_be_a_little_behind() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    receive(reader, stream, hello(0) + audio(0, due_ms=WRAP - 10) + audio(1, due_ms=WRAP - 10), now_ms=5)
    receive(reader, stream, audio(2, due_ms=WRAP - 5), now_ms=5)
    receive(reader, stream, audio(3, due_ms=8), now_ms=5)
    assert reader.latency.items() == [(0, 1), (10, 1), (15, 2)]


def test_another_epoch_is_noticed_at_full_speed() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    receive(reader, stream, hello(0) + audio(0) + audio(1))
    receive(reader, stream, audio(2, epoch=1))
    assert stream.account.unaccounted == 1


def test_a_format_message_begins_an_epoch() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    new = text(encode("format", format=FORMAT, epoch=9))
    receive(reader, stream, hello(5) + audio(5) + new + audio(0, epoch=9) + audio(1, epoch=9))
    assert (stream.account.delivered, stream.account.unaccounted) == (3, 0)


def test_who_does_not_read_is_accounted_for_and_not_measured() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1, measured=False)
    receive(reader, stream, hello(0) + b"".join(audio(seq) for seq in range(9)))
    receive(reader, stream, audio(9))
    assert (stream.account.delivered, reader.latency.total) == (10, 0)


def test_a_sender_s_own_header_does_where_a_server_adds_none() -> None:
    reader, stream = FrameReader(), Stream(Expect.STAMPED)
    frames = [websocket(Opcode.BINARY, stamp(seq, 1.0, bytes(640))) for seq in range(3, 9)]
    receive(reader, stream, text("welcome") + b"".join(frames), now_ms=1007)
    assert (stream.account.delivered, stream.account.unaccounted, stream.account.owed(9)) == (6, 0, 0)
    assert reader.latency.items() == [(7, 6)]


def test_a_stamp_behind_the_relay_s_header_is_what_latency_counts_from() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1_STAMPED)
    # The relay says that each frame arrived at 1500 ms. The sender says that its frames left 20 ms apart.
    frames = [
        websocket(Opcode.BINARY, Header(EPOCH, seq, 0, 1500).pack() + stamp(seq, 1 + seq / 50, bytes(640)))
        for seq in range(4)
    ]
    receive(reader, stream, hello(0) + frames[0], now_ms=1100)
    receive(reader, stream, b"".join(frames[1:]), now_ms=1100)
    assert (stream.account.delivered, stream.account.unaccounted, stream.account.owed(4)) == (4, 0, 0)
    assert reader.latency.items() == [(40, 1), (60, 1), (80, 1), (100, 1)]


def test_stamped_or_not_one_reader_tells_frames_of_one_length_apart() -> None:
    reader, plain, stamped = FrameReader(), Stream(Expect.RELAY_V1), Stream(Expect.RELAY_V1_STAMPED)
    frames = [
        websocket(Opcode.BINARY, Header(EPOCH, seq, 0, 1500).pack() + stamp(seq, 1.0, bytes(640))) for seq in range(3)
    ]
    for stream in (plain, stamped):
        receive(reader, stream, hello(0) + frames[0], now_ms=1501)
        receive(reader, stream, frames[1] + frames[2], now_ms=1501)
    assert reader.latency.items() == [(1, 3), (501, 3)]


OPUS = {"codec": "opus", "rate": 48_000, "channels": 1, "clock_rate": 48_000}


def opus_hello(next_seq: int) -> bytes:
    members = {"connection_id": "c", "state": "live", "format": OPUS, "epoch": EPOCH, "next_seq": next_seq}
    return text(encode("hello", protocol="relay.v1", **members, clock_ms=77))


def packet(seq: int) -> bytes:
    """20 ms of Opus, of another length than the packet before it."""
    return b"\xf8" + bytes(30 + seq % 17)


def opus(seq: int, count: int = 1, due_ms: int = 0, epoch: int = EPOCH) -> bytes:
    """A message with so many packets, the first of which is due then and each further one 20 ms later."""
    header = Header(epoch, seq % WRAP, 0, due_ms % WRAP)
    packets = [packet(number) for number in range(seq, seq + count)]
    return websocket(Opcode.BINARY, header.pack() + packets[0] if count == 1 else pack_audio(header, packets))


@given(st.lists(st.integers(1, 5), max_size=9), st.lists(st.integers(0, 1 << 20), max_size=20), st.integers(0, 9))
def test_packets_are_counted_however_many_share_a_message(counts: list[int], cuts: list[int], lost: int) -> None:
    start = WRAP - 5
    messages, seq = [opus_hello(start)], start
    for number, count in enumerate(counts):
        message = opus(seq, count, due_ms=20 * (seq - start))
        messages += [gap(seq % WRAP, count)] if number == lost else [message]
        seq += count
    missing = counts[lost] if lost < len(counts) else 0
    reader, streams = FrameReader(), [Stream(Expect.RELAY_V1) for _ in range(3)]
    for stream in streams:
        receive(reader, stream, b"".join(messages), cuts, now_ms=20 * (seq - start))
        account = stream.account
        assert (account.delivered, account.gap_frames) == (seq - start - missing, missing)
        assert (account.unaccounted, account.owed(seq % WRAP), stream.rest) == (0, 0, b"")
    ages_ms = [20 * number for number in range(1, seq - start + 1)]
    heard = sum(count for number, count in enumerate(counts) if number != lost)
    assert reader.latency.total == 3 * heard
    assert {age_ms for age_ms, _ in reader.latency.items()} <= set(ages_ms)


def test_a_message_that_many_get_is_known_again_and_still_checked_for_each() -> None:
    reader, streams = FrameReader(), [Stream(Expect.RELAY_V1) for _ in range(3)]
    for stream in streams:
        receive(reader, stream, opus_hello(0) + opus(0, 3))
    # The same bytes come too early to one listener, and twice to another.
    receive(reader, streams[0], opus(3, 3))
    receive(reader, streams[1], opus(6, 3))
    receive(reader, streams[2], opus(3, 3) + opus(3, 3))
    receive(reader, streams[0], opus(6, 3, epoch=1))
    assert [stream.account.unaccounted for stream in streams] == [1, 3, 3]
    assert [stream.account.delivered for stream in streams] == [9, 6, 6]


def test_a_packet_s_stamp_is_in_its_padding() -> None:
    quiet = quiet_audio(Codec.OPUS, 20)
    assert AudioFormat(Codec.OPUS, 48_000).measure(quiet).seconds == 0.02
    stamped = [stamp_opus(seq, 1 + seq / 50, quiet) for seq in range(4)]
    assert AudioFormat(Codec.OPUS, 48_000).measure(stamped[0]).seconds == 0.02
    first = websocket(Opcode.BINARY, Header(EPOCH, 0, 0, 1500).pack() + stamped[0])
    rest = websocket(Opcode.BINARY, pack_audio(Header(EPOCH, 1, 960, 1520), stamped[1:]))
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1_STAMPED)
    receive(reader, stream, opus_hello(0) + first + rest, now_ms=1100)
    assert (stream.account.delivered, stream.account.unaccounted) == (4, 0)
    assert reader.latency.items() == [(40, 1), (60, 1), (80, 1), (100, 1)]


def test_a_codec_may_change_in_the_middle() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    to_opus = text(encode("format", format=OPUS, epoch=9))
    back = text(encode("format", format=FORMAT, epoch=10))
    receive(reader, stream, hello(0) + audio(0) + audio(1) + to_opus + opus(0, 2, epoch=9) + opus(2, epoch=9))
    receive(reader, stream, back + audio(0, epoch=10) + audio(1, epoch=10))
    receive(reader, stream, audio(2, epoch=10))
    assert (stream.account.delivered, stream.account.unaccounted, stream.frame_ticks) == (8, 0, 960)


@given(
    st.lists(st.binary(max_size=50).filter(lambda filler: STREAM_MARK[0] not in filler), max_size=8),
    st.lists(st.integers(0, 1 << 20), max_size=30),
    st.integers(0, 700),
)
def test_frames_of_a_stream_are_found_wherever_it_begins_and_is_cut(
    fillers: list[bytes], cuts: list[int], begins: int
) -> None:
    parts: list[bytes] = []
    for seq, filler in enumerate([*fillers, b"", b"", b""]):
        parts += [stamp_for_stream(seq, 1.0, bytes(640)), filler]
    reader, stream = FrameReader(), Stream(Expect.STREAM)
    receive(reader, stream, b"".join(parts)[begins:], cuts, now_ms=1030)
    expected = len(fillers) + 3 - (begins > 0) - (begins > 640 + len(parts[1]))
    assert (stream.account.delivered, stream.account.unaccounted) == (expected, 0)
    assert stream.account.owed(len(fillers) + 3) == 0
    assert reader.latency.items() == [(30, expected)]
    assert len(stream.rest) < len(STREAM_MARK)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_mark_that_comes_in_two_reads_is_found(cut: int) -> None:
    reader, stream = FrameReader(), Stream(Expect.STREAM)
    frame = stamp_for_stream(0, 1.0, bytes(640))
    receive(reader, stream, bytes(100) + frame[:cut])
    receive(reader, stream, frame[cut:])
    assert stream.account.delivered == 1


def test_a_frame_that_a_stream_lacks_is_missed() -> None:
    reader, stream = FrameReader(), Stream(Expect.STREAM)
    receive(reader, stream, b"".join(stamp_for_stream(seq, 1.0, bytes(640)) for seq in (0, 1, 2, 4, 5)))
    assert (stream.account.delivered, stream.account.unaccounted) == (5, 1)


def test_a_frame_of_a_stream_that_lies_about_its_length_is_refused() -> None:
    with pytest.raises(PolicyError, match="size of 8 bytes"):
        receive(FrameReader(), Stream(Expect.STREAM), STREAM_MARK + (0).to_bytes(4) + (8).to_bytes(4) + bytes(4))


def test_what_is_not_audio_is_told() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    close = websocket(Opcode.CLOSE, (4503).to_bytes(2) + b"Taken.")
    told = receive(reader, stream, hello(0) + text(ErrorNotice(4503, "Taken.").text()) + close)
    assert isinstance(told[0], Greeting)
    assert (told[0].hello.clock_ms, told[0].hello.next_seq) == (77, 0)
    assert told[1:] == [ErrorNotice(4503, "Taken."), Closing(4503, "Taken.")]
    assert receive(reader, stream, websocket(Opcode.CLOSE, b"")) == [Closing(1005, "")]
    assert receive(reader, stream, text(encode("pong", id=4, clock_ms=5))) == [Pong(4, 5)]
    assert receive(reader, stream, gap(0, 3)) == [ToldGap(3)]


FORMAT_WITHOUT_EPOCH = encode("format", format=FORMAT)

BAD = {
    "masked": (Frame(Opcode.BINARY, b"x" * 20).serialize(mask=True), "masked"),
    "reserved bits": (b"\xc2\x01x", "reserved bits"),
    "unknown opcode": (b"\x83\x00", "begins with 0x83"),
    "too long": (b"\x82\x7f" + (MAX_MESSAGE_BYTES + 1).to_bytes(8), "the limit is"),
    "too short for a header": (websocket(Opcode.BINARY, b"abc"), "too few for"),
    "not UTF-8": (websocket(Opcode.TEXT, b"\xff"), "not UTF-8"),
    "not valid JSON": (text("hello"), "not valid JSON"),
    "a pong without a clock": (text(encode("pong", id=1)), "clock_ms"),
    "a format without an epoch": (text(FORMAT_WITHOUT_EPOCH), "epoch"),
    "fragments of nothing": (websocket(Opcode.CONT, b"x"), "fragments"),
    "a message in a message": (websocket(Opcode.TEXT, b"x", fin=False) + text("y"), "fragments"),
    "a long ping": (b"\x89\x7e\x00\x7e" + bytes(126), "control frame"),
    "endless fragments": (
        websocket(Opcode.BINARY, bytes(MAX_MESSAGE_BYTES), fin=False) + websocket(Opcode.CONT, b"x"),
        "more than",
    ),
}


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (pack_audio(Header(EPOCH, 0, 0, 0), [packet(0), packet(1)])[:-1], "ends inside a packet"),
        (pack_audio(Header(EPOCH, 0, 0, 0), []), "without a packet"),
        (Header(EPOCH, 0, 0, 0).pack() + b"\xfb\x00", "no Opus packet"),
    ],
)
def test_opus_that_is_none_is_refused(message: bytes, sentence: str) -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    with pytest.raises(PolicyError, match=sentence):
        receive(reader, stream, opus_hello(0) + websocket(Opcode.BINARY, message))


@pytest.mark.parametrize(("received", "sentence"), BAD.values(), ids=BAD.keys())
def test_what_is_not_the_protocol_is_refused(received: bytes, sentence: str) -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    receive(reader, stream, hello(0))
    with pytest.raises(PolicyError, match=sentence):
        receive(reader, stream, received)


def test_a_greeting_with_the_most_channels_is_taken_wherever_it_is_cut() -> None:
    # 64 channels with long names: the protocol allows them, but a listener may send far less.
    entries = [{"id": f"{number:064}", "name": "é" * 100, "lang": "de", "state": "live"} for number in range(64)]
    members = {"connection_id": "c", "state": "live", "format": FORMAT, "epoch": EPOCH, "next_seq": 7}
    greeting = text(encode("hello", protocol="relay.v1", **members, clock_ms=77, channels=entries))
    assert 16 * 1024 < len(greeting) < 64 * 1024
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    told = receive(reader, stream, greeting + audio(7), cuts=[1, 1000, 20_000, len(greeting) - 1])
    assert isinstance(told[0], Greeting)
    assert (stream.account.delivered, stream.account.unaccounted) == (1, 0)


def test_what_comes_after_a_greeting_waits_until_its_clock_is_known() -> None:
    reader, stream = FrameReader(), Stream(Expect.RELAY_V1)
    received = hello(0) + audio(0, due_ms=1000)
    reader.buffer[: len(received)] = received
    (greeting,) = reader.take(stream, len(received), now_ms=0)
    assert isinstance(greeting, Greeting)
    assert stream.rest == audio(0, due_ms=1000)
    assert receive(reader, stream, b"", now_ms=1003) == []
    assert reader.latency.items() == [(3, 1)]


def test_audio_before_the_greeting_is_refused() -> None:
    with pytest.raises(PolicyError, match="before its greeting"):
        receive(FrameReader(), Stream(Expect.RELAY_V1), audio(0))
