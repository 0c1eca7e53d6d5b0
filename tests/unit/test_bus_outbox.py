"""What a node keeps for the bus until it is confirmed: in order, within a bound, and once more after a failure."""

from hypothesis import given
from hypothesis import strategies as st

from relay.cluster.outbox import BusOutbox, Message


def message(number: int, size: int = 10) -> Message:
    return Message("audio", number.to_bytes(4) * (size // 4 or 1))


def numbers(outbox: BusOutbox) -> list[int]:
    """Take everything that has not left yet."""
    taken = []
    while (each := outbox.take()) is not None:
        taken.append(int.from_bytes(each.payload[:4]))
    return taken


def filled(count: int, **bounds: float) -> BusOutbox:
    outbox = BusOutbox(bounds.get("max_seconds", 10.0), int(bounds.get("max_bytes", 1000)))
    for number in range(count):
        outbox.put(message(number), now=float(number))
    return outbox


def test_messages_leave_once_and_in_order() -> None:
    outbox = filled(3)
    assert numbers(outbox) == [0, 1, 2]
    assert outbox.take() is None
    assert (len(outbox), outbox.unsent, outbox.sent) == (3, 0, 3)


def test_what_is_not_confirmed_leaves_again() -> None:
    outbox = filled(4)
    assert numbers(outbox) == [0, 1, 2, 3]
    outbox.confirm(2)
    outbox.put(message(4), now=4.0)
    outbox.rewind(now=4.0)
    assert numbers(outbox) == [2, 3, 4]
    assert outbox.dropped_messages == 0


def test_a_confirmation_reaches_no_further_than_what_left() -> None:
    outbox = filled(4)
    outbox.take()
    outbox.confirm(3)
    assert numbers(outbox) == [1, 2, 3]


def test_beyond_the_bound_of_time_the_oldest_go() -> None:
    outbox = filled(5, max_seconds=2.0)
    assert numbers(outbox) == [2, 3, 4]
    assert outbox.dropped_messages == 2
    outbox.rewind(now=6.0)
    assert numbers(outbox) == [4]
    assert outbox.dropped_messages == 4


def test_beyond_the_bound_of_bytes_the_oldest_go() -> None:
    outbox = filled(10, max_seconds=100.0, max_bytes=32)
    assert numbers(outbox) == [6, 7, 8, 9]
    assert (outbox.dropped_messages, outbox.held_bytes) == (6, 32)


def test_dropping_what_has_left_skips_nothing() -> None:
    outbox = filled(4, max_bytes=32)
    assert int.from_bytes((outbox.take() or message(99)).payload[:4]) == 0
    outbox.put(message(4), now=4.0)
    outbox.put(message(5), now=4.0)
    assert numbers(outbox) == [2, 3, 4, 5]


@given(st.lists(st.sampled_from(["put", "take", "confirm", "rewind"])), st.integers(1, 60))
def test_each_message_is_confirmed_or_dropped_and_none_overtakes(steps: list[str], max_bytes: int) -> None:
    outbox = BusOutbox(5.0, max_bytes)
    put, now, last, confirmed = 0, 0.0, -1, 0
    for step in steps:
        now += 0.5
        match step:
            case "put":
                outbox.put(message(put), now)
                put += 1
            case "take":
                if (taken := outbox.take()) is not None:
                    number = int.from_bytes(taken.payload[:4])
                    assert number > last
                    last = number
            case "confirm":
                before = len(outbox)
                outbox.confirm(outbox.sent)
                confirmed += before - len(outbox)
            case _:
                outbox.rewind(now)
                last = outbox.first - 1
        assert put == confirmed + outbox.dropped_messages + len(outbox)
        assert outbox.held_bytes <= max_bytes
        assert outbox.first <= outbox.sent <= outbox.first + len(outbox)
