"""Each limit on seats holds at its number, and a returned seat is free again."""

from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from relay.limits.names import Limit
from relay.limits.seats import Seat, Seats
from relay.protocol.requests import Role

LIMITS: Mapping[Limit, int | None] = {
    Limit.CONNECTIONS: 3,
    Limit.LISTENERS: 2,
    Limit.BROADCASTERS: 1,
    Limit.CONNECTIONS_PER_ADDRESS: None,
}


class Owner:
    """An object that ends, like a connection."""

    def __init__(self) -> None:
        self.has_ended = False
        self._actions: list[Callable[[], None]] = []

    def at_end(self, action: Callable[[], None]) -> None:
        if self.has_ended:
            action()
        else:
            self._actions.append(action)

    def end(self) -> None:
        self.has_ended = True
        while self._actions:
            self._actions.pop()()


def listener(session: str | None, group: str | None = None) -> Seat:
    return Seat(Role.LISTENER, session, group)


def broadcaster(session: str) -> Seat:
    return Seat(Role.BROADCASTER, session, None)


def test_each_limit_holds_at_its_number() -> None:
    seats, first = Seats(), Owner()
    for seat, owner in ((listener("a"), first), (listener("a"), Owner())):
        assert seats.full(seat, LIMITS.__getitem__) is None
        seats.take(seat, owner)
    assert seats.full(listener("a"), LIMITS.__getitem__) is Limit.LISTENERS
    assert seats.full(listener("b"), LIMITS.__getitem__) is None
    seats.take(listener("b"), Owner())
    assert seats.full(listener("c"), LIMITS.__getitem__) is Limit.CONNECTIONS
    assert seats.full(broadcaster("a"), LIMITS.__getitem__) is None, "listeners keep no broadcaster out"
    seats.take(broadcaster("a"), Owner())
    assert seats.full(broadcaster("a"), LIMITS.__getitem__) is Limit.BROADCASTERS
    first.end()
    assert seats.full(listener("a"), LIMITS.__getitem__) is None


def test_an_address_has_so_many_and_an_unknown_one_has_no_limit() -> None:
    limits = dict(LIMITS) | {Limit.CONNECTIONS: 100, Limit.LISTENERS: None, Limit.CONNECTIONS_PER_ADDRESS: 1}
    seats = Seats()
    seats.take(listener("a", "192.0.2.1"), Owner())
    assert seats.full(listener("b", "192.0.2.1"), limits.__getitem__) is Limit.CONNECTIONS_PER_ADDRESS
    for _ in range(5):
        assert seats.full(listener("b"), limits.__getitem__) is None
        seats.take(listener("b"), Owner())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Role)),
            st.sampled_from(["a", "b", None]),
            st.sampled_from(["x", None]),
            st.sampled_from(["ends later", "ended before"]),
        )
    )
)
def test_whatever_was_taken_is_free_when_its_owner_has_ended(
    taken: list[tuple[Role, str | None, str | None, str]],
) -> None:
    seats = Seats()
    owners = []
    for role, session, group, order in taken:
        owner = Owner()
        if order == "ended before":
            owner.end()
        seats.take(Seat(role, session, group), owner)
        owners.append(owner)
    assert sum(seats.count(role) for role in Role) == sum(not owner.has_ended for owner in owners)
    for owner in owners:
        owner.end()
    assert seats.is_empty
