"""What one listener is owed and what it got, to the frame.

Invariant: every frame since the first that the connection accounts for is delivered, named by a gap, or counted as
unaccounted; so is every frame or gap that nobody owed. A relay that keeps its promise leaves `unaccounted` at 0.
"""

from dataclasses import dataclass

from relay.protocol.messages import Gap
from relay.protocol.wire import WORD_MASK, serial_difference


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
        """Count a gap that the relay told; gives how many frames it named."""
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
        """Give how many frames are missing, or too many, when the epoch has `published` frames."""
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
        """Give both together."""
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


def percent(part: float, whole: float) -> float | None:
    """Give how many per cent `part` is of `whole`; None of nothing."""
    return 100 * part / whole if whole else None
