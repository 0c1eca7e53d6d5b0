"""A TCP proxy on loopback that does to connections what networks do to them.

What comes from the target is put on a line of bounded length, and leaves it in order when it is due and may. While
the line is full nothing is read, so the sender's own buffers fill, as they would.
"""

import asyncio
import contextlib
import math
import random
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LINE_BYTES = 1024 * 1024
"""Held at most for each connection; then reading stops."""

_READ_BYTES = 16 * 1024

_RECEIVE_BYTES = 8 * 1024
"""Room of the kernel and of asyncio for what was not read, so that it is soon the sender who waits."""


class FaultProxy:
    """Forwards connections to a port of this machine until told to misbehave.

    What is set holds for present and for new connections, for what is under way to the client.

    Attributes:
        port: Where it listens.
        latency_seconds: How long everything is under way.
        jitter_seconds: Up to so much longer, at random; the order is kept.
        group_seconds: Everything arrives only at whole multiples of this time; 0: at once.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._reading = asyncio.Event()
        self._reading.set()
        self._is_cut = False
        self._random = random.Random(1)  # noqa: S311 - the jitter of a test, the same in each run
        self.port = 0
        self.latency_seconds = 0.0
        self.jitter_seconds = 0.0
        self.group_seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stall(self) -> None:
        """Let nothing pass until `flow`; the connections stay open."""
        self._passing.clear()

    def flow(self) -> None:
        """Let everything pass that `stall` held up, at once."""
        self._passing.set()

    async def stall_for(self, seconds: float) -> None:
        """Let nothing pass for a time."""
        self.stall()
        await asyncio.sleep(seconds)
        self.flow()

    async def ignore_for(self, seconds: float) -> None:
        """Read nothing from the target for a time; what is under way goes on."""
        self._reading.clear()
        await asyncio.sleep(seconds)
        self._reading.set()

    def kill(self) -> None:
        """Reset every connection; new ones are good."""
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        """Reset every connection, and every new one until `mend`."""
        self._is_cut = True
        self.kill()

    def mend(self) -> None:
        """Take new connections again."""
        self._is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if self._is_cut:
            writer.transport.abort()
            return
        target = socket.socket()
        target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        target.setblocking(False)
        await asyncio.get_running_loop().sock_connect(target, ("127.0.0.1", self._target_port))
        target_reader, target_writer = await asyncio.open_connection(sock=target, limit=_RECEIVE_BYTES)
        pair = {writer, target_writer}
        self._writers |= pair
        line = _Line()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._request(reader, target_writer))
                tasks.create_task(self._fill(target_reader, line))
                tasks.create_task(self._empty(line, writer))
        finally:
            self._writers -= pair
            for one in pair:
                one.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward what comes from the client."""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _fill(self, reader: asyncio.StreamReader, line: "_Line") -> None:
        """Put what comes from the target on its way."""
        loop = asyncio.get_running_loop()
        data = b"first"
        while data:
            await self._reading.wait()
            try:
                data = await reader.read(_READ_BYTES)
            except ConnectionError:
                data = b""
            late = self.latency_seconds + self._random.uniform(0, self.jitter_seconds)
            await line.put(loop.time() + late, data)

    async def _empty(self, line: "_Line", writer: asyncio.StreamWriter) -> None:
        """Give the client what has arrived."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.first()
            if self.group_seconds:
                due = math.ceil(max(due, loop.time()) / self.group_seconds) * self.group_seconds
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._passing.wait()
            await line.drop_first()
            if not data:
                writer.close()
                return
            if not writer.is_closing():
                writer.write(data)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()


class _Line:
    """Pieces under way, each with the time at which it is due; an empty piece is the end."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, due: float, data: bytes) -> None:
        """Append a piece once there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held_bytes < LINE_BYTES)
            self._pieces.append((due, data))
            self._held_bytes += len(data)
            self._changed.notify_all()

    async def first(self) -> tuple[float, bytes]:
        """Wait for a piece and give it; it stays."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._pieces))
            return self._pieces[0]

    async def drop_first(self) -> None:
        """Take the first piece out."""
        async with self._changed:
            _, data = self._pieces.popleft()
            self._held_bytes -= len(data)
            self._changed.notify_all()


@asynccontextmanager
async def fault_proxy(target_url: str) -> AsyncIterator[FaultProxy]:
    """Run a proxy before what listens at `http://127.0.0.1:PORT`; its connections end with the block."""
    proxy = FaultProxy(int(target_url.rpartition(":")[2]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.flow()
        proxy.cut()
        await server.wait_closed()
