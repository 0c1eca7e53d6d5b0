"""The receiving half of WebSocket, for audio that is measured and not kept.

A library's client makes objects for every message, awaits in several places, and hands out copies. That costs several
times what a relay spends on writing the frame, so a load generator made of it would measure itself. This reader parses
where the bytes were received, keeps nothing of the audio, and takes a run of frames that look as expected (same length,
same epoch, next numbers) in one loop with nothing else in it. Whatever does not look like that goes the slow way.

Invariants: the bytes may be cut anywhere; nothing is read twice or passed over; a connection's memory is bounded by
`MAX_MESSAGE_BYTES`.

Source: RFC 6455 section 5; docs/protocol.md, "Framing".
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from relay.loadtest.account import ListenerAccount
from relay.loadtest.histogram import EXACT_MS, Histogram
from relay.loadtest.target import STREAM_MARK, Expect
from relay.protocol.messages import ErrorNotice, FormatChange, Gap, Hello, Pong, read_listener_event
from relay.protocol.wire import HEADER_BYTES, WORD_MASK, Header, serial_difference
from relay.vocabulary.errors import PolicyError

BUFFER_BYTES = 512 * 1024
"""The buffer that all connections of a process share; more than a kernel holds for one of them."""

MAX_MESSAGE_BYTES = BUFFER_BYTES // 2
"""The longest message that is taken."""

_FINAL = 0x80
_RESERVED = 0x70
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL_BINARY = _FINAL | _BINARY
_MASKED = 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
_MAX_CONTROL_BYTES = 125
_NO_CODE = 1005
_MAX_FORMS = 100


@dataclass(frozen=True, slots=True)
class PingFrame:
    """A ping of the WebSocket layer, which wants its payload back."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closing:
    """The server's close frame; without a code, 1005."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Greeting:
    """The relay's `hello`, and its clock."""

    hello: Hello
    clock_ms: int


@dataclass(frozen=True, slots=True)
class ToldGap:
    """A gap, which the account has taken note of already; `frames` is how many it names."""

    frames: int


Happening = Pong | PingFrame | Closing | Greeting | ToldGap | ErrorNotice


@dataclass(frozen=True, slots=True)
class _Form:
    """How a run of frames is taken apart: what is before the seq, the seq, and the due time of each."""

    frame_bytes: int
    struct: struct.Struct


class Stream:
    """What the reader knows of one connection.

    Attributes:
        account: What it got.
        rest: The beginning of a frame whose end was not received yet; it goes before the next bytes.
    """

    __slots__ = ("account", "expect", "form", "fragments", "head", "measured", "rest")

    def __init__(self, expect: Expect, *, measured: bool = True) -> None:
        """Begin after the upgrade; the latencies of one that is not `measured` are left out."""
        self.account = ListenerAccount()
        self.rest = b""
        self.expect = expect
        self.measured = measured
        self.form: _Form | None = None
        self.head = b""
        self.fragments: tuple[int, bytearray] | None = None


