import math
import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.loadtest.histogram import EXACT_MS, Histogram

latencies = st.lists(st.integers(0, 100_000), max_size=200)
percentages = st.floats(0.1, 100)


def histogram_of(values: Sequence[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def nearest_rank(values: Sequence[int], percent: float) -> int:
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


@given(st.lists(st.integers(0, EXACT_MS - 1), min_size=1, max_size=200), percentages)
def test_percentiles_are_those_of_the_sorted_list(values: list[int], percent: float) -> None:
    assert histogram_of(values).percentile(percent) == nearest_rank(values, percent)


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=50), percentages)
def test_large_percentiles_are_right_to_two_hundredths_of_a_per_cent(values: list[int], percent: float) -> None:
    right = nearest_rank(values, percent)
    found = histogram_of(values).percentile(percent)
    assert found is not None
    assert right <= found <= right * 1.0002


@given(st.lists(latencies, max_size=5))
def test_merged_in_any_order_they_are_one(parts: list[list[int]]) -> None:
    whole = histogram_of([value for part in parts for value in part])
    merged = Histogram()
    for part in reversed(parts):
        merged.merge(histogram_of(part))
    assert merged.to_json() == whole.to_json()
    assert merged.total == whole.total


@given(latencies)
def test_pickling_keeps_everything_and_is_no_longer_than_what_occurred(values: list[int]) -> None:
    histogram = histogram_of(values)
    pickled = pickle.dumps(histogram)
    read: Histogram = pickle.loads(pickled)  # noqa: S301 - the data is our own
    assert read.to_json() == histogram.to_json()
    assert (read.maximum, read.total) == (max(values, default=None), len(values))
    assert len(pickled) < 200 + 20 * len(values)


@given(latencies, st.integers(0, EXACT_MS - 1))
def test_counting_what_is_above(values: list[int], limit: int) -> None:
    assert histogram_of(values).count_above(limit) == sum(value > limit for value in values)


def test_an_empty_one_knows_nothing() -> None:
    assert Histogram().percentile(50) is None
    assert Histogram().maximum is None


def test_a_clock_that_is_a_little_off_counts_as_no_latency() -> None:
    assert histogram_of([-3]).items() == [(0, 1)]


@pytest.mark.parametrize("value", [EXACT_MS - 1, EXACT_MS, 5 * EXACT_MS + 1])
def test_the_maximum_is_exact(value: int) -> None:
    assert histogram_of([7, value]).maximum == value
    assert histogram_of([7, value]).percentile(100) == value


def test_memory_is_bounded() -> None:
    histogram = histogram_of(range(0, 1 << 24, 97))
    assert len(histogram.items()) <= 11 * EXACT_MS
