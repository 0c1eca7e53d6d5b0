"""Budgets and counts over time: budgets refill, old entries expire, and memory stays bounded."""

from hypothesis import given
from hypothesis import strategies as st

from relay.limits.rates import AddressBudgets, Budget, SlidingCounts, Smoothed


class TestBudget:
    def test_a_burst_then_the_rate(self) -> None:
        budget = Budget()
        assert [budget.spend(100.0, 10, 2) for _ in range(20)] == [0] * 20
        assert abs(budget.spend(100.0, 10, 2) - 0.1) < 1e-9
        assert abs(budget.spend(100.0, 10, 2) - 0.2) < 1e-9
        assert budget.spend(100.35, 10, 2) == 0

    def test_it_is_full_again_after_its_burst_and_never_fuller(self) -> None:
        budget = Budget()
        for now in (0.0, 1000.0):
            assert [budget.spend(now, 5, 1) > 0 for _ in range(6)] == [False] * 5 + [True]

    def test_the_rate_may_change_and_be_none(self) -> None:
        budget = Budget()
        assert not any(budget.spend(0.0, None, 1) for _ in range(1000))
        assert [budget.spend(0.0, 1, 1) > 0 for _ in range(2)] == [False, True]

    @given(st.lists(st.floats(0, 10), max_size=200), st.integers(1, 50), st.floats(0.1, 5))
    def test_no_window_holds_more_than_rate_and_burst(
        self, times: list[float], per_second: int, burst_seconds: float
    ) -> None:
        budget = Budget()
        # A client that waits out what it overdraws keeps to the rate, whatever its first burst was.
        spent, now = [], 0.0
        for time in sorted(times):
            now = max(now, time)
            now += budget.spend(now, per_second, burst_seconds)
            spent.append(now)
        for index, first in enumerate(spent):
            for count, last in enumerate(spent[index:], 1):
                assert count <= per_second * (last - first + burst_seconds) + 1.001

    @given(st.lists(st.floats(0, 10), max_size=100), st.integers(1, 50), st.floats(0.1, 5))
    def test_it_tells_before_whether_it_would_be_overdrawn(
        self, times: list[float], per_second: int, burst_seconds: float
    ) -> None:
        budget = Budget()
        for now in sorted(times):
            has = budget.has(now, per_second, burst_seconds)
            assert has is (budget.spend(now, per_second, burst_seconds) == 0)
        assert budget.has(0.0, None, burst_seconds)


def test_no_more_budgets_are_remembered_than_allowed_and_those_that_spent_last_are() -> None:
    budgets = AddressBudgets(3)
    for address in ("a", "b", "c", "a", "d"):
        budgets.of(address).spend(0.0, 1, 10)
    assert len(budgets) == 3
    assert [budgets.of(address).overdrawn_seconds(0.0, 0) for address in "ad"] == [2, 1]
    assert not budgets.of("b").overdrawn_seconds(0.0, 0)


class TestSlidingCounts:
    def test_what_is_older_than_the_window_does_not_count(self) -> None:
        counts = SlidingCounts(60, 10)
        for _ in range(10):
            counts.add("a", 30)
        assert counts.count("a", 59) == 10
        assert counts.count("b", 59) == 0
        assert counts.count("a", 90) == 5
        assert counts.count("a", 120) == 0
        assert counts.add("a", 150) == 1

    def test_no_more_addresses_are_remembered_than_allowed_and_those_seen_last_are(self) -> None:
        counts = SlidingCounts(60, 3)
        for address in ("a", "b", "c", "a", "d"):
            counts.add(address, 0)
        assert len(counts) == 3
        assert [counts.count(address, 0) for address in "abcd"] == [2, 0, 1, 1]


def test_a_smoothed_value_follows_a_state_and_not_a_hiccup() -> None:
    smoothed = Smoothed(2)
    assert smoothed.take(1.0, 0.1) < 0.06
    for _ in range(100):
        smoothed.take(1.0, 0.1)
    assert smoothed.value > 0.99
    for _ in range(100):
        smoothed.take(0.0, 0.1)
    assert smoothed.value < 0.01
