"""Histogram of latencies, with bounded memory and an exact merge of counts from several processes.

Invariants: below `EXACT_MS` every millisecond has its own count. Larger values are rounded down to 14 significant bits,
an error below 0.02 % (the idea of HdrHistogram, hdrhistogram.org). The largest value is kept exactly. Merging in any
order gives the same counts as a single histogram.
"""

import math
from collections.abc import Iterator
from itertools import compress
from typing import TypedDict

EXACT_MS = 16_384
"""Smaller values are counted exactly, in the wire's whole milliseconds. A relay's bound of 10 s is smaller."""

_SIGNIFICANT_BITS = EXACT_MS.bit_length() - 1
_State = tuple[dict[int, int], dict[int, int], int]


class HistogramCounts(TypedDict):
    """A histogram as JSON: ordered pairs of a value and its count, and the largest value."""

    counts: list[tuple[int, int]]
    maximum: int


class Histogram:
    """Counts of whole milliseconds.

    Attributes:
        exact: The count of each value below `EXACT_MS`. Code that counts a million values a second increments it
            directly. Everything else calls `record`.
    """

    __slots__ = ("_coarse", "_largest_coarse", "exact")

    def __init__(self) -> None:
        self.exact = [0] * EXACT_MS
        self._coarse: dict[int, int] = {}
        self._largest_coarse = 0

    def record(self, value_ms: int, count: int = 1) -> None:
        """Count a value `count` times. Negative values count as 0."""
        if value_ms < EXACT_MS:
            self.exact[max(0, value_ms)] += count
            return
        bucket = _bucket(value_ms)
        self._coarse[bucket] = self._coarse.get(bucket, 0) + count
        self._largest_coarse = max(self._largest_coarse, value_ms)

    def merge(self, other: "Histogram") -> None:
        """Add all counts of another histogram."""
        for value_ms in other._occurring():
            self.exact[value_ms] += other.exact[value_ms]
        for bucket, count in other._coarse.items():
            self._coarse[bucket] = self._coarse.get(bucket, 0) + count
        self._largest_coarse = max(self._largest_coarse, other._largest_coarse)

    @property
    def total(self) -> int:
        """The number of counted values."""
        return sum(self.exact) + sum(self._coarse.values())

    @property
    def maximum(self) -> int | None:
        """The largest value, exactly; None when nothing was counted."""
        if self._coarse:
            return self._largest_coarse
        return max(self._occurring(), default=None)

    def percentile(self, percent: float) -> int | None:
        """Return the smallest value that at least `percent` % of all values do not exceed (nearest rank).

        Returns:
            That value; above `EXACT_MS`, the largest value of its bucket. None when nothing was counted.
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
        """Count the values above `value_ms`; above `EXACT_MS`, to the precision of the buckets."""
        return sum(count for value, count in self.items() if value > value_ms)

    def items(self) -> list[tuple[int, int]]:
        """Return each value that occurred with its count, in order; above `EXACT_MS`, the smallest of each bucket."""
        return [(value, self.exact[value]) for value in self._occurring()] + sorted(self._coarse.items())

    def to_json(self) -> HistogramCounts:
        """Return all counts."""
        return {"counts": self.items(), "maximum": self.maximum or 0}

    def __getstate__(self) -> _State:
        """Pickle only the values that occurred: frames wait while a report is made."""
        return {value: self.exact[value] for value in self._occurring()}, self._coarse, self._largest_coarse

    def __setstate__(self, state: _State) -> None:
        occurred, self._coarse, self._largest_coarse = state
        self.exact = [0] * EXACT_MS
        for value, count in occurred.items():
            self.exact[value] = count

    def _occurring(self) -> Iterator[int]:
        """Yield the values below `EXACT_MS` that occurred, in order."""
        return compress(range(EXACT_MS), self.exact)


def _bucket(value_ms: int) -> int:
    shift = value_ms.bit_length() - _SIGNIFICANT_BITS
    return value_ms >> shift << shift


def _last_of(bucket: int) -> int:
    return bucket + (1 << bucket.bit_length() - _SIGNIFICANT_BITS) - 1
