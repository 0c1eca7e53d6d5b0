"""One load test from the first join to the last close, of any server and with any source of audio.

Invariants: whatever happens while it runs, what was measured until then is the result; it ends in bounded time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from relay.loadtest.account import Report
from relay.loadtest.machine import cpu_seconds, waiting_seconds
from relay.loadtest.plan import LoadPlan, Profile, WorkerPlan, plan_visits
from relay.loadtest.processes import Workers, running_workers
from relay.loadtest.recorder import Recorder
from relay.loadtest.results import LoadResult, Second, ServerSample
from relay.loadtest.source import Source
from relay.loadtest.target import Target
from relay.loadtest.worker import Finish, ReportNow, Settle, Start
from relay.process.stopping import stop_signals
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError

JOINING_AT_ONCE = 64
"""Joins under way at a time, over all processes; a server that is slow to accept queues about a hundred."""

JOIN_SECONDS = 30.0
"""How long all listeners of before the audio may take to join, with `JOIN_SECONDS_EACH` more for each."""

JOIN_SECONDS_EACH = 0.01
"""A relay accepts several hundred listeners a second."""

CALM_SECONDS = 1.0
"""Between the last join and the first frame: the clocks are compared while nothing else happens."""

SETTLE_SECONDS = 0.5
"""Between the last frame and the end of the sessions, so that the server's CPU time is that of the audio."""

FINISH_SECONDS = 10.0
"""How long listeners may take to get the rest and be closed."""

INTERVAL_SECONDS = 1.0
"""How often everybody reports."""

OVERRUN_SECONDS = 10.0
"""How long a server may take the audio later than it is due, before the test gives up."""

USS_INTERVALS = 5
"""Looking through the memory of a server with thousands of listeners takes milliseconds, so it is not always done."""

JOIN_INTERVAL_SECONDS = 0.2
"""How often everybody reports before the audio."""

STOPPED = "a signal stopped it."
"""Why a test ended early that was asked to; that is no failure."""

LEAD_SECONDS = 0.2
"""Between saying when the audio begins and its beginning."""


class Probe(Protocol):
    """Looks at the server's processes, when they are on this machine."""

    @property
    def name(self) -> str:
        """The server, for people."""
        ...

    def sample(self, *, with_uss: bool) -> ServerSample | None:
        """Look now; `with_uss` takes longer."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a test is.

    Attributes:
        joined: Listeners that joined so far.
        failed: Listeners that could not.
        second: The last interval of the audio; None before it.
    """

    joined: int
    failed: int
    second: Second | None = None


