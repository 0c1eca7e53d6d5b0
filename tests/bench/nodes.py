"""How much later listeners of another node hear, and what a frame of another node costs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.protocol.wire import SUBPROTOCOL, Header
from tests.support.nats import nats
from tests.support.processes import RelayProcess, relay_process

CHANNELS, PER_SECOND, FRAME_BYTES = 64, 50, 640
WARM_UP_SECONDS = 2.0

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
        got: list[Arrivals] = [{} for _ in listened]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        listening = []
        for relay, times in zip(listened, got, strict=True):
            for channel in range(CHANNELS):
                listener = await stack.enter_async_context(_connected(relay, f"listen/ev1/{channel}"))
                listening.append(tasks.create_task(_listen(listener, channel, times)))
        before = [cpu_seconds(relay.pid) for relay in nodes]
        count = await _send(sources, seconds + WARM_UP_SECONDS)
        await asyncio.sleep(1)
        used = [cpu_seconds(relay.pid) - start for relay, start in zip(nodes, before, strict=True)]
        for each in listening:
            each.cancel()
    return got, [each / count * 1e6 for each in used]


@asynccontextmanager
async def _connected(relay: RelayProcess, path: str) -> AsyncIterator[ClientConnection]:
    url = relay.url.replace("http", "ws", 1)
    async with connect(
        f"{url}/v1/{path}", subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None, compression=None
    ) as connection:
        await connection.recv()
        yield connection


async def _listen(listener: ClientConnection, channel: int, times: Arrivals) -> None:
    async for message in listener:
        if isinstance(message, bytes):
            times[channel, Header.unpack(message).seq] = time.perf_counter()


async def _send(sources: Iterable[ClientConnection], seconds: float) -> int:
    """Send evenly, and return the number of frames."""
    frame = bytes(FRAME_BYTES)
    order = list(sources)
    interval = 1 / PER_SECOND / len(order)
    began, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        while began + count * interval <= now:
            await order[count % len(order)].send(frame)
            count += 1
        await asyncio.sleep(max(0.0, began + count * interval - time.perf_counter()))
    return count


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
