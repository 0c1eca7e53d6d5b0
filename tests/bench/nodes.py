"""How much later listeners of another node hear, and what a frame of another node costs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

from relay.loadtest.target import Target, upgrade_request
from relay.protocol.wire import Header
from tests.support.nats import nats
from tests.support.processes import RelayProcess, relay_process

CHANNELS, PER_SECOND, FRAME_BYTES = 64, 50, 640
WARM_UP_SECONDS = 2.0
EXTENDED_LENGTH = 126
"""The length in a frame of WebSocket that says that the length follows in two bytes."""

Arrivals = dict[tuple[int, int], float]
"""When a listener got each frame, by channel and number."""


@dataclass(frozen=True, slots=True)
class NodesMeasured:
    """One run of two nodes, with one listener for each channel at each of them.

    Attributes:
        later_ms: For each frame, how much later a listener of another node got it than one of the home.
        home_us: The home's CPU time for each frame that enters.
        other_us: The other node's CPU time for each frame that enters.
        lost: How many frames only one of both listeners got.
    """

    later_ms: list[float]
    home_us: float
    other_us: float
    lost: int


def measure_nodes(seconds: float) -> NodesMeasured:
    """Send on all channels to one node of two, evenly spread, and listen on both."""
    with on_all_cpus():
        return asyncio.run(_measure_nodes(seconds))


def measure_alone(seconds: float, listeners: int) -> float:
    """Do the same with one relay without a cluster. Return its CPU time for each frame that enters, in µs."""
    with on_all_cpus():
        return asyncio.run(_measure_alone(seconds, listeners))


@contextmanager
def on_all_cpus() -> Iterator[None]:
    """Let this process and those that it starts use all CPUs. The benchmark has its own for a single server."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _measure_nodes(seconds: float) -> NodesMeasured:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        server = await stack.enter_async_context(nats(directory))
        home, other = [await stack.enter_async_context(relay_process(RELAY_CLUSTER_URL=server.url)) for _ in range(2)]
        (here, there), (home_us, other_us) = await _carry([home, other], [home, other], seconds)
    warm = [key for key in here.keys() & there.keys() if key[1] >= WARM_UP_SECONDS * PER_SECOND]
    later = [(there[key] - here[key]) * 1000 for key in warm]
    return NodesMeasured(sorted(later), home_us, other_us, len(here.keys() ^ there.keys()))


async def _measure_alone(seconds: float, listeners: int) -> float:
    async with relay_process() as relay:
        _, (used,) = await _carry([relay], [relay] * listeners, seconds)
    return used


async def _carry(
    nodes: list[RelayProcess], listened: list[RelayProcess], seconds: float
) -> tuple[list[Arrivals], list[float]]:
    """Broadcast all channels to the first node, and listen to all channels at each of those that are listened to.

    Return when each listener got what, and the CPU time of each node for each frame, in µs.
    """
    async with AsyncExitStack() as stack:
        sources = [
            await stack.enter_async_context(_connected(nodes[0], f"broadcast/ev1/{channel}?rate=16000"))
            for channel in range(CHANNELS)
        ]
        listening = [
            [await stack.enter_async_context(_connected(relay, f"listen/ev1/{channel}")) for channel in range(CHANNELS)]
            for relay in listened
        ]
        before = [cpu_seconds(relay.pid) for relay in nodes]
        count = await _send(sources, seconds + WARM_UP_SECONDS)
        await asyncio.sleep(1)
        used = [cpu_seconds(relay.pid) - start for relay, start in zip(nodes, before, strict=True)]
    got = [
        {(channel, seq): at for channel, peer in enumerate(peers) for seq, at in peer.times.items()}
        for peers in listening
    ]
    return got, [each / count * 1e6 for each in used]


class _Peer(asyncio.Protocol):
    """A client that costs so little that the relays have the CPUs for themselves.

    Attributes:
        greeted: Done when the relay has said hello.
        times: When each frame came, by its number.
    """

    def __init__(self) -> None:
        self.greeted = asyncio.get_running_loop().create_future()
        self.times: dict[int, float] = {}
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
            self._take(Opcode(data[at] & 0x0F), data[start : start + length], now)
            at = start + length
        self._rest = data[at:]

    def _take(self, opcode: Opcode, payload: bytes, now: float) -> None:
        if opcode is Opcode.BINARY:
            self.times[Header.unpack(payload).seq] = now
        elif opcode is Opcode.PING:
            self.send(Frame(Opcode.PONG, payload).serialize(mask=True))
        elif not self.greeted.done():
            self.greeted.set_result(None)

    def send(self, frame: bytes) -> None:
        self._transport.write(frame)

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def _connected(relay: RelayProcess, path: str) -> AsyncIterator[_Peer]:
    address = urlsplit(relay.url)
    assert address.hostname
    assert address.port
    _, peer = await asyncio.get_running_loop().create_connection(_Peer, address.hostname, address.port)
    peer.send(upgrade_request(Target(address.hostname, address.port, f"/v1/{path}", address.netloc)))
    try:
        await peer.greeted
        yield peer
    finally:
        peer.close()


async def _send(sources: Sequence[_Peer], seconds: float) -> int:
    """Send evenly, and return the number of frames."""
    frame = Frame(Opcode.BINARY, bytes(FRAME_BYTES)).serialize(mask=True)
    interval = 1 / PER_SECOND / len(sources)
    began, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        while began + count * interval <= now:
            sources[count % len(sources)].send(frame)
            count += 1
        await asyncio.sleep(max(0.0, began + count * interval - time.perf_counter()))
    return count


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
