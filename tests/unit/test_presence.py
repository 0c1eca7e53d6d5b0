"""Which nodes are alive, by their records."""

from dataclasses import replace

import pytest

from relay.cluster.bus import Node
from relay.cluster.presence import LIFE_SECONDS, Presence, read_node, write_node

OWN = Node("own", "1", "http://own", is_draining=False, listeners=1)
OTHER = Node("other", "1", "http://other", is_draining=False, listeners=7)


def test_a_node_comes_changes_and_goes() -> None:
    presence = Presence(OWN)
    assert presence.nodes == {"own": OWN}
    assert presence.hear(OTHER, 0.0)
    assert not presence.hear(replace(OTHER, listeners=8), 2.0)
    assert presence.nodes["other"].listeners == 8
    assert presence.hear(replace(OTHER, is_draining=True), 4.0)
    assert presence.leave("other")
    assert not presence.leave("other")
    assert presence.nodes == {"own": OWN}


def test_a_silent_node_is_gone_after_its_life() -> None:
    presence = Presence(OWN)
    presence.hear(OTHER, 10.0)
    assert not presence.expire(10.0 + LIFE_SECONDS)
    assert presence.expire(10.1 + LIFE_SECONDS)
    assert presence.nodes == {"own": OWN}


def test_time_without_the_bus_counts_against_nobody() -> None:
    presence = Presence(OWN)
    presence.hear(OTHER, 0.0)
    presence.refresh(100.0)
    assert not presence.expire(100.0 + LIFE_SECONDS)


def test_this_node_stays_whatever_its_own_record_says() -> None:
    presence = Presence(OWN)
    assert not presence.hear(replace(OWN, listeners=99), 0.0)
    assert not presence.leave("own")
    assert not presence.expire(1000.0)
    assert presence.nodes == {"own": OWN}


def test_others_learn_at_once_that_this_node_drains() -> None:
    presence = Presence(OWN)
    assert not presence.describe(url="http://new", is_draining=False, listeners=3)
    assert presence.describe(url="http://new", is_draining=True, listeners=3)
    assert presence.nodes["own"] == presence.own == Node("own", "1", "http://new", is_draining=True, listeners=3)


def test_a_record_is_read_as_it_was_written() -> None:
    assert read_node("other", write_node(OTHER)) == OTHER


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"\xff", b'{"version":1,"url":"","draining":0,"listeners":"x"}'])
def test_an_unreadable_record_is_no_node(record: bytes) -> None:
    assert read_node("other", record) is None
