"""The receiving half of WebSocket, for audio that is measured and not kept.

A library's client creates objects for every message, awaits in several places, and copies the data. That costs several
times what a relay spends on writing the frame, so such a load generator would measure itself. This reader parses bytes
in the buffer that received them and keeps no audio. One tight loop handles a run of frames that look as expected: same
length, same epoch, next numbers. Opus packets differ in length, but all listeners of a channel get the same bytes, so
a message is read once and then recognized. Everything else takes a slower path.

Invariants: the bytes may be cut anywhere; no byte is read twice or skipped; `MAX_MESSAGE_BYTES` bounds a connection's
memory.

Source: RFC 6455 section 5; docs/protocol.md, "Framing".
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from relay.loadtest.account import ListenerAccount
from relay.loadtest.histogram import EXACT_MS, Histogram
from relay.loadtest.target import STREAM_MARK, Expect, read_opus_stamp
from relay.protocol.messages import ErrorNotice, FormatChange, Gap, Hello, Pong, read_listener_event
from relay.protocol.wire import HEADER_BYTES, WORD_MASK, Header, serial_difference, unpack_audio
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.errors import PolicyError

BUFFER_BYTES = 512 * 1024
"""The size of the buffer that all connections share. It exceeds what a kernel holds for one of them."""

MAX_MESSAGE_BYTES = BUFFER_BYTES // 2
"""The longest message that the reader accepts."""

_FINAL = 0x80
_RESERVED = 0x70
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL_BINARY = _FINAL | _BINARY
_MASKED = 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
_MAX_CONTROL_BYTES = 125
_NO_CODE = 1005
_MAX_FORMS = 100
_MAX_RUNS = 4096
"""How many messages are recognized at once: many more than the relay sends until its slowest listener has one."""


@dataclass(frozen=True, slots=True)
class PingFrame:
    """A ping of the WebSocket layer. The reply repeats its payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closing:
    """The server's close frame. The code is 1005 if it has none."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Greeting:
    """The relay's `hello`."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class ToldGap:
    """A gap that the account already contains. `frames` is how many frames it names."""

    frames: int


Happening = Pong | PingFrame | Closing | Greeting | ToldGap | ErrorNotice


@dataclass(frozen=True, slots=True)
class _Form:
    """How to unpack a run of frames: the bytes before the seq, the seq, and the due time of each."""

    frame_bytes: int
    struct: struct.Struct


@dataclass(frozen=True, slots=True)
class _Run:
    """The frames of one message with Opus: their epoch, the first seq, and the time from which each latency counts."""

    epoch: int
    first_seq: int
    due_ms: tuple[int, ...]
    frame_ticks: int


class Stream:
    """The reader's state for one connection.

    Attributes:
        account: What the connection received.
        rest: The beginning of an incomplete frame. It goes before the next bytes.
        audio_format: The format of its audio; None until the relay says it, and for other servers.
        is_opus: Whether that is Opus.
        frame_ticks: The duration of its last Opus packet, in ticks of 48 kHz.
    """

    __slots__ = (
        "account",
        "audio_format",
        "expect",
        "form",
        "fragments",
        "frame_ticks",
        "head",
        "is_opus",
        "measured",
        "rest",
    )

    def __init__(self, expect: Expect, *, measured: bool = True) -> None:
        """Begin after the upgrade. Latencies are only counted if `measured`."""
        self.account = ListenerAccount()
        self.rest = b""
        self.expect = expect
        self.measured = measured
        self.form: _Form | None = None
        self.head = b""
        self.fragments: tuple[int, bytearray] | None = None
        self.audio_format: AudioFormat | None = None
        self.is_opus = False
        self.frame_ticks = 0

    def set_format(self, audio_format: AudioFormat | None) -> None:
        """Set the format of the audio that follows."""
        self.audio_format = audio_format
        self.is_opus = audio_format is not None and audio_format.codec is Codec.OPUS


