"""A client of the relay that costs so little that the relays have the CPUs for themselves."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from websockets.frames import Frame, Opcode

from relay.loadtest.target import Target, upgrade_request

EXTENDED_LENGTH = 126
"""The length in a frame of WebSocket that says that the length follows in two bytes."""

Take = Callable[[bytes, float], None]
"""Takes the content of a binary message, and the time at which it was read."""


class Peer(asyncio.Protocol):
    """A connection to a relay.

    Attributes:
        greeted: Done when the relay has said hello.
    """

    def __init__(self, take: Take) -> None:
        self.greeted = asyncio.get_running_loop().create_future()
        self._take = take
        self._is_upgraded = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._rest + data
        if not self._is_upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._is_upgraded = True
        at = 0
        while len(data) >= at + 4:
            length, start = data[at + 1], at + 2
            if length == EXTENDED_LENGTH:
                length, start = int.from_bytes(data[start : start + 2]), start + 2
            if len(data) < start + length:
                break
            self._read(data[at] & 0x0F, data[start : start + length], now)
            at = start + length
        self._rest = data[at:]

    def _read(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode == Opcode.BINARY:
            self._take(payload, now)
        elif opcode == Opcode.PING:
            self.send(Frame(Opcode.PONG, payload).serialize(mask=True))
        elif not self.greeted.done():
            self.greeted.set_result(None)

    def send(self, frame: bytes) -> None:
        """Send a complete frame of WebSocket."""
        self._transport.write(frame)

    def close(self) -> None:
        self._transport.close()


def masked(audio: bytes) -> bytes:
    """Return the frame of WebSocket that carries audio to a relay."""
    return Frame(Opcode.BINARY, audio).serialize(mask=True)


@asynccontextmanager
async def connected(port: int, path: str, take: Take = lambda _audio, _at: None) -> AsyncIterator[Peer]:
    """Connect to a relay on this machine. `path` is that of a broadcaster or listener, without the version."""
    host = "127.0.0.1"
    _, peer = await asyncio.get_running_loop().create_connection(lambda: Peer(take), host, port)
    peer.send(upgrade_request(Target(host, port, f"/v1/{path}", f"{host}:{port}")))
    try:
        await peer.greeted
        yield peer
    finally:
        peer.close()


@contextmanager
def on_all_cpus() -> Iterator[None]:
    """Let this process and those that it starts use all CPUs. The benchmark has its own for a single server."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
