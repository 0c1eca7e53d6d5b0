"""The bus in memory keeps the promises that nodes rely on. The same promises hold on NATS."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from relay.cluster.bus import Bus, BusDownError, ConflictError
from tests.support.memory_bus import MemoryBus, MemoryCluster


async def join(stack: AsyncExitStack, cluster: MemoryCluster, *names: str) -> list[MemoryBus]:
    return [await stack.enter_async_context(cluster.bus(name)) for name in names]


async def test_messages_arrive_later_in_order_everywhere_and_are_remembered() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster()
        one, two = await join(stack, cluster, "one", "two")
        bus: Bus = one
        heard: list[bytes] = []
        subscription = await two.subscribe("audio", heard.append)
        for number in range(3):
            bus.publish("audio", b"%d" % number)
        assert heard == []
        await cluster.settle()
        assert heard == [b"0", b"1", b"2"]
        await bus.publish_stored("audio", b"3")
        assert await two.fetch("audio") == [b"0", b"1", b"2", b"3"]
        subscription.close()
        subscription.close()
        bus.publish("audio", b"4")
        await cluster.settle()
        assert heard[-1] == b"3"


async def test_a_record_changes_only_with_its_revision() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster()
        one, two = await join(stack, cluster, "one", "two")
        seen: list[tuple[str, bytes | None]] = []
        two.on_record = lambda key, record: seen.append((key, None if record is None else record.value))
        first = await one.write("main", b"one", None)
        with pytest.raises(ConflictError):
            await two.write("main", b"two", None)
        second = await two.write("main", b"two", first)
        with pytest.raises(ConflictError):
            await one.delete("main", first)
        await one.delete("main", second)
        assert await one.read("main") is None
        await cluster.settle()
        assert seen == [("main", b"one"), ("main", b"two"), ("main", None)]


async def test_a_node_that_was_cut_off_sends_what_waited_and_reads_the_records_again() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster(answer_seconds=0.02, expiry_seconds=0.01)
        one, two = await join(stack, cluster, "one", "two")
        heard: list[bytes] = []
        missed: list[bytes] = []
        told: list[str] = []
        await two.hear("news", heard.append)
        await one.hear("news", missed.append)
        one.on_record = lambda key, _: told.append(key)
        one.on_up = lambda: told.append("up")
        one.cut()
        one.say("news", b"late")
        two.say("news", b"missed")
        with pytest.raises(BusDownError):
            await one.read("main")
        await two.write("main", b"two", None)
        await asyncio.sleep(0.03)
        assert (one.is_up, list(two.nodes), heard, told) == (False, ["two"], [b"missed"], [])
        one.heal()
        await cluster.settle()
        assert (sorted(two.nodes), heard, missed, told) == (
            ["one", "two"], [b"missed", b"late"], [b"late"], ["main", "up"]
        )  # fmt: skip


async def test_all_nodes_are_asked_and_those_that_are_cut_off_are_missing() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster(expiry_seconds=60)
        buses = await join(stack, cluster, "one", "two", "three")

        async def reply(question: bytes) -> bytes:
            await asyncio.sleep(0)
            return question.upper()

        for bus in buses:
            await bus.answer("who", reply)
        assert sorted(await buses[0].ask("who", b"x", 10)) == ["one", "three", "two"]
        buses[1].cut()
        assert await buses[0].ask("who", b"x", 0.05) == {"one": b"X", "three": b"X"}
        assert await buses[0].ask_one("three", "who", b"y", 10) == b"Y"
        with pytest.raises(BusDownError):
            await buses[0].ask_one("two", "who", b"y", 0.05)


async def test_what_a_node_says_of_itself_is_known_everywhere() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster()
        one, two = await join(stack, cluster, "one", "two")
        one.describe(url="http://one", is_draining=True, listeners=3)
        await cluster.settle()
        assert (two.nodes["one"].is_draining, two.nodes["one"].listeners) == (True, 3)
