"""An operator sees and ends everything in a cluster from any node, and learns which nodes are silent."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from relay.access.grants import Grant, TokenRole
from relay.access.rules import OperatorPermit
from relay.cluster import operators
from relay.cluster.operators import ClusterOperations, SilentNodesError
from relay.hub.operations import MAX_CHANNELS, MAX_LISTENERS, Json, Operations
from relay.protocol.operator_requests import Operation, OperatorRequest
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.names import ChannelAddress
from tests.support.hub_bench import Bench, block
from tests.support.memory_bus import MemoryBus, MemoryCluster

LIST = OperatorRequest(Operation.LIST)
SHOW = OperatorRequest(Operation.SHOW, "ev1")
OPERATOR = "192.0.2.200"
ENDED = (CloseCode.SESSION_ENDED, "The session ended.")
SENT_AWAY = (CloseCode.DISCONNECTED, "The operator disconnected you.")


def permit(sessions: tuple[str, ...], channels: tuple[str, ...]) -> OperatorPermit:
    return OperatorPermit(("*",), Grant(frozenset({TokenRole.ADMIN}), sessions, channels, "a test"))


ALL = permit(("*",), ("*",))


@dataclass(eq=False)
class Node:
    """A node with a hub."""

    bus: MemoryBus
    bench: Bench
    operations: ClusterOperations

    async def ask(self, wanted: OperatorRequest, allowed: OperatorPermit = ALL) -> Json | None:
        return await self.operations.perform(wanted, allowed, OPERATOR)

    def follow(self, channel: str = "main") -> None:
        """Let another node be the home of a channel."""
        followed = self.bench.hub.directory.find(ChannelAddress("ev1", channel))
        assert followed is not None
        followed.is_home = False

    async def find(self, wanted: OperatorRequest) -> Json:
        found = await self.ask(wanted)
        assert found is not None
        return found


class Nodes:
    """Three nodes on one bus."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.cluster = MemoryCluster(expiry_seconds=60.0)
        self._stack = stack

    async def join(self, name: str) -> Node:
        bus = await self._stack.enter_async_context(self.cluster.bus(name))
        bench = Bench(bound_seconds=10.0)
        self._stack.push_async_callback(bench.tasks.close)
        self._stack.callback(bench.hub.broadcasting.close)
        operations = Operations(bench.hub, bench.time)
        return Node(bus, bench, await self._stack.enter_async_context(ClusterOperations(bus, operations)))


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(stack)


async def test_a_channel_is_shown_as_at_its_home_with_the_listeners_of_all(nodes: Nodes) -> None:
    one, two, three = [await nodes.join(name) for name in ("one", "two", "three")]
    source = two.bench.claim()
    followed = [node.bench.hub.following.open(source.channel.export(None)) for node in (one, three)]
    for node, count in ((one, 2), (two, 1), (three, 3)):
        for number in range(count):
            node.bench.join(f"{node.bus.node_id}-{number}")
    two.bench.publish(source, 3)
    frames = list(source.channel.timeline.history.since(0))
    for node, channel in zip((one, three), followed, strict=True):
        node.bench.hub.broadcasting.distribute(channel, frames)
    for node in (one, two, three):
        await node.bench.settle()
    three.bench.join("lonely", session="ev0", channel="x")
    for asked in (one, two, three):
        answer = await asked.find(LIST)
        assert (answer["not_listed"], answer["silent_nodes"]) == (0, [])
        assert [(each["id"], [channel["id"] for channel in each["channels"]]) for each in answer["sessions"]] == [
            ("ev0", ["x"]),
            ("ev1", ["main"]),
        ]
        (main,) = answer["sessions"][1]["channels"]
        assert (main["state"], main["listeners"], main["codec_listeners"]) == ("live", 6, {"pcm_s16le": 6})
        assert main["broadcaster"] == {
            "connection_id": source.connection_id,
            "client_address": "192.0.2.9",
            "node": "two",
        }
        assert (main["lead_ms"], main["released_frames"], main["delivered_frames"]) == (59, 3, 18)
        assert "is_home" not in main
        json.dumps(answer)


