"""What a load test found: plain values, and the named figures made of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from relay.loadtest.account import Accounts, percent
from relay.loadtest.expect import LatencyFrom
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import LoadPlan
from relay.loadtest.verdict import ProcessUse, bottlenecks
from relay.loadtest.worker_messages import LEFT, NORMAL_CLOSE, STILL_OPEN

_MEGABYTE = 1_000_000
_KIB = 1024


@dataclass(frozen=True, slots=True)
class ServerSample:
    """What the server's processes used so far, together.

    Attributes:
        cpu_seconds: User and system time.
        rss: Resident memory, bytes.
        uss: Memory that only they use, bytes; None when it was not asked for, or is not told to this user.
    """

    cpu_seconds: float
    rss: int
    uss: int | None


@dataclass(frozen=True, slots=True)
class ServerUse:
    """What the server used on this machine.

    Attributes:
        name: Its process, for people.
        cpu_seconds: All its processes together, from the first frame until half a second after the last.
        window_seconds: How long that was.
        window_frames: Frames that reached a listener in that time; what came later cost later.
        rss_before: Resident memory before the listeners came, bytes.
        rss_peak: The most that was seen.
        uss_before: Memory that only it uses, likewise; None when the system does not tell.
        uss_peak: The most that was seen.
    """

    name: str
    cpu_seconds: float
    window_seconds: float
    window_frames: int
    rss_before: int
    rss_peak: int
    uss_before: int | None
    uss_peak: int | None


@dataclass(frozen=True, slots=True)
class Second:
    """One interval of the test, about a second.

    Attributes:
        at_seconds: Its end, after the audio began.
        length_seconds: Its length.
        connected: Listeners at its end.
        frames: Delivered in it.
        received_bytes: In it.
        gap_frames: Lost in it.
        p50_ms: Latency in it, None when no frame came.
        p99_ms: Likewise.
        max_ms: Likewise.
        generator_busy_percent: Of the busiest receiving process, waiting for a CPU included.
        server_cpu_percent: Of one CPU; None when the server is elsewhere.
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
    """What was measured.

    Attributes:
        plan: What was asked.
        played_seconds: How long audio was sent.
        published_frames: Sent by all broadcasters together.
        measured_at: When, for people; empty when nobody said.
        ended_early: Why the test did not come to its planned end, one sentence; None when it did.
        latency: How late each frame was, of listeners that read.
        latency_from: What it counts from.
        joins: How long each join took.
        received_bytes: Of listeners that read.
        healthy: The accounts of listeners that read.
        slow: The accounts of those who did not.
        failures: Why listeners could not join, and how often.
        closes: How connections ended: a close code with its reason, `LEFT` or `STILL_OPEN`, and how often.
        slow_closes: Likewise, of those who did not read.
        seconds: What happened when.
        generator: The processes of the generator; the receiving ones first.
        clock_uncertainty_ms: How far off all latencies may be for the comparison of two clocks; None without one.
        server: What the server used; None when it is not on this machine, or nothing can tell.
        notes: Sentences about the test for the person.
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
        """What was asked, in a line."""
        plan = self.plan
        sessions = f"{plan.sessions} sessions" if plan.sessions > 1 else "1 session"
        return (
            f"{plan.profile}: {plan.listeners:,} listeners of {sessions} at {plan.url}, "
            f"{plan.duration_seconds:g} s of {plan.fps} frames/s with {plan.frame_ms} ms each"
        )

    @property
    def bottlenecks(self) -> list[str]:
        """Say in what the generator was too slow for its figures to be the server's; nothing when it was not."""
        return bottlenecks(self.generator)

    def metrics(self) -> dict[str, float | None]:
        """Give all figures of `METRICS`, in that order; None is what this run could not measure."""
        latency, joins, healthy = self.latency, self.joins, self.healthy
        frames = latency.total
        receiving = [process for process in self.generator if process.receives]
        late = latency.count_above(self.plan.late_ms)
        played = self.played_seconds
        return {
            "p50_ms": latency.percentile(50),
            "p90_ms": latency.percentile(90),
            "p99_ms": latency.percentile(99),
            "p999_ms": latency.percentile(99.9),
            "max_ms": latency.maximum,
            "late_frames": late,
            "late_percent": percent(late, frames),
            "published_frames": self.published_frames,
            "delivered_frames": frames,
            "frames_per_second": frames / played if played else None,
            "bytes_per_second": self.received_bytes / played if played else None,
            "gaps": healthy.gaps,
            "gap_frames": healthy.gap_frames,
            "loss_percent": healthy.loss_percent,
            "worst_listener_loss_percent": healthy.worst_loss_percent,
            "unaccounted_frames": healthy.unaccounted + self.slow.unaccounted,
            "undelivered_frames": healthy.undelivered,
            "joins": joins.total,
            "join_failures": sum(self.failures.values()),
            "join_p50_ms": joins.percentile(50),
            "join_p99_ms": joins.percentile(99),
            "join_max_ms": joins.maximum,
            "disconnects": sum(unplanned(self.closes).values()),
            "slow_disconnects": sum(unplanned(self.slow_closes).values()),
            "generator_busy_percent": max((process.worst_busy_percent for process in receiving), default=None),
            "generator_lag_ms": max((process.lag_ms for process in receiving), default=None),
            "generator_bottleneck": int(bool(self.bottlenecks)),
            **self._server_metrics(),
        }

    def _server_metrics(self) -> dict[str, float | None]:
        server = self.server
        if server is None:
            return dict.fromkeys(_SERVER_METRICS)
        growth = None
        if server.uss_before is not None and server.uss_peak is not None:
            growth = (server.uss_peak - server.uss_before) / _KIB / self.plan.listeners
        values = (
            server.cpu_seconds,
            percent(server.cpu_seconds, server.window_seconds),
            server.cpu_seconds * 1e6 / server.window_frames if server.window_frames else None,
            _megabytes(server.rss_before),
            _megabytes(server.rss_peak),
            _megabytes(server.uss_before),
            _megabytes(server.uss_peak),
            growth,
        )
        return dict(zip(_SERVER_METRICS, values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Give everything as what `json.dumps` takes; `metrics` first."""
        rest = {name: getattr(self, name) for name in self.__slots__}
        rest["plan"] = asdict(self.plan)
        rest["latency"], rest["joins"] = self.latency.to_json(), self.joins.to_json()
        rest["healthy"], rest["slow"] = asdict(self.healthy), asdict(self.slow)
        rest["seconds"] = [asdict(second) for second in self.seconds]
        rest["generator"] = [asdict(process) for process in self.generator]
        rest["server"] = None if self.server is None else asdict(self.server)
        return {"metrics": self.metrics(), "bottlenecks": self.bottlenecks, **rest}


_SERVER_METRICS = (
    "server_cpu_seconds",
    "server_cpu_percent",
    "server_cpu_us_per_delivery",
    "server_rss_before_mb",
    "server_rss_peak_mb",
    "server_uss_before_mb",
    "server_uss_peak_mb",
    "server_kib_per_listener",
)


def _megabytes(byte_count: int | None) -> float | None:
    return None if byte_count is None else byte_count / _MEGABYTE


def unplanned(closes: Mapping[str, int]) -> dict[str, int]:
    """Give how connections ended that were neither closed with their session nor given up as planned."""
    return {how: count for how, count in closes.items() if how not in (NORMAL_CLOSE, LEFT, STILL_OPEN)}