class LoadRun:
    """One test; `run` it once."""

    def __init__(
        self,
        plan: LoadPlan,
        targets: Sequence[Target],
        source: Source,
        *,
        probe: Probe | None = None,
        show: Callable[[Progress], None] = lambda _progress: None,
        calm_seconds: float = CALM_SECONDS,
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        """Prepare a test.

        Args:
            plan: What happens.
            targets: Where listeners of each session connect to, one for each.
            source: Sends to them, and is ready to.
            probe: Looks at the server; None when it is elsewhere.
            show: Called with what there is to show, several times a second at most.
            calm_seconds: How long nothing happens between the last join and the first frame.
            finish_seconds: How long listeners may take to get the rest and be closed.
        """
        self._plan = plan
        self._targets = list(targets)
        self._source = source
        self._probe = probe
        self._show = show
        self._calm_seconds = calm_seconds
        self._finish_seconds = finish_seconds
        self._recorder = Recorder(plan, self._sample())
        self._ended_early: str | None = None

    async def run(self, notes: Sequence[str] = ()) -> LoadResult:
        """Run it; SIGINT (Ctrl-C) and SIGTERM end it early, in order, and a second one at once."""
        with stop_signals() as asked:
            async with asyncio.TaskGroup() as tasks:
                stop = tasks.create_task(asked.wait(), name="signals")
                try:
                    async with running_workers(self._worker_plans()) as workers:
                        await self._measure(workers, tasks, stop)
                except RelayError as error:
                    self._note_end(str(error))
                finally:
                    stop.cancel()
        name = None if self._probe is None else self._probe.name
        result = self._recorder.result(sum(self._source.published), self._ended_early, name, notes)
        return replace(result, latency_from=self._targets[0].expect.latency_from)

    def _worker_plans(self) -> list[WorkerPlan]:
        plan = self._plan
        visits = plan_visits(plan)
        at_once = plan.listeners if plan.profile is Profile.STORM else JOINING_AT_ONCE
        return [
            WorkerPlan(
                targets=self._targets,
                visits=visits[number :: plan.processes],
                joining_at_once=max(1, at_once // plan.processes),
                join_limit_seconds=JOIN_SECONDS + JOIN_SECONDS_EACH * plan.listeners,
                cpu=plan.cpus[number % len(plan.cpus)] if plan.cpus else None,
                nap_seconds=plan.nap_ms / 1000,
            )
            for number in range(plan.processes)
        ]

    async def _measure(self, workers: Workers, tasks: asyncio.TaskGroup, stop: asyncio.Task[bool]) -> None:
        await self._join(workers, stop)
        began = not stop.done() and self._ended_early is None
        if began:
            await self._play(workers, tasks, stop)
            await asyncio.sleep(SETTLE_SECONDS)
        if stop.done():
            self._note_end(STOPPED)
        reports = await workers.ask(Settle(self._source.published))
        if began:
            self._note(reports, with_uss=True)
        else:
            self._recorder.add(reports)
        try:
            await self._source.end()
        except RelayError as error:
            self._note_end(str(error))
        self._recorder.add(await workers.ask(Finish(self._finish_seconds)))

    async def _join(self, workers: Workers, stop: asyncio.Task[bool]) -> None:
        """Wait until everybody who comes before the audio is there or has failed, and the clocks are compared."""
        recorder = self._recorder
        calm_since: float | None = None
        while not stop.done() and (calm_since is None or relay_clock() - calm_since < self._calm_seconds):
            reports = await workers.ask(ReportNow())
            recorder.add(reports)
            self._show(Progress(recorder.joined, sum(recorder.failures.values())))
            if calm_since is None and not any(report.joining for report in reports):
                calm_since = relay_clock()
            await asyncio.wait({stop}, timeout=JOIN_INTERVAL_SECONDS)
        if recorder.failures and not recorder.joined:
            reason = next(iter(recorder.failures)).rstrip(".")
            self._note_end(f"No listener could join: {reason}.")

    async def _play(self, workers: Workers, tasks: asyncio.TaskGroup, stop: asyncio.Task[bool]) -> None:
        begins_at = relay_clock() + LEAD_SECONDS
        self._recorder.add(await workers.ask(Start(begins_at)))
        playing = tasks.create_task(self._play_source(begins_at), name="broadcasters")
        try:
            await asyncio.sleep(begins_at - relay_clock())
            self._recorder.begin(begins_at, await workers.ask(ReportNow()), own_report(), self._sample())
            await self._watch(workers, begins_at, {playing, stop})
        finally:
            playing.cancel()
            await asyncio.wait({playing})

    async def _watch(
        self, workers: Workers, begins_at: float, ends: set[asyncio.Task[None] | asyncio.Task[bool]]
    ) -> None:
        """Record every interval until one of `ends` is done, or long should have been."""
        deadline = begins_at + self._plan.duration_seconds + OVERRUN_SECONDS
        intervals = 1
        while not any(end.done() for end in ends):
            wait_seconds = begins_at + intervals * INTERVAL_SECONDS - relay_clock()
            await asyncio.wait(ends, timeout=max(0.0, wait_seconds), return_when=asyncio.FIRST_COMPLETED)
            second = self._note(await workers.ask(ReportNow()), with_uss=intervals % USS_INTERVALS == 0)
            self._show(Progress(self._recorder.joined, sum(self._recorder.failures.values()), second))
            intervals += 1
            if relay_clock() > deadline:
                self._note_end(f"The server had not taken all audio {OVERRUN_SECONDS:g} s after its end.")
                return

    async def _play_source(self, begins_at: float) -> None:
        try:
            await self._source.play(begins_at)
        except RelayError as error:
            self._note_end(str(error))

    def _note(self, reports: Sequence[Report], *, with_uss: bool) -> Second:
        own = own_report(self._source.take_late_ms())
        return self._recorder.note(relay_clock(), reports, own, self._sample(with_uss=with_uss))

    def _sample(self, *, with_uss: bool = True) -> ServerSample | None:
        return None if self._probe is None else self._probe.sample(with_uss=with_uss)

    def _note_end(self, sentence: str) -> None:
        """Keep why the test does not come to its planned end; the first reason explains the others."""
        self._ended_early = self._ended_early or sentence


def own_report(late_ms: float = 0.0) -> Report:
    """Report what this process used so far; its lag is how late it sent a frame."""
    return Report(cpu_seconds=cpu_seconds(), waiting_seconds=waiting_seconds(), lag_ms=late_ms)
