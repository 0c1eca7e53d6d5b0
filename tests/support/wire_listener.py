"""A `relay.v1` listener on a raw socket: the test controls its reading, and it accounts for every frame.

It parses bytes with the sans-I/O protocol of the `websockets` library. A test therefore decides when it reads, how much
it reads and how large the kernel's receive buffer is.
"""

import asyncio
import json
import select
import socket
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from relay.protocol.wire import HEADER_BYTES, SUBPROTOCOL, WORD_MASK, Header
from relay.vocabulary.clock import relay_clock, wire_milliseconds
from tests.support.kernel_queues import KernelQueues

SMALL_BUFFER_BYTES = 4096
"""The receive buffer of a listener that should hold little itself; Linux opens a window of about this size."""

HANG_SECONDS = 60.0
"""A relay that takes longer hangs; the limit does not judge speed."""

RESET_SECONDS = 15.0
"""More than a closing handshake may take, and less than a peer may stay silent."""

_READ_BYTES = 64 * 1024
_STEP_SECONDS = 0.01
_CATCHING_UP_SECONDS = 0.25
_HALF = 1 << 31
_NUMBER_BYTES = 4

ControlMessage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """A frame as it was received.

    Attributes:
        epoch: From the header.
        seq: From the header.
        number: The number that `numbered_audio` wrote into the audio.
        due_ms: From the header.
        read_ms: When its last byte was read, by the relay's clock in wire units.
        end_byte: The position of its last byte in the relay's output after the handshake.
        read_index: Which call of `recv` returned its last byte.
    """

    epoch: int
    seq: int
    number: int
    due_ms: int
    read_ms: int
    end_byte: int
    read_index: int

    @property
    def age_ms(self) -> int:
        """Return the frame's age when it was read."""
        return milliseconds_between(self.due_ms, self.read_ms)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the relay's output had come at one moment.

    Attributes:
        clock_ms: The moment, by the relay's clock.
        held_bytes: Bytes in the kernels' queues.
        reached_bytes: Bytes read plus bytes in the kernels' queues; later bytes were not yet written to a socket.
    """

    clock_ms: int
    held_bytes: int
    reached_bytes: int


class WireListener:
    """A listener that reads everything as it arrives, except during `pause` and `read`.

    Attributes:
        events: Frames and control messages, in the order of their arrival.
        frames: The frames among them.
        told: The control messages among them.
        last_pong: The payload of the latest WebSocket pong.
        snapshots: The results of `take_snapshot`.
        received_bytes: Bytes read since the handshake.
        has_ended: Whether the relay ended the connection.
        close_code: From the relay's close frame; None without one.
    """

    def __init__(self, sock: socket.socket, protocol: ClientProtocol) -> None:
        """Take over a connected socket; tests call `open_listener` instead."""
        self._sock = sock
        self._protocol = protocol
        self._news = asyncio.Event()
        self._framed_bytes = 0
        self._reads = 0
        self.events: list[ReceivedFrame | ControlMessage] = []
        self.frames: list[ReceivedFrame] = []
        self.told: list[ControlMessage] = []
        self.last_pong = b""
        self.snapshots: list[Snapshot] = []
        self.received_bytes = 0
        self.has_ended = False

    @property
    def hello(self) -> ControlMessage:
        assert self.told[0] is self.events[0], "audio came before the greeting"
        assert self.told[0]["type"] == "hello"
        return self.told[0]

    @property
    def is_closed(self) -> bool:
        """Whether this listener closed the connection itself."""
        return self._sock.fileno() < 0

    @property
    def gaps(self) -> list[ControlMessage]:
        return [message for message in self.told if message["type"] == "gap"]

    @property
    def oldest_ms(self) -> int:
        """Return the greatest age at which a frame was read."""
        return max(frame.age_ms for frame in self.frames)

    @property
    def close_code(self) -> int | None:
        close = self._protocol.close_rcvd
        return None if close is None else close.code

    def pause(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self._sock)

    def resume(self) -> None:
        """Read everything as it arrives."""
        if not self.has_ended:
            asyncio.get_running_loop().add_reader(self._sock, self.read)

    def read(self, limit: int = _READ_BYTES) -> int:
        """Read once, at most `limit` bytes, and return how many."""
        if self.has_ended or not limit:
            return 0
        try:
            data = self._sock.recv(limit)
        except BlockingIOError:
            return 0
        except ConnectionError:
            data = b""
        self.take(data)
        return len(data)

    def take(self, data: bytes) -> None:
        """Parse and count bytes that were read; empty data means that the connection has ended."""
        clock_ms = wire_clock()
        self._reads += 1
        self.received_bytes += len(data)
        if data:
            self._protocol.receive_data(data)
        else:
            self.pause()
            self.has_ended = True
            self._protocol.receive_eof()
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            self._note(frame, clock_ms)
        self._flush()
        self._news.set()

    def send_text(self, message_type: str, **members: object) -> None:
        """Send a control message, which must fit into the kernel's buffer."""
        self._protocol.send_text(json.dumps({"type": message_type, **members}).encode())
        self._flush()

    def send_ping(self, payload: bytes) -> None:
        """Send a WebSocket ping, which must fit into the kernel's buffer."""
        self._protocol.send_ping(payload)
        self._flush()

    async def until(self, holds: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
        """Wait until a condition holds that only new data can fulfil."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    assert not self.has_ended, f"the relay ended the connection with {self.close_code}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"did not come within {seconds} s; last came {self.events[-3:]}") from None

    async def until_ended(self, seconds: float = HANG_SECONDS) -> None:
        """Wait until the relay has ended the connection."""
        await self.until(lambda: self.has_ended, seconds)

    async def until_cut_off(self) -> None:
        """Wait, without reading, until the relay has released the connection."""
        assert await is_reset(self._sock)

    def close(self) -> None:
        """Close the socket without a close frame; a second call has no effect."""
        if not self.is_closed:
            self.pause()
            self._sock.close()
        self.has_ended = True

    def account(self) -> list[int]:
        """Check that each frame was delivered or named by a gap, in order and exactly once.

        Returns:
            For each epoch since the join, the number up to which its frames are accounted for.
        """
        epoch, expected = self.hello["epoch"], self.hello["next_seq"]
        accounted = []
        for event in self.events[1:]:
            if isinstance(event, ReceivedFrame):
                assert (event.epoch, event.seq) == (epoch, expected), f"{event} came, {expected} of {epoch} was due"
                assert event.number == event.seq, f"{event} carries the audio of another frame"
                expected += 1
            elif event["type"] == "gap":
                assert (event["epoch"], event["from_seq"]) == (epoch, expected), f"{event}, {expected} was due"
                assert event["to_seq"] >= event["from_seq"]
                expected = event["to_seq"] + 1
            elif event["type"] == "format" and event["epoch"] != epoch:
                accounted.append(expected)
                epoch, expected = event["epoch"], 0
        return [*accounted, expected]

    def take_snapshot(self, queues: KernelQueues) -> None:
        """Record how far the relay's output has come."""
        if self.has_ended:
            return
        # Read the clock first: bytes that the kernels do not hold afterwards were not written by that moment either.
        clock_ms = wire_clock()
        held = queues.held_bytes(self._sock)
        before = self.snapshots[-1].reached_bytes if self.snapshots else 0
        self.snapshots.append(Snapshot(clock_ms, held, max(before, self.received_bytes + held)))

    def least_age_ms(self, frame: ReceivedFrame, bytes_before: int) -> int:
        """Return a lower bound of a frame's age when the byte `bytes_before` its end was written.

        The bound is the age at the last snapshot that this byte had not reached, or 0 before the first snapshot.
        """
        position = frame.end_byte - bytes_before
        index = bisect_left(self.snapshots, position, key=lambda snapshot: snapshot.reached_bytes)
        return milliseconds_between(frame.due_ms, self.snapshots[index - 1].clock_ms) if index else 0

    def _note(self, frame: Frame, clock_ms: int) -> None:
        self._framed_bytes += _wire_length(len(frame.data))
        if frame.opcode is Opcode.TEXT:
            self.told.append(json.loads(bytes(frame.data)))
            self.events.append(self.told[-1])
        elif frame.opcode is Opcode.BINARY:
            self.frames.append(self._read_frame(bytes(frame.data), clock_ms))
            self.events.append(self.frames[-1])
        elif frame.opcode is Opcode.PONG:
            self.last_pong = bytes(frame.data)

    def _read_frame(self, message: bytes, clock_ms: int) -> ReceivedFrame:
        header = Header.unpack(message)
        number = message[HEADER_BYTES : HEADER_BYTES + _NUMBER_BYTES]
        return ReceivedFrame(
            epoch=header.epoch,
            seq=header.seq,
            number=int.from_bytes(number),
            due_ms=header.due_ms,
            read_ms=clock_ms,
            end_byte=self._framed_bytes,
            read_index=self._reads,
        )

    def _flush(self) -> None:
        """Send the protocol's pending output (pongs, the close frame), and ignore a peer that is gone."""
        with suppress(ConnectionError):
            for data in self._protocol.data_to_send():
                if data and not self.has_ended:
                    self._sock.send(data)


async def open_listener(
    url: str, target: str, *, receive_buffer: int | None = None, is_reading: bool = True
) -> WireListener:
    """Connect a listener and wait for its `hello`.

    Args:
        url: The relay's address, `http://127.0.0.1:PORT`.
        target: Path and query.
        receive_buffer: `SO_RCVBUF` in bytes; None leaves it to the kernel.
        is_reading: Whether it reads on by itself.
    """
    sock, protocol, rest = await upgrade(url, target, receive_buffer)
    listener = WireListener(sock, protocol)
    try:
        if rest:
            listener.take(rest)
        listener.resume()
        await listener.until(lambda: bool(listener.events))
    except BaseException:
        listener.close()
        raise
    if not is_reading:
        listener.pause()
    return listener


async def upgrade(
    url: str, target: str, receive_buffer: int | None = None
) -> tuple[socket.socket, ClientProtocol, bytes]:
    """Perform the opening handshake: return the socket, the protocol and the bytes that followed the response."""
    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    protocol = ClientProtocol(parse_uri(f"ws://{address.netloc}{target}"), subprotocols=[Subprotocol(SUBPROTOCOL)])
    protocol.send_request(protocol.connect())
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        async with asyncio.timeout(HANG_SECONDS):
            await loop.sock_connect(sock, (address.hostname, address.port))
            await loop.sock_sendall(sock, b"".join(protocol.data_to_send()))
            received = b""
            while b"\r\n\r\n" not in received:
                data = await loop.sock_recv(sock, 4096)
                assert data, "the relay closed the connection during the handshake"
                received += data
        head, end, rest = received.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode()
        # The protocol reads a refusal only with its body, which may not have arrived yet.
        assert status.split()[1] == "101", f"refused with {status}"
        protocol.receive_data(head + end)
        (response,) = protocol.events_received()
        assert isinstance(response, Response)
        assert protocol.state is State.OPEN, protocol.handshake_exc
    except BaseException:
        sock.close()
        raise
    return sock, protocol, rest


async def is_reset(sock: socket.socket) -> bool:
    """Wait for the peer to reset a connection, without reading from it, and return whether it did."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(await asyncio.to_thread(poll.poll, RESET_SECONDS * 1000))


@contextmanager
def closing(listeners: Iterable[WireListener]) -> Iterator[None]:
    """Close the listeners when the block ends, including those added in the meantime."""
    try:
        yield
    finally:
        for listener in listeners:
            listener.close()


async def read_at(listeners: Iterable[WireListener], bytes_per_second: float, seconds: float) -> None:
    """Let paused listeners read at this rate, a little every 10 ms."""
    owed = dict.fromkeys(listeners, 0.0)
    loop = asyncio.get_running_loop()
    began = before = loop.time()
    while (now := loop.time()) - began < seconds:
        for listener in owed:
            owed[listener] += (now - before) * bytes_per_second
            owed[listener] -= listener.read(min(int(owed[listener]), _READ_BYTES))
            # Drop unused allowance, except what a delay of this process itself caused.
            owed[listener] = min(owed[listener], bytes_per_second * _CATCHING_UP_SECONDS)
        before = now
        await asyncio.sleep(_STEP_SECONDS)


async def take_snapshots(listeners: Sequence[WireListener], seconds: float) -> None:
    """Record every 10 ms for this long how far the relay's output has come."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with KernelQueues() as queues:
        while loop.time() - began < seconds:
            for listener in listeners:
                listener.take_snapshot(queues)
            await asyncio.sleep(_STEP_SECONDS)


def wire_clock() -> int:
    """Return the relay's clock in wire units; all processes of a machine share it."""
    return wire_milliseconds(relay_clock())


def milliseconds_between(earlier_ms: int, later_ms: int) -> int:
    """Return the time between two values of the relay's clock, which wraps; negative in reverse order."""
    return (later_ms - earlier_ms + _HALF) % (WORD_MASK + 1) - _HALF


def numbered_audio(number: int, length: int) -> bytes:
    """Return `length` bytes of audio (a multiple of 4) that contain the frame's number."""
    return number.to_bytes(_NUMBER_BYTES) * (length // _NUMBER_BYTES)


def _wire_length(payload_bytes: int) -> int:
    """Return the length of a server's WebSocket frame, by RFC 6455 section 5.2."""
    if payload_bytes < 126:
        return 2 + payload_bytes
    return payload_bytes + (4 if payload_bytes < 1 << 16 else 10)
