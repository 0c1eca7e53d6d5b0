"""Promise 8: hostile clients have a budget. Here all attack at once.

tests/integration/test_floods.py tests each kind alone.
"""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.reliability.conftest import Figure
from tests.reliability.generator import OTHERS_CPU, RELAY_CPU, Measured, measure
from tests.reliability.hostile import kinds
from tests.reliability.loads import Load
from tests.support.live_session import (
    LOOPS,
    Broadcaster,
    Lateness,
    broadcasting,
    check_accounts,
    listen_beside,
    resident_bytes,
)
from tests.support.processes import RelayProcess, relay_process
from tests.support.tries import best_of_three, check_in_time
from tests.support.wire_listener import closing

pytestmark = pytest.mark.timed

WITNESSES = 5
"""Listeners in the test's own process, whose accounts are checked."""

LATE_MS = 1000
"""The lateness allowed in CI on two cores, where the hostile clients take one and everything else waits for it."""

JOINING_SECONDS = 30.0

FLOOD_LIMITS = ("max_pings_per_second", "max_texts_per_second", "max_fragments_per_second")
"""The limits that stop the floods; the relay logs each limit that it applied."""

LEAST_PRIORITY = 19
"""The hostile clients' priority. They share a core with the measuring process and get only what it leaves, so the test
measures the relay and not the wait for this core.
"""


@pytest.mark.parametrize("loop", LOOPS)
@best_of_three
async def test_all_floods_at_once_cost_healthy_listeners_nothing(
    load: Load, figure: Figure, lateness: Lateness, loop: str, tmp_path: Path
) -> None:
    async with relay_process(RELAY_SERVER_LOOP=loop) as relay:
        if load.is_alone:
            os.sched_setaffinity(relay.pid, {RELAY_CPU})
        witnesses = await listen_beside(relay, "ev1", WITNESSES)
        with closing(witnesses):
            async with broadcasting(relay, "ev1") as broadcaster:
                async with asyncio.TaskGroup() as group:
                    quiet = group.create_task(measure(relay, load, tmp_path))
                    await play_until_done(broadcaster, quiet)
                async with asyncio.TaskGroup() as group:
                    flooded = group.create_task(measure(relay, load, tmp_path))
                    flooding = group.create_task(flood_while(flooded, relay, load))
                    await play_until_done(broadcaster, flooded)
                grown_bytes = await flooding
                await broadcaster.end()
                await check_accounts(witnesses, broadcaster)
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text
    assert all(listener.gaps == [] for listener in witnesses)
    assert (quiet.result().lost_frames, flooded.result().lost_frames) == (0, 0)
    quiet_ms, flooded_ms = (int(result.metrics["p99_ms"]) for result in (quiet.result(), flooded.result()))
    delivered = flooded.result().metrics["delivered_frames"]
    figure(
        f"{loop}: {len(kinds())} kinds at once, {load.seconds} s of audio: {load.listeners} listeners lost 0 of "
        f"{delivered:,} frames, p99 {quiet_ms} ms before, {flooded_ms} ms meanwhile; "
        f"memory grew by {grown_bytes / 1e6:.1f} MB"
    )
    assert grown_bytes <= 40e6, "what hostile clients send piles up"
    check_in_time(flooded_ms, 2 * quiet_ms + 1 if load.is_alone else LATE_MS + lateness.most_ms, "a frame beside them")


def tells(limit: str, line: str) -> bool:
    return "limits were applied" in line and limit in line


async def play_until_done(broadcaster: Broadcaster, measuring: asyncio.Task[object]) -> None:
    while not measuring.done():
        await broadcaster.play(0.5)


async def flood_while(measuring: asyncio.Task[Measured], relay: RelayProcess, load: Load) -> int:
    """Start the hostile clients once all listeners are present, and return by how many bytes the relay grew."""
    loop = asyncio.get_running_loop()
    until = loop.time() + JOINING_SECONDS
    while (there := len(psutil.Process(relay.pid).net_connections("tcp"))) < load.listeners:
        assert loop.time() < until, f"{there} of {load.listeners} listeners are there"
        await asyncio.sleep(0.1)
    before_bytes = resident_bytes(relay)
    hostile = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.reliability.hostile", relay.url)
    try:
        os.setpriority(os.PRIO_PROCESS, hostile.pid, LEAST_PRIORITY)
        if load.is_alone:
            os.sched_setaffinity(hostile.pid, {OTHERS_CPU})
        # Hostile clients get only the remaining processor time, so their floods may outlast the measurement.
        applied = [relay.line(partial(tells, limit)) for limit in FLOOD_LIMITS]
        await asyncio.gather(asyncio.wait([measuring]), *applied)
        assert hostile.returncode is None, "the hostile clients ended by themselves"
        return resident_bytes(relay) - before_bytes
    finally:
        if hostile.returncode is None:
            hostile.kill()
        await hostile.wait()
