"""How often each latency occurred: bounded memory, and an exact merge of what several processes counted.

Invariants: below `EXACT_MS` every millisecond has its own count; above it values are rounded down to 14 significant
bits, an error under 0.02 % (the idea of HdrHistogram, hdrhistogram.org); the largest value is kept as it was; merging
in any order gives what one histogram would have counted.
"""

import math
from collections.abc import Iterator
from itertools import compress
from typing import TypedDict

EXACT_MS = 16_384
"""Values below this are counted as they are: all that a relay's bound of 10 s allows, and some that it does not.

The wire's times are whole milliseconds, so there is nothing finer.
"""

_SIGNIFICANT_BITS = EXACT_MS.bit_length() - 1
_State = tuple[dict[int, int], dict[int, int], int]


class HistogramCounts(TypedDict):
    """A histogram as JSON: pairs of a value and how often it occurred, in order, and the largest value."""

    counts: list[tuple[int, int]]
    maximum: int


class Histogram:
    """Counts of whole milliseconds.

    Attributes:
        exact: How often each value below `EXACT_MS` occurred. Code that counts a million values a second adds one
            here itself; everything else goes through `record`.
    """

    __slots__ = ("_coarse", "_largest_coarse", "exact")

    def __init__(self) -> None:
        """Make an empty one."""
        self.exact = [0] * EXACT_MS
        self._coarse: dict[int, int] = {}
        self._largest_coarse = 0

    def record(self, value_ms: int, count: int = 1) -> None:
        """Count a value, `count` times; a negative one counts as 0."""
        if value_ms < EXACT_MS:
            self.exact[max(0, value_ms)] += count
            return
        bucket = _bucket(value_ms)
        self._coarse[bucket] = self._coarse.get(bucket, 0) + count
        self._largest_coarse = max(self._largest_coarse, value_ms)

    def merge(self, other: "Histogram") -> None:
        """Add all that another one counted."""
        for value_ms in other._occurring():
            self.exact[value_ms] += other.exact[value_ms]
        for bucket, count in other._coarse.items():
            self._coarse[bucket] = self._coarse.get(bucket, 0) + count
        self._largest_coarse = max(self._largest_coarse, other._largest_coarse)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.exact) + sum(self._coarse.values())

    @property
    def maximum(self) -> int | None:
        """The largest value, exactly; None when there is none."""
        if self._coarse:
            return self._largest_coarse
        return max(self._occurring(), default=None)

    def percentile(self, percent: float) -> int | None:
        """Return the least value that at least `percent` % of all values do not exceed (nearest rank).

        Returns:
            That value, above `EXACT_MS` the largest that its bucket could hold; None when nothing was counted.
        """
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(total * percent / 100))
        seen = 0
        for value_ms, count in self.items():
            seen += count
            if seen >= rank:
                return value_ms if value_ms < EXACT_MS else min(_last_of(value_ms), self._largest_coarse)
        raise AssertionError("the counts are fewer than their sum")

    def count_above(self, value_ms: int) -> int:
        """Return how many values were larger; above `EXACT_MS` as far as the buckets tell."""
        return sum(count for value, count in self.items() if value > value_ms)

    def items(self) -> list[tuple[int, int]]:
        """Return the values that occurred, each with its count, in order; above `EXACT_MS` the least of each bucket."""
        return [(value, self.exact[value]) for value in self._occurring()] + sorted(self._coarse.items())

    def to_json(self) -> HistogramCounts:
        """Return all that was counted."""
        return {"counts": self.items(), "maximum": self.maximum or 0}

    def __getstate__(self) -> _State:
        """Pickle the values that occurred and no others: a report is due while frames wait."""
        return {value: self.exact[value] for value in self._occurring()}, self._coarse, self._largest_coarse

    def __setstate__(self, state: _State) -> None:
        """Restore what was pickled."""
        occurred, self._coarse, self._largest_coarse = state
        self.exact = [0] * EXACT_MS
        for value, count in occurred.items():
            self.exact[value] = count

    def _occurring(self) -> Iterator[int]:
        """Find the values below `EXACT_MS` that occurred, in order."""
        return compress(range(EXACT_MS), self.exact)


def _bucket(value_ms: int) -> int:
    shift = value_ms.bit_length() - _SIGNIFICANT_BITS
    return value_ms >> shift << shift


def _last_of(bucket: int) -> int:
    return bucket + (1 << bucket.bit_length() - _SIGNIFICANT_BITS) - 1