async def test_the_frames_of_a_channel_that_moved_are_those_of_all_its_homes(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    before = one.bench.claim()
    one.bench.publish(before, 2)
    one.bench.hub.following.resign(before.channel)
    two.bench.publish(two.bench.claim(), 3)
    (main,) = (await one.find(SHOW))["channels"]
    assert (main["released_frames"], main["broadcaster"]["node"]) == (5, "two")


async def test_one_node_sees_what_it_alone_would_see(nodes: Nodes) -> None:
    one = await nodes.join("one")
    one.bench.claim()
    one.bench.join()
    alone = Operations(one.bench.hub, one.bench.time)
    expected = alone.show_session("ev1", ALL)
    assert expected is not None
    shown = await one.find(SHOW)
    del shown["silent_nodes"], shown["channels"][0]["broadcaster"]["node"], shown["worst_listeners"][0]["node"]
    assert shown == expected


async def test_the_worst_listeners_are_the_worst_of_all_nodes(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    for node, lag_seconds in ((one, 1.0), (two, 2.0)):
        source = node.bench.claim(channel=node.bus.node_id)
        ports = [node.bench.join(f"{number}", channel=node.bus.node_id) for number in range(MAX_LISTENERS)]
        await node.bench.settle()
        for port in ports:
            block(port)
        node.bench.publish(source)
        node.bench.now += lag_seconds
    shown = await one.find(SHOW)
    assert shown["listeners"] == 2 * MAX_LISTENERS
    assert [each["node"] for each in shown["worst_listeners"]] == ["two"] * MAX_LISTENERS


async def test_an_answer_is_bounded_and_its_sums_are_those_of_all(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    for number in range(MAX_CHANNELS + 50):
        for node in (one, two):
            node.bench.join(f"{number}", channel=f"c{number}")
    # Node two has so many others that it only counts c0, which is among the first of node one.
    for number in range(MAX_CHANNELS):
        two.bench.join(f"more {number}", channel=f"c{number + 50}")
    for number in range(3):
        one.bench.join(f"another {number}", channel="c0")
    shown = await one.find(SHOW)
    assert (len(shown["channels"]), shown["not_listed"]) == (MAX_CHANNELS, 50)
    figures = {each["id"]: each["listeners"] for each in shown["channels"]}
    assert (figures["c0"], figures["c298"]) == (5, 3)
    assert shown["listeners"] == 2 * (MAX_CHANNELS + 50) + MAX_CHANNELS + 3


async def test_more_than_a_node_counts_is_told_as_a_number(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "MAX_COUNTED", 20)
    one, two = [await nodes.join(name) for name in ("one", "two")]
    for number in range(MAX_CHANNELS + 50):
        two.bench.join(f"{number}", channel=f"c{number}")
    assert (await one.find(LIST))["not_listed"] == 50


async def test_a_silent_node_is_named_and_the_others_answer(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "ANSWER_SECONDS", 0.05)
    one, two, three = [await nodes.join(name) for name in ("one", "two", "three")]
    for node in (one, two, three):
        node.bench.join(channel=node.bus.node_id)
    two.bus.cut()
    answer = await one.find(LIST)
    assert answer["silent_nodes"] == ["two"]
    assert [channel["id"] for channel in answer["sessions"][0]["channels"]] == ["one", "three"]
    assert await one.ask(OperatorRequest(Operation.END, "ev1", "three")) == {
        "session": "ev1",
        "ended": ["three"],
        "silent_nodes": ["two"],
    }
    for wanted in (OperatorRequest(Operation.END, "ev1", "two"), OperatorRequest(Operation.SHOW, "ev9")):
        with pytest.raises(SilentNodesError, match="These nodes of the cluster do not answer: two"):
            await one.ask(wanted)
    assert await one.ask(OperatorRequest(Operation.SHOW, "ev9"), permit(("ev1",), ("*",))) is None
    answer = await two.find(LIST)
    assert answer["silent_nodes"] == ["one", "three"], "a node that is cut off itself answers for itself"
    assert [channel["id"] for channel in answer["sessions"][0]["channels"]] == ["two"]


async def test_a_node_that_says_something_else_is_silent(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]

    async def reply(_: bytes) -> bytes:
        return b'{"sessions":[]}'

    await two.bus.answer("operators", reply)
    assert (await one.find(LIST))["silent_nodes"] == ["two"]


async def test_the_home_ends_a_channel_and_nobody_else(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    for node in (one, two):
        for channel in ("main", "de", "unheard"):
            node.bench.join(f"of {channel}", channel=channel)
    source = two.bench.claim()
    there = one.bench.join("there")
    one.follow("main")
    two.follow("de")
    ended = await one.find(OperatorRequest(Operation.END, "ev1"))
    assert ended == {"session": "ev1", "ended": ["de", "main", "unheard"], "silent_nodes": []}
    assert two.bench.source_ports[source].closed is not None
    assert there.closed is None, "its node hears of the end from the home, behind the last audio"
    lines = [vars(line) for line in caplog.records if line.getMessage() == "the operator ended channels"]
    assert [(line["operator"], sorted(line["channels"])) for line in lines] == [
        (OPERATOR, ["de", "unheard"]),
        (OPERATOR, ["main", "unheard"]),
    ]


async def test_a_connection_is_disconnected_from_anywhere(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    there, staying = two.bench.join("there"), two.bench.join("staying")
    source = two.bench.claim()
    for name, role in (("there", "listen"), (source.connection_id, "broadcast")):
        wanted = OperatorRequest(Operation.DISCONNECT, "ev1", connection_id=name)
        assert await one.ask(wanted) == {
            "session": "ev1",
            "channel": "main",
            "disconnected": name,
            "role": role,
            "silent_nodes": [],
        }
    assert await one.ask(OperatorRequest(Operation.DISCONNECT, "ev1", connection_id="unknown")) is None
    assert (there.closed, staying.closed) == (SENT_AWAY, None)
    assert two.bench.source_ports[source].closed == SENT_AWAY


async def test_each_node_keeps_to_the_permit_of_the_operator(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    for channel in ("de", "fr"):
        two.bench.join(f"of {channel}", channel=channel)
    only = permit(("ev1",), ("de",))
    asked: list[bytes] = []
    reply = two.operations._reply

    async def listen_in(payload: bytes) -> bytes:
        asked.append(payload)
        return await reply(payload)

    await two.bus.answer("operators", listen_in)
    listed = await one.ask(LIST, only)
    assert listed is not None
    assert [each["id"] for each in listed["sessions"][0]["channels"]] == ["de"]
    wanted = OperatorRequest(Operation.DISCONNECT, "ev1", connection_id="of fr")
    assert await one.ask(wanted, only) is None
    assert await one.ask(OperatorRequest(Operation.END, "ev1", "fr"), only) is None
    assert len(asked) == 2, "what is not permitted is not asked for"
    assert not any(b"a test" in question for question in asked), "no credential travels"


async def test_the_answer_does_not_wait_for_a_node_that_is_gone(nodes: Nodes) -> None:
    one, two = [await nodes.join(name) for name in ("one", "two")]
    await two.bus.end()
    await nodes.cluster.settle()
    async with asyncio.timeout(operators.ANSWER_SECONDS / 2):
        assert (await one.find(LIST))["silent_nodes"] == []
