"""Limits count the seats of all nodes of a cluster, whatever news are lost and whichever nodes come and go."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.cluster import seats as shared_seats
from relay.cluster.seats import SharedSeats
from relay.limits.names import Limit
from relay.limits.seats import Counted, Seat, Seats
from relay.protocol.requests import Role
from tests.support.memory_bus import MemoryBus, MemoryCluster

LIMITS = {
    Limit.CONNECTIONS: 3,
    Limit.LISTENERS: 4,
    Limit.BROADCASTERS: 2,
    Limit.CONNECTIONS_PER_ADDRESS: 5,
}
SEATS = [
    Seat(role, session, group) for role in Role for session in ("a", "b") for group in ("192.0.2.1", "192.0.2.2", None)
]


class Owner:
    """An object that ends, like a connection."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], None]] = []

    def at_end(self, action: Callable[[], None]) -> None:
        self._actions.append(action)

    def end(self) -> None:
        while self._actions:
            self._actions.pop()()


class Node:
    """A node with its seats, and the owners that sit on them."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.seats = Seats()
        self.shared = SharedSeats(bus, self.seats)
        self.owners: list[Owner] = []

    def take(self, seat: Seat, count: int = 1) -> None:
        for _ in range(count):
            self.owners.append(Owner())
            self.seats.take(seat, self.owners[-1])

    def full(self, seat: Seat) -> Limit | None:
        return self.seats.full(seat, LIMITS.__getitem__)


class Nodes:
    """Nodes on one bus, which do their rounds when the test says so."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.cluster = MemoryCluster(expiry_seconds=0.001)
        self.stack = stack
        self.all: dict[str, Node] = {}

    async def join(self, name: str) -> Node:
        node = Node(await self.stack.enter_async_context(self.cluster.bus(name)))
        await self.stack.enter_async_context(node.shared)
        self.all[name] = node
        await self.cluster.settle()
        return node

    async def vanish(self, name: str) -> None:
        await self.all.pop(name).bus.end()
        await self.cluster.settle()

    async def rounds(self, count: int = 2) -> None:
        for _ in range(count):
            for node in list(self.all.values()):
                await node.shared.round()
            await self.cluster.settle()

    def check(self) -> None:
        for name, node in self.all.items():
            expected: Counter[Counted] = Counter()
            for other_name, other in self.all.items():
                if other_name != name:
                    expected.update(dict(other.seats.shared()))
            assert +node.shared._elsewhere == +expected, name


async def test_each_limit_but_that_of_a_process_counts_all_nodes() -> None:
    async with AsyncExitStack() as stack:
        nodes = Nodes(stack)
        one, two, three = [await nodes.join(name) for name in ("one", "two", "three")]
        listener, broadcaster = Seat(Role.LISTENER, "a", None), Seat(Role.BROADCASTER, "a", None)
        one.take(listener, 2)
        two.take(listener, 2)
        two.take(broadcaster)
        three.take(broadcaster)
        two.take(Seat(Role.LISTENER, "b", "192.0.2.1"))
        await nodes.rounds(1)
        for node in (one, two, three):
            assert node.full(listener) in (Limit.LISTENERS, Limit.CONNECTIONS)
            assert node.full(broadcaster) is Limit.BROADCASTERS
            assert node.full(Seat(Role.LISTENER, "b", "192.0.2.1")) in (None, Limit.CONNECTIONS)
        assert three.full(Seat(Role.LISTENER, "b", None)) is None, "a process counts its own connections only"
        one.take(Seat(Role.BROADCASTER, "b", "192.0.2.1"))
        three.take(Seat(Role.BROADCASTER, "b", "192.0.2.1"), 3)
        await nodes.rounds(1)
        assert one.full(Seat(Role.BROADCASTER, None, "192.0.2.1")) is Limit.CONNECTIONS_PER_ADDRESS
        for owner in two.owners:
            owner.end()
        await nodes.rounds(1)
        assert three.full(listener) is None
        nodes.check()


async def test_the_seats_of_a_node_that_is_gone_are_free_after_a_round() -> None:
    async with AsyncExitStack() as stack:
        nodes = Nodes(stack)
        one, two = [await nodes.join(name) for name in ("one", "two")]
        two.take(Seat(Role.LISTENER, "a", None), 4)
        await nodes.rounds(1)
        assert one.full(Seat(Role.LISTENER, "a", None)) is Limit.LISTENERS
        await nodes.vanish("two")
        await nodes.rounds(1)
        assert one.full(Seat(Role.LISTENER, "a", None)) is None
        again = await nodes.join("two")
        again.take(Seat(Role.LISTENER, "a", None))
        await nodes.rounds(1)
        nodes.check()


