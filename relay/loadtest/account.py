"""What listeners are owed and what they got: the account of each, to the frame, and their sum in a process's report.

Invariants: every frame since the first that the connection accounts for is delivered, named by a gap, or counted as
unaccounted; so is every frame or gap that nobody owed. A relay that keeps its promise leaves `unaccounted` at 0. Each
connection is counted once, when it is over: as a failure to join, or as closed, with its account.
"""

from collections import Counter
from dataclasses import dataclass, field

from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import Visit
from relay.protocol.messages import Gap
from relay.protocol.wire import WORD_MASK, serial_difference

NORMAL_CLOSE = "1000"
"""How connections end that the relay closed with their session."""

LEFT = "left"
"""How connections end that were given up as planned."""

STILL_OPEN = "still open"
"""How connections end that nobody closed until the test stopped waiting."""

MAX_REASONS = 50
"""How many different reasons are told apart; later ones count as `OTHER`."""

OTHER = "other reasons"


class ListenerAccount:
    """One listener's account.

    Attributes:
        epoch: The run of numbers it is in; None before the first is known.
        next_seq: The frame that must come next.
        delivered: Frames that came.
        gap_frames: Frames that the relay said it dropped.
        gaps: How many times it said so.
        unaccounted: Frames missing without a word, and frames or gaps that came twice or from nowhere.
    """

    __slots__ = ("delivered", "epoch", "gap_frames", "gaps", "next_seq", "unaccounted")

    def __init__(self) -> None:
        """Open an account that does not know yet where it begins."""
        self.epoch: int | None = None
        self.next_seq = 0
        self.delivered = 0
        self.gap_frames = 0
        self.gaps = 0
        self.unaccounted = 0

    def begin(self, epoch: int, next_seq: int) -> None:
        """Note which frame comes first, of this connection or of a new epoch."""
        self.epoch, self.next_seq = epoch, next_seq

    def frame(self, epoch: int, seq: int) -> None:
        """Count a frame that came; one that was not due next counts as what it is."""
        if epoch != self.epoch:
            if self.epoch is not None:
                self.unaccounted += 1
            self.epoch = epoch
        else:
            missing = serial_difference(seq, self.next_seq)
            if missing < 0:
                self.unaccounted += 1
                return
            self.unaccounted += missing
        self.delivered += 1
        self.next_seq = (seq + 1) & WORD_MASK

    def gap(self, gap: Gap) -> int:
        """Count a gap that the relay told, and return how many frames it named."""
        frames = (gap.to_seq - gap.from_seq + 1) & WORD_MASK
        self.gaps += 1
        self.gap_frames += frames
        if gap.epoch != self.epoch:
            self.unaccounted += frames
            return frames
        self.unaccounted += abs(serial_difference(gap.from_seq, self.next_seq))
        self.next_seq = (gap.to_seq + 1) & WORD_MASK
        return frames

    def owed(self, published: int) -> int:
        """Return how many frames are missing, or too many, when the epoch has `published` frames."""
        return abs(serial_difference(published, self.next_seq))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of many connections, summed up when each is over.

    Attributes:
        connections: How many.
        delivered: Frames that came.
        gap_frames: Frames that the relay said it dropped.
        gaps: How many times it said so.
        unaccounted: Frames missing without a word, and frames or gaps that came twice or from nowhere.
        undelivered: Frames that were still to come when the test stopped waiting for them.
        worst_loss_percent: Of the connection that lost most, the share of its frames that gaps named.
    """

    connections: int = 0
    delivered: int = 0
    gap_frames: int = 0
    gaps: int = 0
    unaccounted: int = 0
    undelivered: int = 0
    worst_loss_percent: float = 0.0

    @classmethod
    def of(cls, account: ListenerAccount, *, unaccounted: int = 0, undelivered: int = 0) -> "Accounts":
        """Close one account, with what its end showed to be missing."""
        return cls(
            connections=1,
            delivered=account.delivered,
            gap_frames=account.gap_frames,
            gaps=account.gaps,
            unaccounted=account.unaccounted + unaccounted,
            undelivered=undelivered,
            worst_loss_percent=percent(account.gap_frames, account.delivered + account.gap_frames) or 0.0,
        )

    def __add__(self, other: "Accounts") -> "Accounts":
        """Return the sum of both."""
        return Accounts(
            self.connections + other.connections,
            self.delivered + other.delivered,
            self.gap_frames + other.gap_frames,
            self.gaps + other.gaps,
            self.unaccounted + other.unaccounted,
            self.undelivered + other.undelivered,
            max(self.worst_loss_percent, other.worst_loss_percent),
        )

    @property
    def loss_percent(self) -> float | None:
        """The share of all frames that gaps named; None when there were none."""
        return percent(self.gap_frames, self.delivered + self.gap_frames)


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in a receiving process; amounts are since its last report unless said otherwise.

    Attributes:
        joining: Connections of before the audio that neither joined nor failed yet, now.
        connected: Listeners that are there, now.
        latency: How late frames were, of listeners that read.
        joins: How long joining took.
        received_bytes: Of listeners that read, with all headers of WebSocket.
        gap_frames: Frames that gaps named, of listeners that read.
        lag_ms: The longest that an event may have waited for its turn.
        cpu_seconds: CPU time since the process began.
        waiting_seconds: Time since it began in which it wanted a CPU and others had it; None where nobody counts that.
        clock_offset_ms: The relay's clock less ours, the middle of what is possible; None while nothing is known.
        clock_uncertainty_ms: How far from it the truth may be.
        failures: Why connections never joined, and how often, since the process began.
        closes: How connections of listeners that read ended, and how often, since the process began.
        slow_closes: Likewise, of listeners that did not read.
        healthy: The sum of the closed accounts of listeners that read, since the process began.
        slow: Likewise, of listeners that did not read.
    """

    joining: int = 0
    connected: int = 0
    latency: Histogram = field(default_factory=Histogram)
    joins: Histogram = field(default_factory=Histogram)
    received_bytes: int = 0
    gap_frames: int = 0
    lag_ms: float = 0.0
    cpu_seconds: float = 0.0
    waiting_seconds: float | None = None
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    closes: dict[str, int] = field(default_factory=dict)
    slow_closes: dict[str, int] = field(default_factory=dict)
    healthy: Accounts = field(default_factory=Accounts)
    slow: Accounts = field(default_factory=Accounts)


