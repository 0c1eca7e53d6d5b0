"""A TCP proxy on loopback that imitates network faults, separately for each direction.

Data from one side enters a line of bounded length. It leaves the line in order, when it is due and the direction flows.
While the line is full, the proxy reads nothing, so the sender's own buffers fill as on a real network.
"""

import asyncio
import ctypes
import math
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

from tests.support.kernel_queues import KernelQueues
from tests.support.ports import free_port

LINE_BYTES = 1024 * 1024
"""The most data held in each direction of a connection unless a way says otherwise; beyond it, reading stops."""

_READ_BYTES = 16 * 1024

_RECEIVE_BYTES = 8 * 1024
"""A small kernel buffer for unread data, so that the sender soon has to wait."""

_STEP_SECONDS = 0.01
"""A line of limited bandwidth sends pieces of this length."""

_CATCHING_UP_SECONDS = 0.25
"""A line of limited bandwidth makes up for at most this much delay of the machine."""

_ATTACH_FILTER, _DETACH_FILTER = 26, 27
"""Linux's SO_ATTACH_FILTER and SO_DETACH_FILTER, which the socket module lacks."""

_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""A socket filter of one instruction: keep 0 bytes of each packet (BPF_RET | BPF_K)."""


class Way:
    """One direction of a proxy. A change applies at once, to present and new connections.

    Attributes:
        latency_seconds: How long data travels.
        jitter_seconds: The largest random addition to the latency; the order stays.
        group_seconds: Data arrives only at multiples of this time; 0 turns this off.
        bytes_per_second: The bandwidth; None means unlimited.
        slice_bytes: The largest packet; None means unlimited.
        line_bytes: How much may be in transit on one connection.
    """

    def __init__(self) -> None:
        self.latency_seconds = 0.0
        self.jitter_seconds = 0.0
        self.group_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.slice_bytes: int | None = None
        self.line_bytes = LINE_BYTES
        self.random = random.Random(1)  # noqa: S311 - repeatable jitter, not a secret
        self.passing = asyncio.Event()
        self.passing.set()
        self.reading = asyncio.Event()
        self.reading.set()
        self._pipes: set[_Pipe] = set()

    def stall(self) -> None:
        """Hold back all data until `flow`; it waits on the line."""
        self.passing.clear()

    def flow(self) -> None:
        """Release at once what `stall` held back."""
        self.passing.set()

    def ignore(self) -> None:
        """Stop reading until `heed`, so that the sender's window closes. Data in transit still arrives."""
        self.reading.clear()

    def heed(self) -> None:
        self.reading.set()

    async def ignore_for(self, seconds: float) -> None:
        self.ignore()
        await asyncio.sleep(seconds)
        self.heed()

    def finish(self) -> None:
        """Half-close the present connections: end this direction after the data in transit; the other goes on."""
        for pipe in self._pipes:
            pipe.finish()

    @contextmanager
    def holding(self, pipe: "_Pipe") -> Iterator[None]:
        """Register a connection's pipe for `finish` while the block runs."""
        self._pipes.add(pipe)
        try:
            yield
        finally:
            self._pipes.discard(pipe)


