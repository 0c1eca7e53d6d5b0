"""The difference of two clocks follows them, and not the outages of the bus between them."""

from relay.cluster.clock_difference import WINDOW_SECONDS, ClockDifference


def test_the_smallest_of_the_last_seconds_counts() -> None:
    difference = ClockDifference(0.0)
    for number in range(WINDOW_SECONDS):
        difference.note(float(number), number + 5.0 + (number != 7) * 0.1)
    assert difference.seconds == 5.0


def test_a_clock_that_was_set_is_followed() -> None:
    difference = ClockDifference(0.0)
    for number in range(3 * WINDOW_SECONDS):
        difference.note(float(number), number + (1.0 if number < WINDOW_SECONDS else 2.0))
    assert difference.seconds == 2.0


def test_messages_that_waited_for_the_end_of_an_outage_change_nothing() -> None:
    difference = ClockDifference(0.0)
    for number in range(WINDOW_SECONDS):
        difference.note(float(number), number + 5.0)
    returned = 4.0 * WINDOW_SECONDS
    for number in range(WINDOW_SECONDS, 4 * WINDOW_SECONDS):
        difference.note(float(number), returned + 5.0)
        assert difference.seconds == 5.0