class Counts:
    """What a receiving process counts beside the latencies, until it reports them."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.joins = Histogram()
        self.received_bytes = 0
        self.gap_frames = 0
        self._failures: Counter[str] = Counter()
        self._closes: Counter[str] = Counter()
        self._slow_closes: Counter[str] = Counter()
        self._healthy = Accounts()
        self._slow = Accounts()

    def failed(self, reason: str) -> None:
        """Count a connection that never joined."""
        _count(self._failures, reason)

    def closed(self, visit: Visit, account: ListenerAccount, how: str, published: int | None) -> None:
        """Close the account of a connection that had joined.

        Args:
            visit: What it was for.
            account: What it got.
            how: `NORMAL_CLOSE`, `LEFT`, `STILL_OPEN`, or a close code with its reason.
            published: How many frames its channel got in all; None before that is known.
        """
        _count(self._closes if visit.reads else self._slow_closes, how)
        owed = 0 if published is None else account.owed(published)
        closed = Accounts.of(
            account,
            unaccounted=owed if how == NORMAL_CLOSE else 0,
            undelivered=owed if how == STILL_OPEN else 0,
        )
        if visit.reads:
            self._healthy += closed
        else:
            self._slow += closed

    def report(self) -> Report:
        """Return all counts, and begin anew with those that are of an interval."""
        report = Report(
            joins=self.joins,
            received_bytes=self.received_bytes,
            gap_frames=self.gap_frames,
            failures=dict(self._failures),
            closes=dict(self._closes),
            slow_closes=dict(self._slow_closes),
            healthy=self._healthy,
            slow=self._slow,
        )
        self.joins = Histogram()
        self.received_bytes = self.gap_frames = 0
        return report


def _count(reasons: Counter[str], reason: str) -> None:
    reasons[reason if reason in reasons or len(reasons) < MAX_REASONS else OTHER] += 1


def percent(part: float, whole: float) -> float | None:
    """Return how many per cent `part` is of `whole`; None of nothing."""
    return 100 * part / whole if whole else None