class FrameReader:
    """Reads for all connections of a process, one buffer after another.

    Attributes:
        buffer: Received bytes go here, after the stream's `rest`.
        view: The same memory, for slices.
        latency: How late frames were, in milliseconds; each report replaces it by an empty one.
    """

    def __init__(self) -> None:
        """Make a reader with an empty histogram."""
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.latency = Histogram()
        self._forms: dict[tuple[int, int, int], _Form] = {}

    def take(self, stream: Stream, length: int, now_ms: int) -> Sequence[Happening]:
        """Take what is in the buffer now.

        Args:
            stream: Whose bytes they are.
            length: How many: its `rest` and what was received after it.
            now_ms: The clock that latencies count by (see `Expect`), in milliseconds modulo 2**32.

        Returns:
            What is not audio, in order. A greeting is the last: what came after it stays in the stream's `rest`, since
            only the greeting tells what the relay's clock shows.

        Raises:
            PolicyError: They are not WebSocket or not of the protocol; the text says what is wrong.
        """
        taken = 0
        form = stream.form
        if form is not None and length >= form.frame_bytes:
            whole = length - length % form.frame_bytes
            account = stream.account
            head = stream.head
            seq = first = account.next_seq
            exact = self.latency.exact
            for frame_head, frame_seq, due_ms in form.struct.iter_unpack(self.view[:whole]):
                if frame_seq != seq or frame_head != head:
                    break
                age_ms = now_ms - due_ms
                if 0 <= age_ms < EXACT_MS:
                    exact[age_ms] += 1
                else:
                    self._record(age_ms)
                seq += 1
            count = seq - first
            account.next_seq = seq & WORD_MASK
            account.delivered += count
            taken = count * form.frame_bytes
            if taken == length:
                stream.rest = b""
                return ()
        if stream.expect is Expect.STREAM:
            self._take_stream(stream, taken, length, now_ms)
            return ()
        return self._take_one_by_one(stream, taken, length, now_ms)

    def _take_stream(self, stream: Stream, position: int, length: int, now_ms: int) -> None:
        """Find the next frames of a stream, and pass over what is none."""
        while (start := self.buffer.find(STREAM_MARK, position, length)) >= 0 and length - start >= HEADER_BYTES:
            size = Header.unpack(bytes(self.view[start : start + HEADER_BYTES])).media_time
            if not HEADER_BYTES <= size <= MAX_MESSAGE_BYTES:
                raise PolicyError(f"A frame of the stream says that it is {size} bytes long.")
            if start + size > length:
                break
            position = start + size
            self._audio(stream, self.view[start:position], now_ms)
            self._expect_more_like(stream, start, start, position)
        # What may be the beginning of a mark is kept, too.
        stream.rest = bytes(self.view[start if start >= 0 else max(position, length - len(STREAM_MARK) + 1) : length])

    def _take_one_by_one(self, stream: Stream, position: int, length: int, now_ms: int) -> list[Happening]:
        happenings: list[Happening] = []
        while (frame := _next_frame(self.buffer, position, length)) is not None:
            first_byte, start, end = frame
            if first_byte == _FINAL_BINARY:
                self._audio(stream, self.view[start:end], now_ms)
                self._expect_more_like(stream, position, start, end)
            else:
                payload = bytes(self.view[start:end])
                happening = self._other(stream, first_byte, payload, now_ms)
                if happening is not None:
                    happenings.append(happening)
            position = end
            if happenings and isinstance(happenings[-1], Greeting):
                break
        stream.rest = bytes(self.view[position:length])
        return happenings

    def _audio(self, stream: Stream, message: memoryview, now_ms: int) -> None:
        header = Header.unpack(bytes(message[:HEADER_BYTES]))
        account = stream.account
        if account.epoch is None and stream.expect.is_relay_v1:
            raise PolicyError("The relay sent audio before its greeting.")
        if account.epoch is None:
            account.begin(header.epoch, header.seq)
        account.frame(header.epoch, header.seq)
        if stream.expect is Expect.RELAY_V1_STAMPED:
            header = Header.unpack(bytes(message[HEADER_BYTES : 2 * HEADER_BYTES]))
        if stream.measured:
            self._record(now_ms - header.due_ms)

    def _expect_more_like(self, stream: Stream, position: int, start: int, end: int) -> None:
        """Prepare for frames of the same length and epoch."""
        if not stream.measured:
            return
        # Between the seq and the time: the media time, and with a stamp of the sender the rest up to that one's.
        between = 4 + (HEADER_BYTES if stream.expect is Expect.RELAY_V1_STAMPED else 0)
        key = (start - position, end - position, between)
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= _MAX_FORMS:
                self._forms.clear()
            before_seq = key[0] + 4
            after = end - start - HEADER_BYTES - between + 4
            pattern = f">{before_seq}sI{between}xI{after}x"
            form = self._forms[key] = _Form(end - position, struct.Struct(pattern))
        stream.form = form
        stream.head = bytes(self.view[position : start + 4])

    def _other(self, stream: Stream, first_byte: int, payload: bytes, now_ms: int) -> Happening | None:
        opcode = first_byte & ~_FINAL
        if opcode in (_TEXT, _BINARY, _CONTINUATION):
            message = _join_fragments(stream, opcode, payload, is_last=bool(first_byte & _FINAL))
            if message is None:
                return None
            opcode, payload = message
            if opcode == _BINARY:
                self._audio(stream, memoryview(payload), now_ms)
                return None
            return _control(stream, payload)
        if len(payload) > _MAX_CONTROL_BYTES or not first_byte & _FINAL:
            raise PolicyError("The server sent a control frame that is too long or fragmented.")
        if opcode == _PING:
            return PingFrame(payload)
        if opcode == _CLOSE:
            code = int.from_bytes(payload[:2]) if payload else _NO_CODE
            return Closing(code, payload[2:].decode(errors="replace"))
        if opcode == _PONG:
            return None
        raise PolicyError(f"A WebSocket frame begins with {first_byte:#04x}, which means nothing here.")

    def _record(self, age_ms: int) -> None:
        """Count a latency that may have wrapped; one below 0 is an error of the clocks' comparison, and counts as 0."""
        self.latency.record(max(0, serial_difference(age_ms, 0)))


