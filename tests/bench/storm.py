"""A crowd that joins a channel at once, beside listeners already there."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.loadtest.plan import LoadPlan, Profile
from relay.loadtest.run import LoadRun
from relay.loadtest.source import Source
from tests.bench.disturbance import Witness
from tests.bench.measure import CALM_SECONDS, Measured, checked, source_at
from tests.bench.servers import GENERATOR_CPU, SERVER_CPU, Running, Server, serving

if TYPE_CHECKING:
    from tests.bench.bench import Bench

PRESENT, CROWD = 500, 1000
BEFORE_SECONDS = 2.5
"""Roughly how long the broadcast is undisturbed before the crowd joins."""


class SharedSource:
    """One broadcaster for both halves of a measurement: it plays once, and ends when both halves have asked for it.

    Attributes:
        plays: Set when the audio begins.
    """

    def __init__(self, source: Source) -> None:
        self.plays = asyncio.Event()
        self._source = source
        self._played = asyncio.Event()
        self._both_ended = asyncio.Barrier(2)

    @property
    def published(self) -> list[int]:
        return self._source.published

    def take_late_ms(self) -> float:
        return self._source.take_late_ms()

    async def play(self, begins_at: float) -> None:
        self.plays.set()
        try:
            await self._source.play(begins_at)
        finally:
            self._played.set()

    async def end(self) -> None:
        await self._both_ended.wait()
        await self._source.end()

    def of_the_crowd(self) -> "CrowdSource":
        """Return the crowd's view of this source."""
        return CrowdSource(self._source, self._played, self._both_ended)


class CrowdSource:
    """The crowd's view of a broadcaster that the other half owns."""

    def __init__(self, source: Source, played: asyncio.Event, both_ended: asyncio.Barrier) -> None:
        self._source = source
        self._played = played
        self._both_ended = both_ended

    @property
    def published(self) -> list[int]:
        return self._source.published

    def take_late_ms(self) -> float:
        return 0.0

    async def play(self, begins_at: float) -> None:  # noqa: ARG002 - the broadcast has already begun
        await self._played.wait()

    async def end(self) -> None:
        await self._both_ended.wait()


def measure_storm(bench: "Bench", server: Server) -> tuple[Measured, Measured]:
    """Measure once; return the results of the listeners already there and of the crowd."""
    plan = bench.plan(PRESENT, duration_seconds=bench.seconds + BEFORE_SECONDS)
    with serving(server) as running:
        witness = Witness(running.pid, SERVER_CPU, GENERATOR_CPU)
        inside, crowd = asyncio.run(_storm(server, running, plan))
        disturbances = witness.tell()
    return checked(Measured(inside.result, disturbances)), checked(Measured(crowd.result, disturbances))


async def _storm(server: Server, running: Running, plan: LoadPlan) -> tuple[Measured, Measured]:
    async with source_at(server, running, plan) as (source, target):
        shared = SharedSource(source)
        crowd_plan = replace(plan, listeners=CROWD, profile=Profile.STORM)
        async with asyncio.TaskGroup() as tasks:
            inside = tasks.create_task(LoadRun(plan, [target], shared, calm_seconds=CALM_SECONDS).run())
            await shared.plays.wait()
            crowd = tasks.create_task(
                LoadRun(crowd_plan, [target], shared.of_the_crowd(), calm_seconds=CALM_SECONDS).run()
            )
    return Measured(inside.result(), ()), Measured(crowd.result(), ())
