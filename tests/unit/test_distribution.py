from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from relay.metrics.distribution import MILLISECOND_BOUNDS, Distribution

VALUES = st.lists(st.tuples(st.floats(0, 60_000), st.integers(1, 5)), max_size=30)


def filled(values: list[tuple[float, int]]) -> Distribution:
    distribution = Distribution()
    for value, count in values:
        distribution.note(value, count)
    return distribution


@given(VALUES)
def test_every_value_is_in_the_range_of_the_least_bound_that_holds_it(values: list[tuple[float, int]]) -> None:
    distribution = filled(values)
    for index in range(len(MILLISECOND_BOUNDS) + 1):
        expected = sum(count for value, count in values if bisect_left(MILLISECOND_BOUNDS, value) == index)
        assert distribution.counts[index] == expected
    assert len(distribution) == sum(count for _, count in values)


@given(VALUES, VALUES)
def test_what_happened_between_two_looks_is_their_difference(
    before: list[tuple[float, int]], after: list[tuple[float, int]]
) -> None:
    distribution = filled(before)
    earlier = distribution.copy()
    for value, count in after:
        distribution.note(value, count)
    assert distribution.since(earlier).counts == filled(after).counts
    assert earlier.counts == filled(before).counts
    together = filled(before)
    together += filled(after)
    assert together.counts == distribution.counts


def test_ranges_are_given_by_their_bounds_and_what_is_above_counts_as_the_last() -> None:
    distribution = filled([(0.0, 1), (1.0, 2), (1.5, 4), (30_000.0, 1), (99_999.0, 3)])
    assert list(distribution.values()) == [(1.0, 3), (2.0, 4), (30_000.0, 4)]
    assert distribution.total == 2 + 6 + 30_000 + 3 * 99_999.0


def test_percentiles_are_bounds() -> None:
    distribution = filled([(3, 50), (15, 45), (700, 5)])
    assert [distribution.percentile(percent) for percent in (1, 50, 51, 95, 99)] == [5, 5, 20, 20, 750]
    assert Distribution().percentile(50) is None
