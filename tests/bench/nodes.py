"""How much later listeners of another node hear, and what a frame of another node costs."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from relay.protocol.wire import Header
from tests.bench.peer import Peer, connected, masked, on_all_cpus
from tests.support.nats import nats
from tests.support.processes import RelayProcess, relay_process

CHANNELS, FEW_CHANNELS = 64, 16
"""Two nodes, a server and the clients share the CPUs. Few channels leave room, so that nothing waits for a CPU."""

PER_SECOND, FRAME_BYTES = 50, 640
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


def measure_nodes(seconds: float, channels: int) -> NodesMeasured:
    """Send on all channels to one node of two, evenly spread, and listen on both."""
    with on_all_cpus():
        return asyncio.run(_measure_nodes(seconds, channels))


def measure_alone(seconds: float, listeners: int) -> float:
    """Do the same with one relay without a cluster. Return its CPU time for each frame that enters, in µs."""
    with on_all_cpus():
        return asyncio.run(_measure_alone(seconds, listeners))


async def _measure_nodes(seconds: float, channels: int) -> NodesMeasured:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        server = await stack.enter_async_context(nats(directory))
        home, other = [await stack.enter_async_context(relay_process(RELAY_CLUSTER_URL=server.url)) for _ in range(2)]
        (here, there), (home_us, other_us) = await _carry([home, other], [home, other], seconds, channels)
    warm = [key for key in here.keys() & there.keys() if key[1] >= WARM_UP_SECONDS * PER_SECOND]
    later = [(there[key] - here[key]) * 1000 for key in warm]
    return NodesMeasured(sorted(later), home_us, other_us, len(here.keys() ^ there.keys()))


async def _measure_alone(seconds: float, listeners: int) -> float:
    async with relay_process() as relay:
        _, (used,) = await _carry([relay], [relay] * listeners, seconds, CHANNELS)
    return used


async def _carry(
    nodes: list[RelayProcess], listened: list[RelayProcess], seconds: float, channels: int
) -> tuple[list[Arrivals], list[float]]:
    """Broadcast all channels to the first node, and listen to all channels at each of those that are listened to.

    Return when each listener got what, and the CPU time of each node for each frame, in µs.
    """
    async with AsyncExitStack() as stack:
        sources = [
            await stack.enter_async_context(connected(_port(nodes[0]), f"broadcast/ev1/{channel}?rate=16000"))
            for channel in range(channels)
        ]
        got: list[Arrivals] = [{} for _ in listened]
        for relay, times in zip(listened, got, strict=True):
            for channel in range(channels):
                listener = connected(_port(relay), f"listen/ev1/{channel}", partial(_note, times, channel))
                await stack.enter_async_context(listener)
        before = [cpu_seconds(relay.pid) for relay in nodes]
        count = await _send(sources, seconds + WARM_UP_SECONDS)
        await asyncio.sleep(1)
        used = [cpu_seconds(relay.pid) - start for relay, start in zip(nodes, before, strict=True)]
    return got, [each / count * 1e6 for each in used]


def _note(times: Arrivals, channel: int, message: bytes, now: float) -> None:
    times[channel, Header.unpack(message).seq] = now


async def _send(sources: Sequence[Peer], seconds: float) -> int:
    """Send evenly, and return the number of frames."""
    frame = masked(bytes(FRAME_BYTES))
    interval = 1 / PER_SECOND / len(sources)
    began, count = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        while began + count * interval <= now:
            sources[count % len(sources)].send(frame)
            count += 1
        await asyncio.sleep(max(0.0, began + count * interval - time.perf_counter()))
    return count


def _port(relay: RelayProcess) -> int:
    port = urlsplit(relay.url).port
    assert port is not None
    return port


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