class FrameReader:
    """Reads for all connections of a process, one buffer after another.

    Attributes:
        buffer: Received bytes go here, after the stream's `rest`.
        view: The same memory, for slices.
        latency: How late frames were, in milliseconds. Each report replaces it with an empty one.
    """

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.latency = Histogram()
        self._forms: dict[tuple[int, int, int], _Form] = {}
        # By the bytes of a whole WebSocket frame; latencies of the second kind count from the sender's stamps.
        self._runs: dict[bytes, _Run] = {}
        self._stamped_runs: dict[bytes, _Run] = {}

    def take(self, stream: Stream, length: int, now_ms: int) -> Sequence[Happening]:
        """Process the current contents of the buffer.

        Args:
            stream: The stream that the bytes belong to.
            length: The number of bytes: its `rest` and what was received after it.
            now_ms: The clock for latencies (see `Expect`), in milliseconds modulo 2**32.

        Returns:
            Everything except audio, in order. A greeting comes last: what follows it stays in the stream's `rest`,
            since the caller needs the relay's clock from the greeting first.

        Raises:
            PolicyError: The bytes violate WebSocket or the protocol; the text says how.
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
        if stream.is_opus:
            run = self._runs_for(stream).get(bytes(self.view[:length]))
            if run is not None:
                self._count_run(stream, run, now_ms)
                stream.rest = b""
                return ()
        if stream.expect is Expect.STREAM:
            self._take_stream(stream, taken, length, now_ms)
            return ()
        return self._take_one_by_one(stream, taken, length, now_ms)

    def _take_stream(self, stream: Stream, position: int, length: int, now_ms: int) -> None:
        """Find the next frames of a stream, and skip other bytes."""
        while (start := self.buffer.find(STREAM_MARK, position, length)) >= 0 and length - start >= HEADER_BYTES:
            size = Header.unpack(bytes(self.view[start : start + HEADER_BYTES])).media_time
            if not HEADER_BYTES <= size <= MAX_MESSAGE_BYTES:
                raise PolicyError(f"A frame of the stream declares an impossible size of {size} bytes.")
            if start + size > length:
                break
            position = start + size
            self._audio(stream, self.view[start:position], now_ms)
            self._expect_more_like(stream, start, start, position)
        # Keep the end of the buffer too: a mark may begin there.
        stream.rest = bytes(self.view[start if start >= 0 else max(position, length - len(STREAM_MARK) + 1) : length])

    def _take_one_by_one(self, stream: Stream, position: int, length: int, now_ms: int) -> list[Happening]:
        happenings: list[Happening] = []
        while (frame := _next_frame(self.buffer, position, length)) is not None:
            first_byte, start, end = frame
            if first_byte == _FINAL_BINARY and stream.is_opus:
                self._count_run(stream, self._find_run(stream, position, start, end), now_ms)
            elif first_byte == _FINAL_BINARY:
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
        account = stream.account
        if account.epoch is None and stream.expect.is_relay_v1:
            raise PolicyError("The relay sent audio before its greeting.")
        header = Header.unpack(bytes(message[:HEADER_BYTES]))
        if account.epoch is None:
            account.begin(header.epoch, header.seq)
        account.frame(header.epoch, header.seq)
        if stream.expect is Expect.RELAY_V1_STAMPED:
            header = Header.unpack(bytes(message[HEADER_BYTES : 2 * HEADER_BYTES]))
        if stream.measured:
            self._record(now_ms - header.due_ms)

    def _runs_for(self, stream: Stream) -> dict[bytes, _Run]:
        return self._stamped_runs if stream.expect is Expect.RELAY_V1_STAMPED else self._runs

    def _find_run(self, stream: Stream, position: int, start: int, end: int) -> _Run:
        """Recognize or read the message with Opus at `start`, whose WebSocket frame begins at `position`."""
        runs = self._runs_for(stream)
        key = bytes(self.view[position:end])
        run = runs.get(key)
        if run is None:
            if len(runs) >= _MAX_RUNS:
                runs.clear()
            run = runs[key] = _read_run(bytes(self.view[start:end]), stream)
        return run

    def _count_run(self, stream: Stream, run: _Run, now_ms: int) -> None:
        account, count = stream.account, len(run.due_ms)
        stream.frame_ticks = run.frame_ticks
        if account.next_seq == run.first_seq and account.epoch == run.epoch:
            account.delivered += count
            account.next_seq = (run.first_seq + count) & WORD_MASK
        else:
            for number in range(count):
                account.frame(run.epoch, (run.first_seq + number) & WORD_MASK)
        if not stream.measured:
            return
        exact = self.latency.exact
        for due_ms in run.due_ms:
            age_ms = now_ms - due_ms
            if 0 <= age_ms < EXACT_MS:
                exact[age_ms] += 1
            else:
                self._record(age_ms)

    def _expect_more_like(self, stream: Stream, position: int, start: int, end: int) -> None:
        if not stream.measured:
            return
        # Between the seq and the time are the media time and, with a sender's stamp, the bytes up to its time.
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
            if opcode == _TEXT:
                return _control(stream, payload)
            if stream.is_opus:
                self._count_run(stream, _read_run(payload, stream), now_ms)
            else:
                self._audio(stream, memoryview(payload), now_ms)
            return None
        if len(payload) > _MAX_CONTROL_BYTES or not first_byte & _FINAL:
            raise PolicyError("The server sent a control frame that is too long or fragmented.")
        if opcode == _PING:
            return PingFrame(payload)
        if opcode == _CLOSE:
            code = int.from_bytes(payload[:2]) if payload else _NO_CODE
            return Closing(code, payload[2:].decode(errors="replace"))
        if opcode == _PONG:
            return None
        raise PolicyError(f"A WebSocket frame begins with {first_byte:#04x}, which is not a valid beginning here.")

    def _record(self, age_ms: int) -> None:
        """Count a latency that may have wrapped. A negative one is an error in comparing clocks. It counts as 0."""
        self.latency.record(max(0, serial_difference(age_ms, 0)))


def _read_run(message: bytes, stream: Stream) -> _Run:
    """Read a message with Opus, packed or not.

    Raises:
        PolicyError: It is malformed, or a packet of it is.
    """
    audio_format = stream.audio_format
    assert audio_format is not None  # noqa: S101 - the caller knows that it is Opus
    frames = unpack_audio(message, audio_format)
    if not frames:
        raise PolicyError("The relay sent a packed message without a packet.")
    is_stamped = stream.expect is Expect.RELAY_V1_STAMPED
    return _Run(
        frames[0].header.epoch,
        frames[0].header.seq,
        tuple((read_opus_stamp(frame.payload) if is_stamped else frame.header).due_ms for frame in frames),
        audio_format.measure(frames[-1].payload).ticks,
    )


def _next_frame(buffer: bytearray, position: int, length: int) -> tuple[int, int, int] | None:
    """Find the frame at `position`; None if it is incomplete.

    Returns:
        Its first byte, and where its payload begins and ends.

    Raises:
        PolicyError: It is masked, has reserved bits, or is too long.
    """
    if length - position < 2:  # noqa: PLR2004 - the shortest frame
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
        raise PolicyError(f"The server sent a message of {size} bytes; the limit is {MAX_MESSAGE_BYTES}.")
    end = start + size
    return (first_byte, start, end) if end <= length else None


def _join_fragments(stream: Stream, opcode: int, payload: bytes, *, is_last: bool) -> tuple[int, bytes] | None:
    """Return the opcode and payload of the message that this fragment completes; None while more follow.

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
        raise PolicyError(f"The server sent a message of more than {MAX_MESSAGE_BYTES} bytes.")
    if not is_last:
        return None
    stream.fragments = None
    return first_opcode, bytes(joined)


def _control(stream: Stream, payload: bytes) -> Happening | None:
    """Read a control message, and update the account with its sequence numbers."""
    if not stream.expect.is_relay_v1:
        return None
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise PolicyError("A control message is not UTF-8.") from error
    event = read_listener_event(text)
    match event:
        case Hello(epoch=epoch, next_seq=next_seq):
            stream.set_format(event.audio_format)
            stream.account.begin(epoch, next_seq)
            return Greeting(event)
        case FormatChange(epoch=epoch):
            stream.set_format(event.audio_format)
            stream.account.begin(epoch, 0)
        case Gap():
            return ToldGap(stream.account.gap(event))
        case ErrorNotice() | Pong():
            return event
    return None
