"""Counts how often values fall into fixed ranges, in constant memory and constant time.

Invariant: `counts` and `total` only grow, so the difference between two readings is what happened between them.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Self

MILLISECOND_BOUNDS = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 750.0),
    *(1_000.0, 1_500.0, 2_000.0, 3_000.0, 5_000.0, 10_000.0, 15_000.0, 30_000.0),
)
"""Upper bounds for audio delays: fine where a listener would not notice them yet, up to twice the longest buffer."""


class Distribution:
    """Counts of values by range.

    Attributes:
        bounds: The largest value of each range, ascending. One more range has all larger values.
        counts: Number of values in each range, including the last.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = MILLISECOND_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def note(self, value: float, count: int = 1) -> None:
        """Count a value, `count` times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def __len__(self) -> int:
        return sum(self.counts)

    def __iadd__(self, other: "Distribution") -> Self:
        """Add the counts of another distribution with the same ranges."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total
        return self

    def copy(self) -> "Distribution":
        """Return a copy with the same counts."""
        copied = Distribution(self.bounds)
        copied += self
        return copied

    def since(self, earlier: "Distribution") -> "Distribution":
        """Return what was counted since the state in `earlier`."""
        news = Distribution(self.bounds)
        news.counts = [now - before for now, before in zip(self.counts, earlier.counts, strict=True)]
        news.total = self.total - earlier.total
        return news

    def values(self) -> Iterator[tuple[float, int]]:
        """Yield upper bound and count of each range with values. Values above all bounds count in the last range."""
        counts = [*self.counts[:-2], self.counts[-2] + self.counts[-1]]
        return ((bound, count) for bound, count in zip(self.bounds, counts, strict=True) if count)

    def percentile(self, percent: float) -> float | None:
        """Return the upper bound of the range that holds this percentile; None without values."""
        wanted = len(self) * percent / 100
        reached = 0
        for bound, count in self.values():
            reached += count
            if reached >= wanted:
                return bound
        return None