async def test_the_last_news_may_be_lost() -> None:
    async with AsyncExitStack() as stack:
        nodes = Nodes(stack)
        one, two = [await nodes.join(name) for name in ("one", "two")]
        await nodes.rounds()
        nodes.cluster.expiry_seconds = 60
        one.bus.cut()
        two.take(Seat(Role.LISTENER, "a", None), 3)
        await nodes.rounds(1)
        one.bus.heal()
        await nodes.cluster.settle()
        assert one.shared.elsewhere((Limit.LISTENERS, "a")) == 0
        await nodes.rounds()
        nodes.check()


async def test_news_that_come_twice_or_late_change_nothing() -> None:
    async with AsyncExitStack() as stack:
        nodes = Nodes(stack)
        one, two = [await nodes.join(name) for name in ("one", "two")]
        said: list[bytes] = []
        await one.bus.hear("seats", said.append)
        for _ in range(3):
            two.take(Seat(Role.LISTENER, "a", None))
            await nodes.rounds(1)
        assert len(said) > 2
        for payload in reversed(said):
            two.bus.say("seats", payload)
        await nodes.cluster.settle()
        nodes.check()


async def test_what_is_kept_of_a_node_is_bounded_and_what_is_not_kept_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_seats, "MAX_COUNTS", 10)
    async with AsyncExitStack() as stack:
        nodes = Nodes(stack)
        one, two = [await nodes.join(name) for name in ("one", "two")]
        two.take(Seat(Role.LISTENER, "large", None), 5)
        await nodes.rounds(1)
        for number in range(30):
            two.take(Seat(Role.LISTENER, f"s{number}", None))
        await nodes.rounds(5)
        assert len(one.shared._elsewhere) == 10
        assert one.shared.elsewhere((Limit.LISTENERS, "large")) == 5
        assert one.shared.not_kept == 21
        late = await nodes.join("late")
        await nodes.rounds(1)
        assert late.shared.elsewhere((Limit.LISTENERS, "large")) == 5, "it learns of the most crowded first"
        assert len(late.shared._elsewhere) == 10


async def test_a_node_of_another_version_disturbs_nobody() -> None:
    async with AsyncExitStack() as stack:
        nodes = Nodes(stack)
        one, _ = [await nodes.join(name) for name in ("one", "two")]
        strange = await stack.enter_async_context(nodes.cluster.bus("strange"))

        async def reply(_: bytes) -> bytes:
            return b'{"seats":1}'

        await strange.answer("seats", reply)
        strange.say("seats", b'["strange"]')
        await nodes.cluster.settle()
        one.take(Seat(Role.LISTENER, "a", None))
        await nodes.rounds(2)
        nodes.check()


async def take(nodes: Nodes, name: str, number: int) -> None:
    nodes.all[name].take(SEATS[number % len(SEATS)])


async def leave(nodes: Nodes, name: str, number: int) -> None:
    owners = nodes.all[name].owners
    if owners:
        owners.pop(number % len(owners)).end()


async def cut(nodes: Nodes, name: str, _: int) -> None:
    nodes.all[name].bus.cut()


async def heal(nodes: Nodes, name: str, _: int) -> None:
    nodes.all[name].bus.heal()
    await nodes.cluster.settle()


async def vanish(nodes: Nodes, name: str, _: int) -> None:
    await nodes.vanish(name)


async def say(nodes: Nodes, name: str, _: int) -> None:
    nodes.all[name].shared._say_changes()
    await nodes.cluster.settle()


STEPS = st.lists(
    st.tuples(
        st.sampled_from([take, take, leave, cut, heal, vanish, say]), st.sampled_from("0123"), st.integers(0, 99)
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_whatever_happens_the_sum_is_right_after_two_rounds(
    steps: list[tuple[Callable[[Nodes, str, int], Awaitable[None]], str, int]],
) -> None:
    async def go_through() -> None:
        async with AsyncExitStack() as stack:
            nodes = Nodes(stack)
            nodes.cluster.answer_seconds = 0.01
            for name in "0123":
                await nodes.join(name)
            await nodes.rounds(2)
            for step, name, number in steps:
                if name not in nodes.all:
                    await nodes.join(name)
                await step(nodes, name, number)
            for node in nodes.all.values():
                node.bus.heal()
            await nodes.cluster.settle()
            await nodes.rounds(2)
            nodes.check()

    asyncio.run(go_through())
