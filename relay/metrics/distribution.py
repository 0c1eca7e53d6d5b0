"""How often values fell into fixed ranges: constant memory and constant time, whatever is counted.

Invariant: `counts` and `total` only grow, so what happened between two looks is their difference.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Self

MILLISECOND_BOUNDS = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 750.0),
    *(1_000.0, 1_500.0, 2_000.0, 3_000.0, 5_000.0, 10_000.0, 15_000.0, 30_000.0),
)
"""Upper bounds for delays of audio: fine where a listener would not hear it yet, up to twice the longest buffer."""


class Distribution:
    """Counts of values by range.

    Attributes:
        bounds: The greatest value of each range, ascending; one more range has all that is above.
        counts: How many values fell into each range, the last one included.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = MILLISECOND_BOUNDS) -> None:
        """Make an empty one."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def note(self, value: float, count: int = 1) -> None:
        """Count a value, `count` times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def __len__(self) -> int:
        """Give how many values were counted."""
        return sum(self.counts)

    def __iadd__(self, other: "Distribution") -> Self:
        """Add what another one of the same ranges counted."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        return self

    def copy(self) -> "Distribution":
        """Give one that has counted the same."""
        copied = Distribution(self.bounds)
        copied += self
        return copied

    def since(self, earlier: "Distribution") -> "Distribution":
        """Give what was counted since this one was as `earlier` is."""
        news = Distribution(self.bounds)
        news.counts = [now - before for now, before in zip(self.counts, earlier.counts, strict=True)]
        news.total = self.total - earlier.total
        return news

    def values(self) -> Iterator[tuple[float, int]]:
        """Give each range that occurred by its upper bound, with its count; what is above all counts as the last."""
        counts = [*self.counts[:-2], self.counts[-2] + self.counts[-1]]
        return ((bound, count) for bound, count in zip(self.bounds, counts, strict=True) if count)

    def percentile(self, percent: float) -> float | None:
        """Give the upper bound of the range that so many per cent of the values keep to; None without values."""
        wanted = len(self) * percent / 100
        reached = 0
        for bound, count in self.values():
            reached += count
            if reached >= wanted:
                return bound
        return None
