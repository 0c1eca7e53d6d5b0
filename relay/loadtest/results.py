"""The findings of a load test: plain values, the named figures derived from them, and conditions on those figures.

One finding is whether the load generator was the bottleneck. Then its latencies say nothing about the server.
"""

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from relay.loadtest.account import LEFT, NORMAL_CLOSE, STILL_OPEN, Accounts, percent
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import LoadPlan
from relay.loadtest.target import LatencyFrom
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import UserError

BUSY_LIMIT_PERCENT = 85.0
"""A process that is busier than this in a second lets frames wait in its sockets, and measures its own queue."""

LAG_LIMIT_MS = 25.0
"""A longer wait of an event in the generator shows in the percentiles."""

ADVICE = "Use more processes (--processes), fewer listeners, or another machine or CPUs (--pin) that nothing else uses."
"""What a person can do about a bottleneck."""

_MEGABYTE = 1_000_000
_KIB = 1024
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(
    r"\s*(?P<metric>\w+)\s*(?P<comparison>>=|<=|==|!=|>|<)\s*(?P<number>-?[0-9]+(\.[0-9]+)?)\s*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ServerSample:
    """What the server's processes have used so far, together.

    Attributes:
        cpu_seconds: User and system time.
        rss: Resident memory in bytes.
        uss: Memory that only these processes use, in bytes; None if it was not requested or this user may not see it.
    """

    cpu_seconds: float
    rss: int
    uss: int | None


@dataclass(frozen=True, slots=True)
class ServerUse:
    """What the server used on this machine.

    Attributes:
        name: Its process, for people.
        cpu_seconds: CPU time of all its processes, from the first frame until half a second after the last.
        window_seconds: The length of that time.
        window_frames: Frames that reached a listener in that time.
        join_cpu_seconds: CPU time from before the first join until the first frame.
        early_joins: Listeners that joined in that time.
        rss_before: Resident memory before the listeners joined, in bytes.
        rss_peak: The largest resident memory observed.
        uss_before: Memory that only it uses, before the listeners joined, in bytes; None if not reported.
        uss_peak: The largest such memory observed.
    """

    name: str
    cpu_seconds: float
    window_seconds: float
    window_frames: int
    join_cpu_seconds: float
    early_joins: int
    rss_before: int
    rss_peak: int
    uss_before: int | None
    uss_peak: int | None


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process of the generator used while the audio played.

    Attributes:
        name: For people.
        receives: Whether it receives; otherwise it is the main process, which broadcasts and reports.
        cpu_seconds: Its CPU time.
        busy_percent: Its CPU time as a share of one CPU.
        worst_busy_percent: The same in its busiest second, plus the time that it waited for a CPU.
        worst_waiting_percent: The share of that second in which it waited for a CPU.
        busy_seconds: In how many seconds it exceeded `BUSY_LIMIT_PERCENT`.
        lag_ms: The longest time that an event waited for its turn; for the main process, how late it sent a frame.
    """

    name: str
    receives: bool
    cpu_seconds: float
    busy_percent: float
    worst_busy_percent: float
    worst_waiting_percent: float
    busy_seconds: int
    lag_ms: float

    @property
    def problems(self) -> list[str]:
        """One sentence for each way in which it was too busy or too late."""
        sentences = []
        if self.busy_seconds:
            waiting = self.worst_waiting_percent
            shared = f", {waiting:.0f} % of it waiting for a CPU that others had" if waiting >= 1 else ""
            sentences.append(
                f"{self.name} was busy for up to {self.worst_busy_percent:.0f} % of a second{shared} "
                f"(over {BUSY_LIMIT_PERCENT:.0f} % for {self.busy_seconds} s)."
            )
        if self.lag_ms > LAG_LIMIT_MS:
            did = "let an event wait" if self.receives else "sent a frame late by"
            sentences.append(f"{self.name} {did} {self.lag_ms:.0f} ms.")
        return sentences


@dataclass(frozen=True, slots=True)
class Second:
    """One interval of the test, about a second.

    Attributes:
        at_seconds: Its end, in seconds after the audio began.
        length_seconds: Its length.
        connected: Listeners at its end.
        frames: Frames delivered in it.
        received_bytes: Bytes received in it.
        gap_frames: Frames lost in it.
        p50_ms: Median latency; None without frames.
        p99_ms: Latency that 99 % of frames keep to; None without frames.
        max_ms: Largest latency; None without frames.
        generator_busy_percent: The busiest receiving process, including time that it waited for a CPU.
        server_cpu_percent: Share of one CPU; None when the server runs elsewhere.
    """

    at_seconds: float
    length_seconds: float
    connected: int
    frames: int
    received_bytes: int
    gap_frames: int
    p50_ms: int | None
    p99_ms: int | None
    max_ms: int | None
    generator_busy_percent: float
    server_cpu_percent: float | None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Everything that a load test measured.

    Attributes:
        plan: The parameters of the test.
        played_seconds: How long audio was sent.
        published_frames: Frames sent by all broadcasters together.
        measured_at: When the test ran, for people; empty if unknown.
        ended_early: Why the test did not reach its planned end, as one sentence; None when it did.
        latency: How late each frame was, for listeners that read.
        latency_from: What the latency counts from.
        joins: How long each join took.
        received_bytes: Bytes for listeners that read.
        healthy: The accounts of listeners that read.
        slow: The accounts of listeners that did not read.
        failures: Reasons why listeners could not join, with counts.
        closes: How connections ended, with counts: a close code with its reason, `LEFT` or `STILL_OPEN`.
        slow_closes: The same for listeners that did not read.
        seconds: The intervals of the audio.
        generator: The processes of the generator, receiving ones first.
        clock_uncertainty_ms: How far off latencies may be because two clocks were compared; None with one clock.
        server: What the server used; None when it runs elsewhere or cannot be observed.
        notes: Sentences about the test, for the person.
    """

    plan: LoadPlan
    played_seconds: float
    published_frames: int
    measured_at: str = ""
    ended_early: str | None = None
    latency: Histogram = field(default_factory=Histogram)
    latency_from: LatencyFrom = LatencyFrom.BROADCASTER
    joins: Histogram = field(default_factory=Histogram)
    received_bytes: int = 0
    healthy: Accounts = field(default_factory=Accounts)
    slow: Accounts = field(default_factory=Accounts)
    failures: Mapping[str, int] = field(default_factory=dict)
    closes: Mapping[str, int] = field(default_factory=dict)
    slow_closes: Mapping[str, int] = field(default_factory=dict)
    seconds: tuple[Second, ...] = ()
    generator: tuple[ProcessUse, ...] = ()
    clock_uncertainty_ms: float | None = None
    server: ServerUse | None = None
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The parameters of the test, in one line."""
        plan = self.plan
        sessions = f"{plan.sessions} sessions" if plan.sessions > 1 else "1 session"
        packed = f", up to {plan.packet_ms} ms in a message" if plan.packet_ms else ""
        codecs = f", sent as {plan.source_codec} and heard as {plan.codec}{packed}"
        is_plain = plan.codec is plan.source_codec is Codec.PCM_S16LE
        return (
            f"{plan.profile}: {plan.listeners:,} listeners of {sessions} at {plan.url}, {plan.duration_seconds:g} s of "
            f"{plan.fps} frames/s with {plan.frame_ms} ms each{'' if is_plain else codecs}"
        )

    @property
    def bottlenecks(self) -> list[str]:
        """Sentences about where the generator was too slow for its figures to be the server's."""
        return [sentence for process in self.generator for sentence in process.problems]

    @property
    def receiving(self) -> list[ProcessUse]:
        """The processes that receive."""
        return [process for process in self.generator if process.receives]

    @property
    def late_frames(self) -> int:
        """The number of frames later than `LoadPlan.late_ms`."""
        return self.latency.count_above(self.plan.late_ms)

    def a_second(self, amount: float) -> float | None:
        """Return an amount of the whole test per second of audio; None without audio."""
        return amount / self.played_seconds if self.played_seconds else None

    @property
    def kilobits_per_listener(self) -> float | None:
        """Kilobits a second that a listener received, over all listeners that read; None without any."""
        reading = sum((second.connected - self.slow.connections) * second.length_seconds for second in self.seconds)
        received_bytes = sum(second.received_bytes for second in self.seconds)
        return received_bytes * 8 / 1000 / reading if reading > 0 else None

    def metrics(self) -> dict[str, float | None]:
        """Return the value of each of `METRICS`, in that order; None where this run could not measure it."""
        return {name: metric.measure(self) for name, metric in METRICS.items()}

    def to_json(self) -> dict[str, Any]:
        """Return everything in a form that `json.dumps` accepts, `metrics` first."""
        rest = {name: getattr(self, name) for name in self.__slots__}
        rest["plan"] = asdict(self.plan)
        rest["latency"], rest["joins"] = self.latency.to_json(), self.joins.to_json()
        rest["healthy"], rest["slow"] = asdict(self.healthy), asdict(self.slow)
        rest["seconds"] = [asdict(second) for second in self.seconds]
        rest["generator"] = [asdict(process) for process in self.generator]
        rest["server"] = None if self.server is None else asdict(self.server)
        return {"metrics": self.metrics(), "bottlenecks": self.bottlenecks, **rest}


@dataclass(frozen=True, slots=True)
class Metric:
    """A named figure for `--fail-if`, the JSON and the table.

    Attributes:
        meaning: For people.
        measure: Computes its value from a result; None if the run could not measure it.
    """

    meaning: str
    measure: Callable[[LoadResult], float | None]


def _of_server(meaning: str, measure: Callable[[ServerUse], float | None]) -> Metric:
    return Metric(meaning, lambda result: None if result.server is None else measure(result.server))


def _kib_per_listener(result: LoadResult) -> float | None:
    server = result.server
    if server is None or server.uss_before is None or server.uss_peak is None:
        return None
    return (server.uss_peak - server.uss_before) / _KIB / result.plan.listeners


def _megabytes(byte_count: int | None) -> float | None:
    return None if byte_count is None else byte_count / _MEGABYTE


def unplanned(closes: Mapping[str, int]) -> dict[str, int]:
    """Return the unexpected ends of connections: not `NORMAL_CLOSE`, `LEFT` or `STILL_OPEN`."""
    return {how: count for how, count in closes.items() if how not in (NORMAL_CLOSE, LEFT, STILL_OPEN)}


METRICS: dict[str, Metric] = {
    "p50_ms": Metric("delivery latency, median", lambda result: result.latency.percentile(50)),
    "p90_ms": Metric(
        "delivery latency that 90 % of frames do not exceed", lambda result: result.latency.percentile(90)
    ),
    "p99_ms": Metric(
        "delivery latency that 99 % of frames do not exceed", lambda result: result.latency.percentile(99)
    ),
    "p999_ms": Metric(
        "delivery latency that 99.9 % of frames do not exceed", lambda result: result.latency.percentile(99.9)
    ),
    "max_ms": Metric("delivery latency, worst frame", lambda result: result.latency.maximum),
    "late_frames": Metric("frames with a latency above --late-ms", lambda result: result.late_frames),
    "late_percent": Metric(
        "share of frames with a latency above --late-ms",
        lambda result: percent(result.late_frames, result.latency.total),
    ),
    "published_frames": Metric("frames that the broadcasters sent", lambda result: result.published_frames),
    "delivered_frames": Metric(
        "frames that reached a listener, each counted for each listener", lambda result: result.latency.total
    ),
    "frames_per_second": Metric("delivered frames per second", lambda result: result.a_second(result.latency.total)),
    "bytes_per_second": Metric(
        "received bytes per second, WebSocket headers included", lambda result: result.a_second(result.received_bytes)
    ),
    "kbps_per_listener": Metric(
        "received kilobits per second of each listener, WebSocket headers included",
        lambda result: result.kilobits_per_listener,
    ),
    "gaps": Metric("gaps that the relay reported", lambda result: result.healthy.gaps),
    "gap_frames": Metric("frames lost in those gaps", lambda result: result.healthy.gap_frames),
    "loss_percent": Metric(
        "share of frames lost in gaps, over all listeners", lambda result: result.healthy.loss_percent
    ),
    "worst_listener_loss_percent": Metric(
        "share of frames lost in gaps, of the listener that lost the most",
        lambda result: result.healthy.worst_loss_percent,
    ),
    "unaccounted_frames": Metric(
        "frames missing without a gap, or received twice: always 0 with a correct relay",
        lambda result: result.healthy.unaccounted + result.slow.unaccounted,
    ),
    "undelivered_frames": Metric(
        "frames that had not arrived when the test stopped waiting", lambda result: result.healthy.undelivered
    ),
    "joins": Metric("listeners that joined", lambda result: result.joins.total),
    "join_failures": Metric("listeners that could not join", lambda result: sum(result.failures.values())),
    "join_p50_ms": Metric("from connecting to the greeting, median", lambda result: result.joins.percentile(50)),
    "join_p99_ms": Metric("from connecting to the greeting, 99 % of joins", lambda result: result.joins.percentile(99)),
    "join_max_ms": Metric("from connecting to the greeting, longest", lambda result: result.joins.maximum),
    "disconnects": Metric(
        "listeners that lost their connection before the end", lambda result: sum(unplanned(result.closes).values())
    ),
    "slow_disconnects": Metric(
        "listeners that did not read and were cut off before the end",
        lambda result: sum(unplanned(result.slow_closes).values()),
    ),
    "generator_busy_percent": Metric(
        "CPU use of the busiest receiving process in its busiest second, including the wait for a CPU",
        lambda result: max((use.worst_busy_percent for use in result.receiving), default=None),
    ),
    "generator_lag_ms": Metric(
        "longest time that an event waited in a receiving process",
        lambda result: max((use.lag_ms for use in result.receiving), default=None),
    ),
    "generator_bottleneck": Metric(
        "1 if the load generator was too busy to measure the server's latencies, else 0",
        lambda result: int(bool(result.bottlenecks)),
    ),
    "server_cpu_seconds": _of_server("CPU time of the server while the audio played", lambda use: use.cpu_seconds),
    "server_cpu_percent": _of_server(
        "the same, as a share of one CPU", lambda use: percent(use.cpu_seconds, use.window_seconds)
    ),
    "server_cpu_us_per_delivery": _of_server(
        "the same, in microseconds for each frame delivered to a listener meanwhile",
        lambda use: use.cpu_seconds * 1e6 / use.window_frames if use.window_frames else None,
    ),
    "server_cpu_us_per_join": _of_server(
        "CPU time of the server until the audio began, in microseconds for each listener that joined",
        lambda use: use.join_cpu_seconds * 1e6 / use.early_joins if use.early_joins else None,
    ),
    "server_rss_before_mb": _of_server(
        "resident memory of the server before the listeners, MB", lambda use: _megabytes(use.rss_before)
    ),
    "server_rss_peak_mb": _of_server(
        "resident memory of the server, highest value, MB", lambda use: _megabytes(use.rss_peak)
    ),
    "server_uss_before_mb": _of_server(
        "memory that only the server uses, before the listeners, MB", lambda use: _megabytes(use.uss_before)
    ),
    "server_uss_peak_mb": _of_server(
        "memory that only the server uses, highest value, MB", lambda use: _megabytes(use.uss_peak)
    ),
    "server_kib_per_listener": Metric("growth of the server's own memory (USS) per listener, KiB", _kib_per_listener),
}
"""The figures by name, in the order of the documentation."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition.

    Attributes:
        metric: A name of `METRICS`.
        comparison: `>`, `>=`, `<`, `<=`, `==` or `!=`.
        number: The number to compare the metric with.
    """

    metric: str
    comparison: str
    number: float

    def __str__(self) -> str:
        return f"{self.metric}{self.comparison}{self.number:g}"

    def holds(self, metrics: Mapping[str, float | None]) -> bool:
        """Whether the condition fails the test. A metric that could not be measured fails its conditions."""
        value = metrics[self.metric]
        return value is None or _COMPARISONS[self.comparison](value, self.number)


def parse_condition(text: str) -> Condition:
    """Parse a condition.

    Raises:
        UserError: The text has the wrong form or names no metric. The message says what would be right.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"--fail-if {text!r} is not a metric, one of {' '.join(_COMPARISONS)}, and a number, such as 'p99_ms>200'."
        )
    metric = found["metric"]
    if metric not in METRICS:
        nearest = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"--fail-if {text!r}: {metric} is not measured; the nearest is {nearest}. All are: {', '.join(METRICS)}."
        )
    return Condition(metric, found["comparison"], float(found["number"]))
