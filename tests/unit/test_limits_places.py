"""Places: each limit holds at its number, and what is given back is free."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from relay.core.limits.names import Limit
from relay.core.limits.places import Place, Places
from relay.core.requests import Role

LIMITS: Mapping[Limit, int | None] = {
    Limit.CONNECTIONS: 3,
    Limit.LISTENERS: 2,
    Limit.BROADCASTERS: 1,
    Limit.CONNECTIONS_PER_ADDRESS: None,
}


def listener(session: str | None, group: str | None = None) -> Place:
    return Place(Role.LISTENER, session, group)


def broadcaster(session: str) -> Place:
    return Place(Role.BROADCASTER, session, None)


def test_each_limit_holds_at_its_number() -> None:
    places = Places()
    for place in (listener("a"), listener("a")):
        assert places.full(place, LIMITS.__getitem__) is None
        places.take(place)
    assert places.full(listener("a"), LIMITS.__getitem__) is Limit.LISTENERS
    assert places.full(listener("b"), LIMITS.__getitem__) is None
    places.take(listener("b"))
    assert places.full(listener("c"), LIMITS.__getitem__) is Limit.CONNECTIONS
    assert places.full(broadcaster("a"), LIMITS.__getitem__) is None, "listeners keep no broadcaster out"
    places.take(broadcaster("a"))
    assert places.full(broadcaster("a"), LIMITS.__getitem__) is Limit.BROADCASTERS
    places.give_back(listener("a"))
    assert places.full(listener("a"), LIMITS.__getitem__) is None


def test_an_address_has_so_many_and_an_unknown_one_has_no_limit() -> None:
    limits = dict(LIMITS) | {Limit.CONNECTIONS: 100, Limit.LISTENERS: None, Limit.CONNECTIONS_PER_ADDRESS: 1}
    places = Places()
    places.take(listener("a", "192.0.2.1"))
    assert places.full(listener("b", "192.0.2.1"), limits.__getitem__) is Limit.CONNECTIONS_PER_ADDRESS
    for _ in range(5):
        assert places.full(listener("b"), limits.__getitem__) is None
        places.take(listener("b"))


@given(
    st.lists(st.tuples(st.sampled_from(list(Role)), st.sampled_from(["a", "b", None]), st.sampled_from(["x", None])))
)
def test_all_that_was_taken_can_be_given_back(taken: list[tuple[Role, str | None, str | None]]) -> None:
    places = Places()
    for values in taken:
        places.take(Place(*values))
    assert sum(places.count(role) for role in Role) == len(taken)
    for values in taken:
        places.give_back(Place(*values))
    assert vars(places) == vars(Places())
