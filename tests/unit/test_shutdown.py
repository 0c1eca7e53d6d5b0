"""How the relay shuts down: in the time allowed, everybody leaves once, and departures and returns are spread."""

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from relay.server.shutdown import Departure, ShutdownPlan, plan_departures


@given(st.floats(0.01, 1000), st.floats(0.01, 1000))
def test_the_parts_are_no_longer_than_the_whole(timeout_seconds: float, window_seconds: float) -> None:
    plan = ShutdownPlan.within(timeout_seconds, window_seconds)
    assert plan.closing + plan.cut_off + plan.flush <= timeout_seconds * (1 + 1e-9)
    assert 0 < plan.window <= min(window_seconds, plan.closing / 2)
    assert plan.ending + plan.window < plan.closing
    assert min(plan.ending, plan.cut_off, plan.flush) > 0


@given(st.integers(0, 3000), st.floats(0.01, 20), st.integers(0, 100))
def test_all_leave_in_order_within_the_window(count: int, window_seconds: float, seed: int) -> None:
    departures = plan_departures(count, window_seconds, Random(seed).random)  # noqa: S311 - a fixed seed repeats the test
    assert len(departures) == count
    assert all(one.at_seconds <= two.at_seconds for one, two in pairwise(departures))
    assert all(0 <= departure.at_seconds <= window_seconds for departure in departures)


def test_many_fill_the_window_and_return_spread() -> None:
    departures = plan_departures(10_000, 3, Random(1).random)  # noqa: S311 - a fixed seed repeats the test
    thirds = [sum(number <= departure.at_seconds < number + 1 for departure in departures) for number in range(3)]
    assert all(3300 <= third <= 3370 for third in thirds)
    returns = sorted(departure.at_seconds + departure.reconnect_after_ms / 1000 for departure in departures)
    assert returns[0] >= 4, "the last has gone, and the relay has started"
    assert returns[-1] <= 24
    assert max(sum(second <= time < second + 1 for time in returns) for second in range(4, 24)) <= 600


def test_few_leave_at_once() -> None:
    (departure,) = plan_departures(1, 5, lambda: 0.5)
    assert departure == Departure(at_seconds=0.001, reconnect_after_ms=1501)
