"""Promise 1: stalled listeners do not affect healthy ones."""

import asyncio
from pathlib import Path

import pytest

from tests.reliability.conftest import Figure
from tests.reliability.generator import Measured, measure
from tests.reliability.loads import Load
from tests.support.live_session import (
    Broadcaster,
    Lateness,
    broadcasting,
    check_accounts,
    check_untouched,
    listen_beside,
)
from tests.support.processes import RelayProcess, relay_process
from tests.support.tries import best_of_three, check_in_time
from tests.support.wire_listener import closing

pytestmark = pytest.mark.timed

STALLED_PERCENT = 10
STALLED = ("--profile", "slow", "--slow-percent", str(STALLED_PERCENT))

LATE_MS = 150
"""The lateness allowed on a busy machine; on an idle one, the measure is a run without stalled listeners."""

ALL_JOIN_MS = 1000
"""How late frames may be while thousands of listeners join a relay on one core."""


@best_of_three
async def test_stalled_listeners_do_not_touch_healthy_ones(
    load: Load, figure: Figure, lateness: Lateness, tmp_path: Path
) -> None:
    settings = {"RELAY_LISTENER_STALL_LIMIT_SECONDS": "never", "RELAY_LISTENER_MAX_BUFFER_SECONDS": "3"}
    async with relay_process(**settings) as relay:
        # Each frame of the witnesses counts, so they reveal a short pause of the relay, which a percentile hides.
        witnesses = await listen_beside(relay, "witness", 5)
        with closing(witnesses):
            async with broadcasting(relay, "witness") as broadcaster:
                without = await measure_with_witnesses(relay, load, tmp_path, broadcaster)
                beside = await measure_with_witnesses(relay, load, tmp_path, broadcaster, *STALLED)
                await broadcaster.end()
                await check_accounts(witnesses, broadcaster)
    before_ms, after_ms = without.metrics["p99_ms"], beside.metrics["p99_ms"]
    most_ms = before_ms * 1.2 + 1 if load.is_alone else max(LATE_MS, 3 * before_ms)
    check_untouched(witnesses, broadcaster, lateness, ALL_JOIN_MS if load.is_alone else 2 * LATE_MS)
    figure(
        f"{load.listeners} listeners, {STALLED_PERCENT} % stalled: the others lost 0 of "
        f"{beside.metrics['delivered_frames']:,} frames; p99 {before_ms} ms without, {after_ms} ms beside them"
    )
    assert beside.slow["gap_frames"] > load.listeners, f"they did not stall: {beside.slow}"
    assert beside.slow["connections"] == load.listeners * STALLED_PERCENT // 100
    assert without.lost_frames == beside.lost_frames == 0
    check_in_time(after_ms, most_ms, "a frame beside them")


async def measure_with_witnesses(
    relay: RelayProcess, load: Load, folder: Path, broadcaster: Broadcaster, *options: str
) -> Measured:
    """Measure listeners while witnesses on another channel receive other audio."""
    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(measure(relay, load, folder, *options))
        while not measuring.done():
            await broadcaster.play(0.5)
    return measuring.result()