def _next_frame(buffer: bytearray, position: int, length: int) -> tuple[int, int, int] | None:
    """Find the frame at `position`; None when it is not complete.

    Returns:
        Its first byte, and where its payload begins and ends.

    Raises:
        PolicyError: It is masked, has reserved bits, or is too long.
    """
    if length - position < 2:  # noqa: PLR2004 - the least that a frame has
        return None
    first_byte, size = buffer[position], buffer[position + 1]
    if first_byte & _RESERVED or size & _MASKED:
        raise PolicyError("The server sent a WebSocket frame that is masked or has reserved bits set.")
    start = position + 2
    if size >= _LENGTH_16:
        extended = 2 if size == _LENGTH_16 else 8
        if length - start < extended:
            return None
        size = int.from_bytes(buffer[start : start + extended])
        start += extended
    if size > MAX_MESSAGE_BYTES:
        raise PolicyError(f"The server sent a message of {size} bytes; at most {MAX_MESSAGE_BYTES} are taken.")
    end = start + size
    return (first_byte, start, end) if end <= length else None


def _join_fragments(stream: Stream, opcode: int, payload: bytes, *, is_last: bool) -> tuple[int, bytes] | None:
    """Return the opcode and the payload of a message that this fragment completes; None while more follow.

    Raises:
        PolicyError: The fragment continues nothing, interrupts another message, or makes it too long.
    """
    if (opcode == _CONTINUATION) is (stream.fragments is None):
        raise PolicyError("The server mixed up the fragments of two messages.")
    if stream.fragments is None:
        if is_last:
            return opcode, payload
        stream.fragments = (opcode, bytearray(payload))
        return None
    first_opcode, joined = stream.fragments
    joined += payload
    if len(joined) > MAX_MESSAGE_BYTES:
        raise PolicyError(f"The server sent a message of over {MAX_MESSAGE_BYTES} bytes.")
    if not is_last:
        return None
    stream.fragments = None
    return first_opcode, bytes(joined)


def _control(stream: Stream, payload: bytes) -> Happening | None:
    """Read a control message, and note in the account what it says about the numbering."""
    if not stream.expect.is_relay_v1:
        return None
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise PolicyError("A control message is not UTF-8.") from error
    event = read_listener_event(text)
    match event:
        case Hello(epoch=epoch, next_seq=next_seq):
            stream.account.begin(epoch, next_seq)
            return Greeting(event, event.clock_ms)
        case FormatChange(epoch=epoch):
            stream.account.begin(epoch, 0)
        case Gap():
            return ToldGap(stream.account.gap(event))
        case ErrorNotice() | Pong():
            return event
    return None
