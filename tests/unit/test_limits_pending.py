"""Which connection is dropped when too many have not become a WebSocket yet."""

from collections.abc import Callable, Sequence

import pytest

from relay.limits.seats import Pending


class Visitor:
    def __init__(self, name: str) -> None:
        self.name = name
        self.peer_address = ""
        self._actions: list[Callable[[], None]] = []

    def at_end(self, action: Callable[[], None]) -> None:
        self._actions.append(action)

    def end(self) -> None:
        for action in self._actions:
            action()

    def cut_off(self) -> None:
        raise AssertionError("nobody is cut off here")


def filled(arrivals: Sequence[tuple[str, str | None]]) -> tuple[Pending, dict[str, Visitor]]:
    pending = Pending()
    visitors = {name: Visitor(name) for name, _ in arrivals}
    for name, group in arrivals:
        pending.add(visitors[name], group)
    return pending, visitors


@pytest.mark.parametrize(
    ("arrivals", "leaving"),
    [
        ([("a", "1"), ("b", "1")], "a"),
        ([("a", "1"), ("b", "2"), ("c", "2")], "b"),
        ([("a", "1"), ("b", "2")], "a"),
        ([("a", "1"), ("b", None), ("c", None)], "b"),
    ],
)
def test_the_address_with_most_loses_its_oldest(arrivals: Sequence[tuple[str, str | None]], leaving: str) -> None:
    pending, visitors = filled(arrivals)
    assert pending.oldest_of_most() is visitors[leaving]


def test_who_has_ended_is_forgotten_and_may_end_again() -> None:
    pending, visitors = filled([("a", "1"), ("b", "1"), ("c", "2")])
    visitors["a"].end()
    pending.discard(visitors["a"])
    assert len(pending) == 2
    assert pending.oldest_of_most() is visitors["b"]
    visitors["b"].end()
    assert list(pending) == [visitors["c"]]
    visitors["c"].end()
    assert not pending
