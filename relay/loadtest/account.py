"""Accounts for every frame that a listener is owed, and sums the accounts of a process into a report.

Invariants: every frame since the connection began is delivered, named by a gap, or counted as unaccounted. So is every
frame or gap that the relay did not owe. A correct relay leaves `unaccounted` at 0. Each connection is counted once,
when it is over: as a failure to join, or as closed, with its account.
"""

from collections import Counter
from dataclasses import dataclass, field

from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import Visit
from relay.media.opus_grid import OpusGrid
from relay.protocol.messages import Gap
from relay.protocol.wire import WORD_MASK, serial_difference
from relay.vocabulary.opus_packet import CLOCK_RATE

NORMAL_CLOSE = "1000"
"""The relay closed the connection at the end of its session."""

LEFT = "left"
"""The listener left, as planned."""

STILL_OPEN = "still open"
"""Nobody had closed the connection when the test stopped waiting."""

MAX_REASONS = 50
"""How many different reasons are counted separately. Later ones count as `OTHER`."""

OTHER = "other reasons"


class ListenerAccount:
    """One listener's account.

    Attributes:
        epoch: The epoch of the sequence numbers; None until the first is known.
        next_seq: The frame that must come next.
        delivered: Frames that arrived.
        gap_frames: Frames that the relay reported as dropped.
        gaps: How many times it reported a gap.
        unaccounted: Frames missing without a gap, and frames or gaps that were repeated or unexpected.
    """

    __slots__ = ("delivered", "epoch", "gap_frames", "gaps", "next_seq", "unaccounted")

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.next_seq = 0
        self.delivered = 0
        self.gap_frames = 0
        self.gaps = 0
        self.unaccounted = 0

    def begin(self, epoch: int, next_seq: int) -> None:
        """Set the first frame of this connection or of a new epoch."""
        self.epoch, self.next_seq = epoch, next_seq

    def frame(self, epoch: int, seq: int) -> None:
        """Count a frame that arrived, whether or not it was the expected one."""
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
        """Count a gap that the relay reported, and return how many frames it named."""
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
        """Return by how many frames the account differs from an epoch of `published` frames."""
        return abs(serial_difference(published, self.next_seq))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The sum of many connections' accounts. Each is added when its connection is over.

    Attributes:
        connections: How many connections.
        delivered: Frames that arrived.
        gap_frames: Frames that the relay reported as dropped.
        gaps: How many times it reported a gap.
        unaccounted: Frames missing without a gap, and frames or gaps that were repeated or unexpected.
        undelivered: Frames still outstanding when the test stopped waiting.
        worst_loss_percent: The largest share of frames that one connection lost in gaps.
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
        """Close one account and add what its end showed to be missing."""
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
        """The share of all frames that gaps named; None without frames."""
        return percent(self.gap_frames, self.delivered + self.gap_frames)


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in a receiving process since its last report, unless stated otherwise.

    Attributes:
        joining: Current connections from before the audio that have neither joined nor failed yet.
        connected: Current listeners.
        latency: How late frames were, for listeners that read.
        joins: How long joining took.
        received_bytes: Bytes for listeners that read, including all WebSocket headers.
        gap_frames: Frames that gaps named, for listeners that read.
        lag_ms: The longest time that an event may have waited for its turn.
        cpu_seconds: CPU time since the process began.
        waiting_seconds: Time since it began in which it waited for a CPU; None if the system does not count that.
        clock_uncertainty_ms: How far off latencies may be because a relay's clock is compared with ours; None if none
            is.
        failures: Reasons why connections never joined, with counts since the process began.
        closes: How connections of listeners that read ended, with counts since the process began.
        slow_closes: The same for listeners that did not read.
        healthy: The sum of the closed accounts of listeners that read, since the process began.
        slow: The same for listeners that did not read.
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
    clock_uncertainty_ms: float | None = None
    failures: dict[str, int] = field(default_factory=dict)
    closes: dict[str, int] = field(default_factory=dict)
    slow_closes: dict[str, int] = field(default_factory=dict)
    healthy: Accounts = field(default_factory=Accounts)
    slow: Accounts = field(default_factory=Accounts)


class Counts:
    """What a receiving process counts between reports, apart from latencies."""

    def __init__(self) -> None:
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
            visit: The plan of the connection.
            account: What it received.
            how: `NORMAL_CLOSE`, `LEFT`, `STILL_OPEN`, or a close code with its reason.
            published: How many frames its channel got in all; None if that is not known yet.
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
        """Return all counts, and reset those that belong to an interval."""
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


def encoded_frames(audio_ms: int, frame_ticks: int) -> int:
    """Return in how many Opus packets a relay sends so much audio of one epoch.

    The last one also holds what the encoder looked ahead, and is padded with silence.

    Args:
        audio_ms: What the broadcaster sent.
        frame_ticks: The duration of a packet, in ticks of 48 kHz.
    """
    grid = OpusGrid(CLOCK_RATE, frame_ticks * 1000 // CLOCK_RATE)
    return grid.last_before(audio_ms * CLOCK_RATE // 1000) + 1


def percent(part: float, whole: float) -> float | None:
    """Return `part` as a percentage of `whole`; None if `whole` is 0."""
    return 100 * part / whole if whole else None
