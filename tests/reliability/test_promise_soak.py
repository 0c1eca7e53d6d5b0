"""Promise 13: after many clients have come and gone, resources are as before. `python -m tests.soak` runs longer."""

import pytest

from tests.reliability.conftest import Figure
from tests.reliability.loads import Load
from tests.soak.soak import soak

pytestmark = [pytest.mark.timed, pytest.mark.long]

LIVES = 24

GROWTH_MB = 8.0
"""The most growth from warm-up to the end: allocator noise."""


async def test_memory_descriptors_and_tasks_return_and_counters_reconcile(load: Load, figure: Figure) -> None:
    report = await soak("asyncio", load.soak_minutes * 60, LIVES)
    figure("; ".join(line.strip() for line in report.lines()))
    assert report.problems == []
    assert report.counts["visits"] > LIVES
    assert report.counts["gap frames"] > 0
    assert report.cut_off > 0
    assert report.after is not None
    assert report.after.memory_mb - report.warm[0].memory_mb <= GROWTH_MB
