"""One load test from the first join to the last close, for any server and any source of audio.

Invariants: the result holds everything measured until the end, whatever happens; the test ends in bounded time.
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
from relay.vocabulary.audio import Codec
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError

JOINING_AT_ONCE = 64
"""Concurrent joins over all processes. A server that is slow to accept queues about a hundred."""

JOIN_SECONDS = 30.0
"""How long joins before the audio may take, with `JOIN_SECONDS_EACH` more for each listener."""

JOIN_SECONDS_EACH = 0.01
"""A relay accepts several hundred listeners a second."""

CALM_SECONDS = 1.0
"""The pause between the last join and the first frame, in which only the clocks are compared."""

SETTLE_SECONDS = 0.5
"""The pause between the last frame and the end of the sessions, so that the server's CPU time is that of the audio."""

FINISH_SECONDS = 10.0
"""How long listeners may take to receive the rest and be closed."""

INTERVAL_SECONDS = 1.0
"""How often all processes report."""

OVERRUN_SECONDS = 10.0
"""How long the server may lag behind the end of the audio before the test gives up."""

USS_INTERVALS = 5
"""USS is measured every so many intervals: with thousands of listeners it takes milliseconds."""

JOIN_INTERVAL_SECONDS = 0.2
"""How often all processes report before the audio."""

STOPPED = "it was stopped by a signal."
"""The reason when a signal ended the test early, which is no failure."""

LEAD_SECONDS = 0.2
"""The time between announcing the beginning of the audio and the beginning itself."""


class Probe(Protocol):
    """Observes the server's processes when they are on this machine."""

    @property
    def name(self) -> str:
        """The server's name, for people."""

    def sample(self, *, with_uss: bool) -> ServerSample | None:
        """Return the current use; `with_uss` takes longer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a test has come.

    Attributes:
        joined: Listeners that joined so far.
        failed: Listeners that could not join.
        second: The last interval of the audio; None before the audio.
    """

    joined: int
    failed: int
    second: Second | None = None


class LoadRun:
    """One test. Call `run` once."""

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
            plan: The parameters of the test.
            targets: Where the listeners of each session connect to.
            source: Sends the audio. It is ready to send.
            probe: Observes the server; None when it runs elsewhere.
            show: Called with the progress, at most several times a second.
            calm_seconds: The pause between the last join and the first frame.
            finish_seconds: How long listeners may take to receive the rest and be closed.
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
        """Run the test. A first SIGINT (Ctrl-C) or SIGTERM ends it early and in order, a second one at once."""
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
                encoded_frame_ms=plan.frame_ms if plan.is_converted and plan.codec is Codec.OPUS else None,
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
        """Wait until all early listeners have joined or failed, and the clocks have been compared."""
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
        """Record every interval until one of `ends` is done, or is long overdue."""
        deadline = begins_at + self._plan.duration_seconds + OVERRUN_SECONDS
        intervals = 1
        while not any(end.done() for end in ends):
            wait_seconds = begins_at + intervals * INTERVAL_SECONDS - relay_clock()
            await asyncio.wait(ends, timeout=max(0.0, wait_seconds), return_when=asyncio.FIRST_COMPLETED)
            second = self._note(await workers.ask(ReportNow()), with_uss=intervals % USS_INTERVALS == 0)
            self._show(Progress(self._recorder.joined, sum(self._recorder.failures.values()), second))
            intervals += 1
            if relay_clock() > deadline:
                self._note_end(f"The server had not accepted all audio {OVERRUN_SECONDS:g} s after its end.")
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
        """Keep why the test ends early. The first reason explains the others, but a signal explains no failure."""
        if self._ended_early in (None, STOPPED):
            self._ended_early = sentence


def own_report(late_ms: float = 0.0) -> Report:
    """Report what this process has used so far. Its lag is how late it sent a frame."""
    return Report(cpu_seconds=cpu_seconds(), waiting_seconds=waiting_seconds(), lag_ms=late_ms)
