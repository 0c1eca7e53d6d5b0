"""Promise 1: stalled listeners do not touch healthy ones."""

from pathlib import Path

from tests.reliability.conftest import Figure
from tests.reliability.generator import measure
from tests.reliability.loads import Load
from tests.support.processes import relay_process

STALLED_PERCENT = 10

LATE_MS = 500
"""What a machine with other work may add; where there is none, the measure is what is without stalled listeners."""


async def test_stalled_listeners_do_not_touch_healthy_ones(load: Load, figure: Figure, tmp_path: Path) -> None:
    async with relay_process(RELAY_LISTENER_STALL_LIMIT_SECONDS="never") as relay:
        without = await measure(relay, load, tmp_path)
        beside = await measure(relay, load, tmp_path, "--profile", "slow", "--slow-percent", str(STALLED_PERCENT))
    assert beside.slow["gap_frames"] > 0 or load.seconds < 10, "they did not stall"
    assert beside.slow["connections"] == load.listeners * STALLED_PERCENT // 100
    assert (without.lost_frames, beside.lost_frames) == (0, 0)
    before_ms, after_ms = without.metrics["p99_ms"], beside.metrics["p99_ms"]
    figure(
        f"{load.listeners} listeners, {STALLED_PERCENT} % stalled: the others lost 0 of "
        f"{beside.metrics['delivered_frames']:,} frames; p99 {before_ms} ms without, {after_ms} ms beside them"
    )
    assert after_ms <= (before_ms * 1.2 + 1 if load.is_alone else LATE_MS), "in whole milliseconds"
