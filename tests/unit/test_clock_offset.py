import math

from hypothesis import given
from hypothesis import strategies as st

from relay.vocabulary.clock_offset import MAX_DRIFT, ClockOffset

delays = st.floats(0, 50)


@given(
    st.floats(-1e7, 1e7),
    st.lists(st.tuples(st.floats(0.01, 1000), delays, delays), min_size=1, max_size=50),
    st.floats(-MAX_DRIFT / 2, MAX_DRIFT / 2),
)
def test_the_truth_is_never_further_away_than_it_says(
    difference: float, questions: list[tuple[float, float, float]], drift: float
) -> None:
    """This holds for any delays in both directions, even if the clocks drift apart."""
    offset = ClockOffset()
    now = 0.0
    for pause, there, back in questions:
        asked = now + pause
        stamped = asked + there
        now = stamped + back
        offset.note(asked, now, math.floor(stamped + difference + drift * stamped))
        error = abs(offset.milliseconds - (difference + drift * now))
        assert error <= offset.uncertainty_ms + 50 * MAX_DRIFT + 1e-6


def test_many_quick_answers_are_better_than_a_millisecond() -> None:
    offset = ClockOffset()
    for number in range(100):
        asked = number * 10.37
        offset.note(asked, asked + 0.2, math.floor(asked + 0.1 + 1234.56))
    assert offset.uncertainty_ms < 0.15
    assert abs(offset.milliseconds - 1234.56) < 0.15


def test_delays_on_one_way_do_not_move_it() -> None:
    offset = ClockOffset()
    offset.note(0.0, 0.4, 1000)
    before = offset.milliseconds
    for number in range(1, 20):
        offset.note(number * 10.0, number * 10.0 + 300.0, 1000 + number * 10 + 290)
    assert abs(offset.milliseconds - before) < 0.5


def test_a_clock_that_jumps_is_believed() -> None:
    offset = ClockOffset()
    offset.note(0.0, 1.0, 100)
    offset.note(10.0, 11.0, 100_000)
    assert abs(offset.milliseconds - 99_990) < 2


def test_it_knows_whether_it_knows() -> None:
    offset = ClockOffset()
    assert not offset.known
    offset.note(0.0, 1.0, 5)
    assert offset.known
