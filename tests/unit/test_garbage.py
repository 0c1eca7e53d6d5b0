"""Full garbage collections wait until nobody would notice them."""

import gc
from collections.abc import Iterator

import pytest

from relay.process.garbage import MIN_DEPARTURES, Garbage


class Listeners:
    def __init__(self) -> None:
        self.listeners = 0
        self.departures = 0

    def __len__(self) -> int:
        return self.listeners


class Knot:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def listeners() -> Listeners:
    return Listeners()


@pytest.fixture
def garbage(listeners: Listeners) -> Iterator[Garbage]:
    before = gc.get_threshold()
    with Garbage(listeners) as garbage:
        assert gc.get_threshold()[:2] == before[:2]
        yield garbage
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_growth_alone_brings_no_full_look(garbage: Garbage) -> None:
    full_looks = gc.get_stats()[2]["collections"]
    grown = [Knot() for _ in range(100_000)]
    assert gc.get_stats()[2]["collections"] == full_looks
    assert len(grown) == 100_000


def test_nobody_notices_when_nobody_listens(garbage: Garbage, listeners: Listeners) -> None:
    assert not garbage.look(), "nobody left"
    listeners.departures = 1
    assert garbage.look()
    assert not garbage.look()


def test_with_listeners_it_must_pay(garbage: Garbage, listeners: Listeners) -> None:
    listeners.listeners = 1
    listeners.departures = MIN_DEPARTURES - 1
    assert not garbage.look()
    listeners.departures += 1
    assert garbage.look()
    listeners.listeners = MIN_DEPARTURES
    listeners.departures += 2 * MIN_DEPARTURES - 1
    assert not garbage.look()
    listeners.departures += 1
    assert garbage.look()
