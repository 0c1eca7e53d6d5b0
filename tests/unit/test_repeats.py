"""Repeated log lines: the first ones are written, and the rest are counted and summarized."""

from hypothesis import given
from hypothesis import strategies as st

from relay.process.logs import MAX_KINDS, Repeats


def test_the_first_ones_of_each_interval_are_written() -> None:
    repeats = Repeats()
    assert [repeats.admit("a", 2, 10, 0.0) for _ in range(5)] == [True, True, False, False, False]
    assert repeats.admit("b", 2, 10, 5.0)
    assert repeats.over(9.9) == []
    assert repeats.over(10.0) == [("a", 3)]
    assert repeats.over(1000.0) == [], "of b, nothing was left out"
    assert repeats.admit("a", 2, 10, 1000.0)


@given(st.lists(st.tuples(st.integers(0, 2 * MAX_KINDS), st.floats(0, 1)), max_size=300))
def test_every_line_is_written_or_told(lines: list[tuple[int, float]]) -> None:
    repeats, now, written, told = Repeats(), 0.0, 0, 0
    for kind, passed in lines:
        now += passed
        told += sum(left_out for _, left_out in repeats.over(now))
        written += repeats.admit(kind % 7 if kind < MAX_KINDS else kind, 2, 5, now)
    told += sum(left_out for _, left_out in repeats.over(float("inf")))
    assert written + told == len(lines)


def test_no_more_kinds_are_remembered_than_allowed() -> None:
    repeats = Repeats()
    admitted = [repeats.admit(kind, 1, 10, 0.0) for kind in range(MAX_KINDS + 100)]
    assert admitted == [True] * (MAX_KINDS + 1) + [False] * 99
    assert repeats.over(10.0) == [("others", 99)]
