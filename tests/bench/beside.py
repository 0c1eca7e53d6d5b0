"""A small channel beside a large one that always has pending frames."""

import asyncio
from typing import TYPE_CHECKING

from relay.loadtest.plan import LoadPlan
from relay.loadtest.results import LoadResult
from relay.loadtest.run import LoadRun, Progress
from tests.bench.disturbance import Witness
from tests.bench.measure import CALM_SECONDS, Measured, checked, source_at
from tests.bench.servers import GENERATOR_CPU, SERVER_CPU, Running, Server, serving

if TYPE_CHECKING:
    from tests.bench.bench import Bench

LARGE, SMALL = 4000, 10
BOTH_SECONDS = 2.5
"""How much longer the large channel plays, so that a small channel that starts a second later ends before it."""


def measure_beside(bench: "Bench", server: Server) -> tuple[Measured, Measured]:
    """Measure once; return the results of the large channel's listeners and of the small channel's."""
    large_plan, small_plan = bench.plan(LARGE, duration_seconds=bench.seconds + BOTH_SECONDS), bench.plan(SMALL)
    with serving(server) as running:
        witness = Witness(running.pid, SERVER_CPU, GENERATOR_CPU)
        large, small = asyncio.run(_beside(server, running, large_plan, small_plan))
        disturbances = witness.tell()
    return checked(Measured(large, disturbances)), checked(Measured(small, disturbances))


async def _beside(
    server: Server, running: Running, large_plan: LoadPlan, small_plan: LoadPlan
) -> tuple[LoadResult, LoadResult]:
    large_plays = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.second is not None:
            large_plays.set()

    async def load(plan: LoadPlan, session: str) -> LoadResult:
        async with source_at(server, running, plan, session) as (source, target):
            return await LoadRun(plan, [target], source, show=note, calm_seconds=CALM_SECONDS).run()

    async with asyncio.TaskGroup() as tasks:
        large = tasks.create_task(load(large_plan, "large"))
        await large_plays.wait()
        small = tasks.create_task(load(small_plan, "small"))
    return large.result(), small.result()
