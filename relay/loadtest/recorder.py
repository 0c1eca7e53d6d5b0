"""Combines the reports of all receiving processes, second by second, into the result of a test.

Invariant: joins and failures from before the audio count, but belong to no second.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relay.loadtest.account import Accounts, Report, percent
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import LoadPlan
from relay.loadtest.results import BUSY_LIMIT_PERCENT, LoadResult, ProcessUse, Second, ServerSample, ServerUse

LEAST_SECONDS = 0.75
"""A shorter interval, at the end of the audio, says little about how busy a process is in a second."""


@dataclass(slots=True)
class _ProcessLine:
    """The use of one process of the generator while the audio plays."""

    name: str
    receives: bool
    first_cpu: float = 0.0
    last_cpu: float = 0.0
    last_waiting: float = 0.0
    worst_percent: float = 0.0
    worst_waiting_percent: float = 0.0
    busy_seconds: int = 0
    lag_ms: float = 0.0

    def begin(self, report: Report) -> None:
        self.first_cpu = self.last_cpu = report.cpu_seconds
        self.last_waiting = report.waiting_seconds or 0.0

    def note(self, report: Report, length_seconds: float) -> float:
        """Add an interval, and return how busy the process was in it, in per cent."""
        waiting = report.waiting_seconds or 0.0
        waited = max(0.0, waiting - self.last_waiting)
        busy = percent(report.cpu_seconds - self.last_cpu + waited, length_seconds) or 0.0
        self.last_cpu, self.last_waiting = report.cpu_seconds, waiting
        self.lag_ms = max(self.lag_ms, report.lag_ms)
        if length_seconds >= LEAST_SECONDS:
            self.busy_seconds += busy > BUSY_LIMIT_PERCENT
            if busy > self.worst_percent:
                self.worst_percent = busy
                self.worst_waiting_percent = percent(waited, length_seconds) or 0.0
        return busy

    def use(self, length_seconds: float) -> ProcessUse:
        used = self.last_cpu - self.first_cpu
        return ProcessUse(
            name=self.name,
            receives=self.receives,
            cpu_seconds=used,
            busy_percent=percent(used, length_seconds) or 0.0,
            worst_busy_percent=self.worst_percent,
            worst_waiting_percent=self.worst_waiting_percent,
            busy_seconds=self.busy_seconds,
            lag_ms=self.lag_ms,
        )


class Recorder:
    """Builds the result of a test."""

    def __init__(self, plan: LoadPlan, server_before: ServerSample | None) -> None:
        """Begin; `server_before` is the server's use before the listeners joined."""
        self._plan = plan
        self._server_before = self._server_begin = self._server_last = server_before
        self._rss_peak = server_before.rss if server_before else 0
        self._uss_peak = server_before.uss if server_before else None
        self._latency = Histogram()
        self._joins = Histogram()
        self._received_bytes = 0
        self._window_frames = 0
        self._early_joins = 0
        self._uncertainty_ms: float | None = None
        self._reports: Sequence[Report] = ()
        self._seconds: list[Second] = []
        self._began: float | None = None
        self._last = 0.0
        self._lines = [_ProcessLine(f"receiver {number + 1}", receives=True) for number in range(plan.processes)]
        self._lines.append(_ProcessLine("broadcaster", receives=False))

    @property
    def joined(self) -> int:
        """Listeners that joined so far."""
        return self._joins.total

    @property
    def failures(self) -> Mapping[str, int]:
        """Reasons why listeners could not join, with counts."""
        return _sum(report.failures for report in self._reports)

    def begin(self, at: float, reports: Sequence[Report], own: Report, server: ServerSample | None) -> None:
        """Record that the audio begins at `at` (seconds), and the use of all processes until then."""
        self.add(reports)
        self._began = self._last = at
        self._early_joins = self.joined
        self._server_begin = server
        self._note_server(server)
        for line, report in zip(self._lines, (*reports, own), strict=True):
            line.begin(report)

    def note(self, at: float, reports: Sequence[Report], own: Report, server: ServerSample | None) -> Second:
        """Add an interval of the audio, and return it.

        Args:
            at: Its end, in seconds.
            reports: From all receiving processes, in order.
            own: From the main process. Its lag is how late it sent a frame at worst.
            server: The server's use so far.
        """
        assert self._began is not None  # noqa: S101 - the audio has begun
        length = max(1e-3, at - self._last)
        latency = self.add(reports)
        self._window_frames += latency.total
        *busy, _ = [line.note(report, length) for line, report in zip(self._lines, (*reports, own), strict=True)]
        uncertainties = (self._uncertainty_ms, *(report.clock_uncertainty_ms for report in reports))
        self._uncertainty_ms = max((each for each in uncertainties if each is not None), default=None)
        server_cpu = None
        if server is not None and self._server_last is not None:
            server_cpu = percent(server.cpu_seconds - self._server_last.cpu_seconds, length)
        self._note_server(server)
        self._last = at
        second = Second(
            at_seconds=at - self._began,
            length_seconds=length,
            connected=sum(report.connected for report in reports),
            frames=latency.total,
            received_bytes=sum(report.received_bytes for report in reports),
            gap_frames=sum(report.gap_frames for report in reports),
            p50_ms=latency.percentile(50),
            p99_ms=latency.percentile(99),
            max_ms=latency.maximum,
            generator_busy_percent=max(busy),
            server_cpu_percent=server_cpu,
        )
        if length >= LEAST_SECONDS:
            self._seconds.append(second)
        return second

    def result(
        self, published_frames: int, ended_early: str | None, server_name: str | None, notes: Sequence[str]
    ) -> LoadResult:
        """Return the result of the test.

        Args:
            published_frames: The frames of all broadcasters together.
            ended_early: Why the test did not reach its planned end; None when it did.
            server_name: The server's process, for people; None when it was not observed.
            notes: Sentences for the person.
        """
        reports = self._reports
        window = 0.0 if self._began is None else self._last - self._began
        return LoadResult(
            plan=self._plan,
            played_seconds=published_frames / self._plan.sessions / self._plan.fps,
            published_frames=published_frames,
            ended_early=ended_early,
            latency=self._latency,
            joins=self._joins,
            received_bytes=self._received_bytes,
            healthy=sum((report.healthy for report in reports), Accounts()),
            slow=sum((report.slow for report in reports), Accounts()),
            failures=self.failures,
            closes=_sum(report.closes for report in reports),
            slow_closes=_sum(report.slow_closes for report in reports),
            seconds=tuple(self._seconds),
            generator=tuple(line.use(window) for line in self._lines),
            clock_uncertainty_ms=self._uncertainty_ms,
            server=self._server_use(server_name, window),
            notes=tuple(notes),
        )

    def _server_use(self, name: str | None, window_seconds: float) -> ServerUse | None:
        before, begin, last = self._server_before, self._server_begin, self._server_last
        if name is None or before is None or begin is None or last is None:
            return None
        return ServerUse(
            name=name,
            cpu_seconds=last.cpu_seconds - begin.cpu_seconds,
            window_seconds=window_seconds,
            window_frames=self._window_frames,
            join_cpu_seconds=begin.cpu_seconds - before.cpu_seconds,
            early_joins=self._early_joins,
            rss_before=before.rss,
            rss_peak=self._rss_peak,
            uss_before=before.uss,
            uss_peak=self._uss_peak,
        )

    def add(self, reports: Sequence[Report]) -> Histogram:
        """Add reports, and return their latencies."""
        latency = Histogram()
        for report in reports:
            latency.merge(report.latency)
            self._joins.merge(report.joins)
            self._received_bytes += report.received_bytes
        self._latency.merge(latency)
        self._reports = reports
        return latency

    def _note_server(self, server: ServerSample | None) -> None:
        if server is None:
            return
        self._server_last = server
        self._rss_peak = max(self._rss_peak, server.rss)
        if server.uss is not None:
            self._uss_peak = max(self._uss_peak or 0, server.uss)


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common())