class FaultProxy:
    """Forwards connections to a port of this machine, and misbehaves on request.

    Attributes:
        url: Where it listens.
        up: The direction from the clients to the target.
        down: The direction from the target to the clients.
    """

    def __init__(self, target_url: str) -> None:
        """Start to listen; `fault_proxy` accepts the connections."""
        target = urlsplit(target_url)
        self._target = (target.hostname or "127.0.0.1", target.port or 0)
        self._connections: dict[asyncio.Task[bool], tuple[socket.socket, socket.socket]] = {}
        self._crashes: list[BaseException] = []
        self._is_cut = False
        self._listening = socket.create_server(("127.0.0.1", free_port()), backlog=1024)
        self._listening.setblocking(False)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self.url = f"{target.scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        self.up = Way()
        self.down = Way()

    @property
    def open_at_target(self) -> int:
        """Return how many connections the target has not closed."""
        with KernelQueues() as queues:
            return sum(queues.is_open(self._target, target.getsockname()) for _, target in self._connections.values())

    @property
    def unread_bytes(self) -> int:
        """Return how many bytes from its clients wait unread in the kernel."""
        with KernelQueues() as queues:
            return sum(queues.held_bytes(client) for client, _ in self._connections.values())

    async def until_left(self) -> None:
        """Wait until no connection is left."""
        while self._connections:
            await asyncio.wait(self._connections)

    def stall(self) -> None:
        """Hold back all data in both directions until `flow`; the connections stay open."""
        self.up.stall()
        self.down.stall()

    def flow(self) -> None:
        """Release at once what `stall` held back."""
        self.up.flow()
        self.down.flow()

    async def stall_for(self, seconds: float) -> None:
        self.stall()
        await asyncio.sleep(seconds)
        self.flow()

    def ignore(self) -> None:
        """Stop reading from both sides until `appear`, so that both see a closed window."""
        self.up.ignore()
        self.down.ignore()

    def vanish(self) -> None:
        """Drop every packet until `appear`: no data arrives or is acknowledged, and new connections get no answer."""
        self.stall()
        program = struct.pack("HL", 1, ctypes.addressof(_DROP_ALL))
        for sock in self._sockets():
            sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)

    def appear(self) -> None:
        """Undo `vanish` and `ignore`; the kernels then retransmit what was lost."""
        for sock in self._sockets():
            with suppress(FileNotFoundError):  # the proxy had not vanished
                sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
        self.up.heed()
        self.down.heed()
        self.flow()

    def kill(self) -> None:
        """Reset every connection; new connections work."""
        for task in self._connections:
            task.cancel()

    def cut(self) -> None:
        """Reset every connection, and each new one until `mend`."""
        self._is_cut = True
        self.kill()

    def mend(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    def _sockets(self) -> Iterator[socket.socket]:
        yield self._listening
        for pair in self._connections.values():
            yield from pair

    async def accept(self) -> None:
        """Accept connections until cancelled; then reset them and wait until they have ended."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(self._listening)
                if self._is_cut:
                    _close(client, is_orderly=False)
                    continue
                target = socket.socket()
                target.setblocking(False)
                target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
                task = loop.create_task(self._serve(client, target))
                self._connections[task] = client, target
                task.add_done_callback(self._end)
        finally:
            self._listening.close()
            self.kill()
            await self.until_left()
            if self._crashes:
                raise BaseExceptionGroup("the proxy crashed", self._crashes)

    async def _serve(self, client: socket.socket, target: socket.socket) -> bool:
        """Serve one connection until both directions have ended, and return whether both ended in order."""
        is_orderly = False
        try:
            await asyncio.get_running_loop().sock_connect(target, self._target)
            for sock in (client, target):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as tasks:
                for way, source, sink in ((self.up, client, target), (self.down, target, client)):
                    tasks.create_task(_Pipe(way, source, sink).run())
            is_orderly = True
        except* OSError:
            pass
        return is_orderly

    def _end(self, task: "asyncio.Task[bool]") -> None:
        """Close both sides of a connection when its task has ended or was cancelled before it started."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._crashes.append(error)
        is_orderly = not task.cancelled() and error is None and task.result()
        for sock in self._connections.pop(task):
            _close(sock, is_orderly=is_orderly)


def _close(sock: socket.socket, *, is_orderly: bool) -> None:
    """Close a socket; reset the connection unless its stream ended in order."""
    if not is_orderly:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class _Pipe:
    def __init__(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self._way = way
        self._source = source
        self._sink = sink
        self._line: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Event()
        self._is_finished = False
        self._free_at = 0.0

    async def run(self) -> None:
        """Forward data until its end has arrived."""
        with self._way.holding(self):
            async with asyncio.TaskGroup() as tasks:
                filling = tasks.create_task(self._fill())
                await self._empty()
                filling.cancel()

    def finish(self) -> None:
        """Put the end of the stream on the line."""
        if not self._is_finished:
            self._is_finished = True
            self._line.append((asyncio.get_running_loop().time() + self._way.latency_seconds, b""))
            self._changed.set()

    async def _fill(self) -> None:
        """Read data onto the line; discard what follows the end."""
        loop = asyncio.get_running_loop()
        way = self._way
        while not self._is_finished:
            await way.reading.wait()
            await self._until_readable()
            if not way.reading.is_set():
                continue
            data = self._source.recv(_READ_BYTES)
            due = loop.time() + way.latency_seconds + way.random.uniform(0, way.jitter_seconds)
            await self._until(lambda: self._held_bytes < way.line_bytes)
            if not self._is_finished:
                self._is_finished = not data
                self._line.append((due, data))
                self._held_bytes += len(data)
                self._changed.set()

    async def _until_readable(self) -> None:
        """Wait until the socket is readable, without reading."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._source, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._source)

    async def _empty(self) -> None:
        """Send what is due to the other side."""
        loop = asyncio.get_running_loop()
        way = self._way
        while True:
            await self._until(lambda: bool(self._line))
            due, data = self._line[0]
            if way.group_seconds:
                due = math.ceil(due / way.group_seconds) * way.group_seconds
            await asyncio.sleep(max(0.0, due - loop.time()))
            await way.passing.wait()
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            await self._deliver(data, due)
            self._line.popleft()
            self._held_bytes -= len(data)
            self._changed.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds that only a change of the line can fulfil."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def _deliver(self, data: bytes, due: float) -> None:
        """Send data that was due at `due`, with the packet size and bandwidth of this direction."""
        loop = asyncio.get_running_loop()
        way = self._way
        while data:
            await way.passing.wait()
            size = min(len(data), way.slice_bytes or len(data))
            if way.bytes_per_second is not None:
                size = min(size, max(1, int(way.bytes_per_second * _STEP_SECONDS)))
                begins_at = max(self._free_at, due, loop.time() - _CATCHING_UP_SECONDS)
                self._free_at = begins_at + size / way.bytes_per_second
                await asyncio.sleep(self._free_at - loop.time())
            await loop.sock_sendall(self._sink, data[:size])
            data = data[size:]
            if way.slice_bytes is not None:
                await asyncio.sleep(0)


@asynccontextmanager
async def fault_proxy(target_url: str) -> AsyncIterator[FaultProxy]:
    """Run a proxy in front of `http://127.0.0.1:PORT`, and reset its connections when the block ends."""
    proxy = FaultProxy(target_url)
    accepting = asyncio.get_running_loop().create_task(proxy.accept())
    try:
        yield proxy
    finally:
        accepting.cancel()
        with suppress(asyncio.CancelledError):
            await accepting


FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "black hole": FaultProxy.vanish,
    "zero window": FaultProxy.ignore,
    "half close": lambda network: network.up.finish(),
}
"""The faults that a network can cause for everything that passes through it, by name."""
