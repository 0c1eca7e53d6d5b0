"""Several nodes on a bus in memory: audio from one to the others, and what becomes of it when nodes and links fail."""

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from math import inf
from typing import Any

import pytest
import pytest_asyncio

from relay.cluster import cluster, follower
from relay.cluster.bus import BusDownError
from relay.cluster.entries import Entry, Held, Snapshot
from relay.cluster.ownership import Ownership, key_of
from relay.hub.channel import Broadcaster
from relay.protocol.requests import Delivery, Offer, Resume
from relay.protocol.wire import Header
from relay.vocabulary.audio import AudioFormat, Pace
from relay.vocabulary.errors import ChannelBusyError, CloseCode, RelayError
from relay.vocabulary.labels import Label
from relay.vocabulary.names import ChannelAddress
from tests.support.cluster_node import SECONDS, ClusterNode
from tests.support.hub_bench import ADDRESS, FakePort, FakeSourcePort, split
from tests.support.memory_bus import MemoryBus, MemoryCluster


@pytest.fixture
def memory() -> MemoryCluster:
    return MemoryCluster()


@pytest_asyncio.fixture
async def nodes(memory: MemoryCluster) -> AsyncIterator[list[ClusterNode]]:
    """Three nodes whose clocks differ."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(ClusterNode(memory, name, skew_seconds=skew).running())
            for name, skew in (("a", 0.0), ("b", 0.3), ("c", -1000.0))
        ]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in several nodes
            await asyncio.sleep(0.005)


async def no_answer(*_: object) -> Any:
    raise BusDownError("The bus broke down.")


async def claim_in_time(node: ClusterNode) -> tuple[Broadcaster, FakeSourcePort]:
    """Claim the channel as soon as it is free."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(ChannelBusyError):
                return await node.claim()
            await asyncio.sleep(0.05)


def record_of(memory: MemoryCluster) -> Ownership | None:
    """The record of the channel as the bus has it."""
    record = memory.records.get(key_of(ADDRESS))
    return None if record is None else Ownership.unpack(record.value)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [index.to_bytes(2, "little") * 320 for index in range(first, first + count)]


def send(node: ClusterNode, source: Any, audio: list[bytes]) -> None:
    for each in audio:
        node.publish(source, 1, each)


def heard(port: FakePort) -> list[bytes]:
    """The audio that a listener received, frame by frame."""
    return [payload[16:] for write in port.writes for payload in split(write)]


def headers(port: FakePort) -> list[Header]:
    return port.frames


def assert_exact(port: FakePort) -> None:
    """Every number from the greeting on was delivered or told, once and in order."""
    expected = None
    for message in port.written:
        if isinstance(message, dict):
            if message["type"] == "hello":
                expected = message["epoch"], message["next_seq"]
            elif message["type"] == "format":
                expected = message["epoch"], 0
            elif message["type"] == "gap":
                assert expected == (message["epoch"], message["from_seq"])
                expected = message["epoch"], message["to_seq"] + 1
            continue
        for payload in split(message):
            header = Header.unpack(payload)
            assert expected == (header.epoch, header.seq)
            expected = header.epoch, header.seq + 1


async def test_listeners_of_all_nodes_hear_the_same_numbers(nodes: list[ClusterNode]) -> None:
    a, b, _c = nodes
    early = await b.join("early")
    source, _ = await a.claim()
    ports = [await node.join("listener") for node in nodes]
    audio = numbered(50)
    send(a, source, audio)
    await until(lambda: all(heard(port) == audio for port in (*ports, early)))
    for port in (*ports, early):
        assert_exact(port)
    assert (
        len({tuple((each.epoch, each.seq, each.media_time) for each in headers(port)) for port in (*ports, early)}) == 1
    )


async def test_due_times_follow_the_clock_of_each_node(nodes: list[ClusterNode]) -> None:
    a, b, _ = nodes
    source, _ = await a.claim()
    here, there = await a.join(), await b.join()
    for _ in range(10):
        send(a, source, numbered(1))
        await asyncio.sleep(0.02)
    await until(lambda: len(heard(there)) == 10)
    differences = [after.due_ms - before.due_ms for before, after in zip(headers(here), headers(there), strict=True)]
    assert min(differences) >= 295, differences
    assert min(differences) <= 320


async def test_a_node_that_never_had_a_channel_lets_a_listener_resume(nodes: list[ClusterNode]) -> None:
    a, b, _ = nodes
    source, _ = await a.claim()
    here = await a.join()
    audio = numbered(100)
    send(a, source, audio)
    await until(lambda: len(heard(here)) == 100)
    last = headers(here)[39]
    there = await b.join(delivery=Delivery(resume=Resume(last.epoch, last.seq)))
    assert there.hello["resumed"]
    await until(lambda: len(heard(there)) == 60)
    assert heard(there) == audio[40:]
    assert_exact(there)


async def test_listeners_that_come_at_once_fetch_a_channel_once(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = nodes
    source, _ = await a.claim()
    here = await a.join()
    send(a, source, numbered(50))
    await until(lambda: len(heard(here)) == 50)
    last, fetched = headers(here)[19], list[str]()
    fetch = b.bus.fetch

    async def count(subject: str, since: float | None = None) -> list[bytes]:
        fetched.append(subject)
        return await fetch(subject, since)

    monkeypatch.setattr(b.bus, "fetch", count)
    resume = Delivery(resume=Resume(last.epoch, last.seq))
    ports = await asyncio.gather(*(b.join(f"{number}", resume) for number in range(100)))
    await until(lambda: all(len(heard(port)) == 30 for port in ports))
    assert len(fetched) == 1


async def test_a_burst_is_the_same_on_a_node_that_never_had_the_channel(nodes: list[ClusterNode]) -> None:
    a, _, c = nodes
    source, _ = await a.claim()
    for frame in numbered(20):
        send(a, source, [frame])
        await asyncio.sleep(0.01)
    there = await c.join(delivery=Delivery(burst_ms=5000))
    await until(lambda: len(heard(there)) == 20)
    assert heard(there) == numbered(20)


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_what_was_cleared_is_not_heard_on_a_node_that_never_had_the_channel(
    nodes: list[ClusterNode], memory: MemoryCluster, is_recorded: bool
) -> None:
    a, _, c = nodes
    source, _ = await a.claim()
    send(a, source, numbered(20))
    a.bench.hub.broadcasting.clear(source)
    if is_recorded:
        await until(lambda: (record := record_of(memory)) is not None and record.as_of[1] > 20)
    send(a, source, numbered(5, 20))
    there = await c.join(delivery=Delivery(burst_ms=5000))
    send(a, source, numbered(1, 25))
    await until(lambda: numbered(1, 25)[0] in heard(there))
    assert heard(there) == numbered(6, 20)
    assert_exact(there)


async def test_a_channel_is_claimed_once_in_the_cluster(nodes: list[ClusterNode]) -> None:
    a, b, _ = nodes
    await a.claim()
    with pytest.raises(ChannelBusyError):
        await b.claim()


async def test_a_broadcaster_that_takes_over_on_another_node_goes_on_with_the_numbers(nodes: list[ClusterNode]) -> None:
    a, b, _c = nodes
    source, port = await a.claim()
    listeners = [await node.join() for node in nodes]
    send(a, source, numbered(20))
    other, _ = await b.claim(Offer(takeover=True))
    assert port.closed is not None
    assert port.closed[0] is CloseCode.TAKEN_OVER
    send(a, source, numbered(5, 500))
    send(b, other, numbered(20, 20))
    await until(lambda: all(len(heard(each)) == 40 for each in listeners))
    for each in listeners:
        assert heard(each) == numbered(40)
        assert_exact(each)
        assert "source_lost" not in [message.get("state") for message in each.told]


async def test_a_broadcaster_goes_on_elsewhere_when_its_node_dies(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    source, _ = await a.claim(connection_id="first")
    there = await c.join()
    send(a, source, numbered(30))
    await until(lambda: len(heard(there)) == 30)
    epoch = headers(there)[-1].epoch
    await a.die()
    again, _ = await b.claim(Offer(takeover=True, resume="first"))
    assert again.accepted_before == 30 * 320
    assert (again.start.epoch, again.start.seq) == (epoch, 30)
    send(b, again, numbered(30, 30))
    await until(lambda: len(heard(there)) == 60)
    assert heard(there) == numbered(60)
    assert_exact(there)


async def test_a_claim_that_was_not_finished_loses_nothing(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    source, _ = await a.claim(connection_id="first")
    there = await c.join()
    send(a, source, numbered(30))
    await until(lambda: len(heard(there)) == 30)

    with monkeypatch.context() as broken:
        broken.setattr(b.bus, "publish_stored", no_answer)
        with pytest.raises(RelayError, match="can't reach its cluster"):
            await b.claim(Offer(takeover=True, resume="first"), connection_id="lost")
    again, _ = await c.claim(Offer(takeover=True, resume="first"))
    assert again.accepted_before == 30 * 320
    send(c, again, numbered(10, 30))
    late = await b.join("late", Delivery(burst_ms=5000))
    await until(lambda: len(heard(there)) == 40 and len(heard(late)) == 40)
    assert heard(there) == heard(late) == numbered(40)
    assert_exact(there)


async def test_a_node_whose_claim_failed_still_follows(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    source, _ = await a.claim(connection_id="first")
    there = await b.join()
    send(a, source, numbered(30))
    await until(lambda: len(heard(there)) == 30)

    with monkeypatch.context() as broken:
        broken.setattr(b.bus, "fetch", no_answer)
        with pytest.raises(RelayError, match="can't reach its cluster"):
            await b.claim(Offer(takeover=True, resume="first"), connection_id="lost")
    again, _ = await c.claim(Offer(takeover=True, resume="first"))
    send(c, again, numbered(10, 30))
    await until(lambda: len(heard(there)) == 40)
    assert heard(there) == numbered(40)
    assert_exact(there)


async def test_a_claim_that_was_not_finished_does_not_lock_the_channel(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    for node in nodes:
        node.cluster.settle_now()
    listener = await c.join()
    with monkeypatch.context() as broken:
        broken.setattr(b.bus, "publish_stored", no_answer)
        with pytest.raises(RelayError, match="can't reach its cluster"):
            await b.claim(connection_id="lost")
    # The broadcaster returns to the same node at once, or to another one as soon as the first has taken care of it.
    source, _ = await b.claim(connection_id="again")
    send(b, source, numbered(5))
    await until(lambda: len(heard(listener)) == 5)
    b.bench.hub.broadcasting.release(source)
    with monkeypatch.context() as broken:
        broken.setattr(a.bus, "publish_stored", no_answer)
        with pytest.raises(RelayError, match="can't reach its cluster"):
            await a.claim(Offer(takeover=True), connection_id="lost")
    last, _ = await claim_in_time(c)
    send(c, last, numbered(5, 5))
    await until(lambda: len(heard(listener)) == 10)
    assert heard(listener) == numbered(10)
    assert_exact(listener)


async def test_a_claim_whose_record_was_written_without_an_answer_does_not_lock_the_channel(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b, c = nodes
    b.cluster.settle_now()
    write = b.bus.write

    async def write_without_answer(key: str, value: bytes, revision: int | None) -> int:
        await write(key, value, revision)
        raise BusDownError("The answer was lost.")

    with monkeypatch.context() as broken:
        broken.setattr(b.bus, "write", write_without_answer)
        with pytest.raises(RelayError, match="can't reach its cluster"):
            await b.claim(connection_id="lost")
    assert memory.records
    await claim_in_time(c)


async def test_an_adoption_that_fails_is_tried_again(nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = nodes
    for node in nodes:
        node.cluster.settle_now()
    await a.claim()
    there = await c.join()
    failed = asyncio.Event()

    async def fail(*_: object) -> None:
        failed.set()
        await no_answer()

    with monkeypatch.context() as broken:
        for node in (b, c):
            broken.setattr(node.bus, "publish_stored", fail)
        await a.die()
        await until(failed.is_set)
    await until(lambda: there.of_type("state") and there.of_type("state")[-1]["state"] == "source_lost")
    assert b.cluster.tally.adoptions + c.cluster.tally.adoptions == 1


async def test_speech_that_waits_is_released_by_the_next_home(nodes: list[ClusterNode]) -> None:
    a, b, c = nodes
    offer = Offer(pace=Pace.SPEECH)
    source, _ = await a.claim(offer, connection_id="first")
    there = await c.join()
    # 2 s are released early, and 3 s wait.
    send(a, source, numbered(250))
    await until(lambda: len(heard(there)) >= 100)
    await a.die()
    again, _ = await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="first"))
    assert again.accepted_before == 250 * 320
    send(b, again, numbered(10, 250))
    await until(lambda: len(heard(there)) >= 180)
    released = len(heard(there))
    assert heard(there) == numbered(released)
    b.bench.hub.broadcasting.clear(again)
    last, _ = await c.claim(Offer(pace=Pace.SPEECH, takeover=True, resume=again.connection_id))
    send(c, last, numbered(3, 900))
    await until(lambda: heard(there)[-3:] == numbered(3, 900))
    assert_exact(there)


async def cut_off(home: ClusterNode, other: ClusterNode) -> tuple[Any, FakePort, FakePort]:
    """Broadcast 30 frames at the home, of which the other node gets 10. Return the source, and a listener of each."""
    source, _ = await home.claim()
    here, there = await home.join(), await other.join()
    send(home, source, numbered(10))
    await until(lambda: len(heard(there)) == 10)
    other.bus.cut()
    send(home, source, numbered(20, 10))
    await until(lambda: len(heard(here)) == 30)
    return source, here, there


async def lose_home(home: ClusterNode, other: ClusterNode, behind: ClusterNode) -> tuple[FakePort, FakePort]:
    """Let a home die. Of its 30 frames, one node has all, and one that is cut off has 10. Return a listener of each."""
    elsewhere = await other.join()
    _, _, there = await cut_off(home, behind)
    await until(lambda: len(heard(elsewhere)) == 30)
    await home.die()
    return elsewhere, there


async def test_a_node_that_was_cut_off_and_becomes_the_home_has_what_the_last_one_sent(
    nodes: list[ClusterNode],
) -> None:
    a, b, c = nodes
    elsewhere, there = await lose_home(a, b, c)
    c.bus.heal()
    again, _ = await c.claim(Offer(takeover=True, resume="source 1 of a"))
    assert again.accepted_before == 30 * 320
    send(c, again, numbered(10, 30))
    await until(lambda: len(heard(there)) == len(heard(elsewhere)) == 40)
    for port in (there, elsewhere):
        assert heard(port) == numbered(40)
        assert_exact(port)


async def test_what_a_replaced_home_sent_is_fetched_once_the_memory_works(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    _, there = await lose_home(a, b, c)
    with monkeypatch.context() as early:
        # Messages arrive before the bus counts as up.
        early.setattr(MemoryBus, "is_up", property(lambda bus: bus is not c.bus))
        early.setattr(c.bus, "on_up", lambda: None)
        c.bus.heal()
        again, _ = await b.claim(Offer(takeover=True, resume="source 1 of a"))
        send(b, again, numbered(10, 30))
        await memory.settle()
    c.bus.on_up()
    await until(lambda: len(heard(there)) >= 40)
    assert heard(there) == numbered(40)
    assert_exact(there)


async def test_a_new_home_continues_behind_what_the_cluster_lost(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    elsewhere, there = await lose_home(a, b, c)
    fetch = c.bus.fetch

    async def fetch_some(subject: str, since: float | None = None) -> list[bytes]:
        return [each for each in await fetch(subject, since) if Entry.unpack(each).index not in range(15, 20)]

    monkeypatch.setattr(c.bus, "fetch", fetch_some)
    c.bus.heal()
    again, _ = await c.claim(Offer(takeover=True, resume="source 1 of a"))
    send(c, again, numbered(10, 30))
    await until(lambda: heard(elsewhere)[-10:] == heard(there)[-10:] == numbered(10, 30))
    assert heard(elsewhere) == numbered(40)
    assert_exact(elsewhere)
    assert_exact(there)


async def test_what_the_home_itself_has_lost_is_not_waited_for(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PATIENCE_SECONDS", 10 * SECONDS)
    a, b, _ = nodes
    source, _, there = await cut_off(a, b)
    memory.lose_memory()
    b.bus.heal()
    send(a, source, numbered(5, 30))
    await until(lambda: len(heard(there)) == 15)
    assert heard(there) == numbered(10) + numbered(5, 30)
    assert b.cluster.tally.lost_entries == 1
    assert_exact(there)


async def test_what_the_home_still_has_is_waited_for(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = nodes
    source, _, there = await cut_off(a, b)
    # The memory gets them again when the home is asked.
    lost = memory.recall(f"audio.{key_of(ADDRESS)}", None)
    memory.lose_memory()
    asked = asyncio.Event()

    async def repeat() -> None:
        asked.set()
        for payload in lost:
            memory.remember(f"audio.{key_of(ADDRESS)}", payload)

    monkeypatch.setattr(a.bus, "repeat", repeat)
    b.bus.heal()
    send(a, source, numbered(5, 30))
    await until(lambda: len(heard(there)) == 35)
    assert asked.is_set()
    assert heard(there) == numbered(35)
    assert b.cluster.tally.lost_entries == 0
    assert_exact(there)


async def test_entries_that_wait_are_bounded_and_those_that_were_dropped_are_fetched(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0

    class Watched(deque[Any]):
        def append(self, entry: Any) -> None:
            nonlocal most
            super().append(entry)
            most = max(most, len(self))

    monkeypatch.setattr(follower, "deque", Watched)
    monkeypatch.setattr(follower, "MAX_WAITING", 10)
    monkeypatch.setattr(follower, "PATIENCE_SECONDS", 10 * SECONDS)
    a, b, c = nodes
    source, _, there = await cut_off(a, b)
    other = await c.join()
    lost = memory.recall(f"audio.{key_of(ADDRESS)}", None)
    memory.lose_memory()
    may_repeat = asyncio.Event()

    async def repeat() -> None:
        await may_repeat.wait()
        for payload in lost:
            memory.remember(f"audio.{key_of(ADDRESS)}", payload)

    monkeypatch.setattr(a.bus, "repeat", repeat)
    b.bus.heal()
    await until(lambda: b.bus.is_up)
    send(a, source, numbered(40, 30))
    await until(lambda: len(heard(other)) >= 40)
    await memory.settle()
    may_repeat.set()
    await until(lambda: len(heard(there)) == 70)
    assert heard(there) == numbered(70)
    assert most == 10
    assert b.cluster.tally.lost_entries == 0


async def test_what_arrives_twice_late_or_out_of_order_is_heard_once_and_in_order() -> None:
    memory = MemoryCluster(disorder=random.Random(7))  # noqa: S311 - a repeatable disorder
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(ClusterNode(memory, name).running()) for name in "ab"]
        source, _ = await a.claim()
        there = await b.join()
        for frame in numbered(300):
            send(a, source, [frame])
            await asyncio.sleep(0.001)
        await until(lambda: len(heard(there)) == 300)
        assert heard(there) == numbered(300)
        assert b.cluster.tally.repairs > 0
        assert b.cluster.tally.lost_entries == 0


async def test_a_link_that_was_cut_is_made_up_for(nodes: list[ClusterNode]) -> None:
    a, b, _c = nodes
    source, here, there = await cut_off(a, b)
    b.bus.heal()
    send(a, source, numbered(5, 30))
    await until(lambda: len(heard(there)) == 35)
    assert heard(there) == numbered(35)
    # The home itself is cut off: it holds what it could not send.
    a.bus.cut()
    send(a, source, numbered(20, 35))
    await until(lambda: len(heard(here)) == 55)
    a.bus.heal()
    await until(lambda: len(heard(there)) == 55)
    assert heard(there) == numbered(55)
    assert_exact(there)


async def test_a_home_that_was_cut_off_and_replaced_is_not_heard_again(nodes: list[ClusterNode]) -> None:
    a, b, c = nodes
    source, port = await a.claim()
    here, there = await a.join(), await c.join()
    send(a, source, numbered(10))
    await until(lambda: len(heard(there)) == 10)
    a.bus.cut()
    other, _ = await b.claim(Offer(takeover=True))
    send(a, source, numbered(30, 500))
    send(b, other, numbered(10, 10))
    await until(lambda: len(heard(there)) == 20)
    await until(lambda: len(heard(here)) == 40)
    a.bus.heal()
    await until(lambda: port.closed is not None)
    assert port.closed == (CloseCode.TAKEN_OVER, CloseCode.TAKEN_OVER.reason)
    send(b, other, numbered(10, 20))
    await until(lambda: len(heard(there)) == 30)
    assert heard(there) == numbered(30)
    # Those who heard the old home go on in another epoch, so no number has two meanings.
    await until(lambda: len(heard(here)) == 60)
    assert heard(here) == numbered(10) + numbered(30, 500) + numbered(20, 10)
    assert here.closed is None
    assert headers(here)[40].epoch == headers(there)[10].epoch != headers(here)[39].epoch
    assert_exact(here)
    assert_exact(there)


async def test_a_listener_that_got_more_than_the_cluster_resumes_once_that_comes_again(
    nodes: list[ClusterNode],
) -> None:
    a, b, c = nodes
    source, _ = await a.claim(connection_id="first")
    here, there = await a.join(), await c.join()
    send(a, source, numbered(10))
    await until(lambda: len(heard(there)) == 10)
    a.bus.cut()
    send(a, source, numbered(5, 10))
    await until(lambda: len(heard(here)) == 15)
    await a.die()
    last = headers(here)[-1]
    joining = asyncio.get_running_loop().create_task(c.join("back", Delivery(resume=Resume(last.epoch, last.seq))))
    again, _ = await b.claim(Offer(takeover=True, resume="first"))
    assert again.accepted_before == 10 * 320
    send(b, again, numbered(20, 10))
    back = await joining
    assert back.hello["resumed"]
    await until(lambda: len(heard(back)) == 15)
    assert heard(here) + heard(back) == numbered(30)
    assert_exact(back)


async def speak(home: ClusterNode, *nodes: ClusterNode, frames: int = 250) -> FakePort:
    """Broadcast speech, of which 2 s are released early. Return a listener of the last node; all nodes have one."""
    source, _ = await home.claim(Offer(pace=Pace.SPEECH), connection_id=home.name)
    *_, there = [await node.join() for node in nodes]
    send(home, source, numbered(frames))
    await until(lambda: len(heard(there)) >= min(frames, 100))
    return there


async def test_speech_that_waits_outlives_one_home_after_another() -> None:
    memory = MemoryCluster(delay_seconds=0.05)
    async with AsyncExitStack() as stack:
        a, b, c, d = [await stack.enter_async_context(ClusterNode(memory, name).running()) for name in "abcd"]
        # All follow, so each takes what messages need on their way for a difference of clocks.
        there = await speak(a, b, c, d)
        await a.die()
        await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"), connection_id="b")
        await asyncio.sleep(0.2)
        await b.die()
        await c.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="b"))
        await until(lambda: len(heard(there)) >= 250)
        assert heard(there) == numbered(250)
        assert_exact(there)


@pytest_asyncio.fixture
async def nodes_with_a_slow_clock(memory: MemoryCluster) -> AsyncIterator[list[ClusterNode]]:
    """Four nodes. The time of day of the second one is a second behind. Nodes that follow a channel notice."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(ClusterNode(memory, name, wall_skew_seconds=skew).running())
            for name, skew in (("a", 0.0), ("b", -1.0), ("c", 0.0), ("d", 0.0))
        ]


@pytest.mark.parametrize("last_word", [Snapshot, Held])
async def test_speech_that_waits_outlives_a_home_that_released_none_of_it(
    nodes_with_a_slow_clock: list[ClusterNode],
    memory: MemoryCluster,
    monkeypatch: pytest.MonkeyPatch,
    last_word: type[Snapshot | Held],
) -> None:
    a, b, c, d = nodes_with_a_slow_clock
    there = await speak(a, b, c, d)
    await a.die()
    remember = memory.remember

    def cut_off_after(subject: str, payload: bytes) -> None:
        remember(subject, payload)
        body = Entry.unpack(payload).body
        if isinstance(body, last_word) and (isinstance(body, Snapshot) or body.audio == numbered(1, 249)[0]):
            b.bus.cut()

    with monkeypatch.context() as first_words:
        first_words.setattr(memory, "remember", cut_off_after)
        await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"), connection_id="b")
        await until(lambda: not b.bus.is_up)
    await b.die()
    # The greeting of this home was lost, too.
    again, _ = await c.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"))
    assert again.accepted_before == 250 * 320
    await until(lambda: len(heard(there)) >= 250)
    assert heard(there) == numbered(250)
    assert_exact(there)


async def test_speech_that_waits_is_not_late_at_a_home_with_another_clock(
    nodes_with_a_slow_clock: list[ClusterNode],
) -> None:
    a, b, _, _ = nodes_with_a_slow_clock
    there = await speak(a, b)
    await a.die()
    await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"))
    await until(lambda: len(heard(there)) >= 150)
    due = [each.due_ms for each in headers(there)]
    assert max(after - before for before, after in itertools.pairwise(due)) < 500


async def test_new_speech_follows_what_waits_at_a_home_with_another_clock(
    nodes_with_a_slow_clock: list[ClusterNode],
) -> None:
    a, b, _, _ = nodes_with_a_slow_clock
    await speak(a, b, frames=1000)
    again, _ = await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"))
    send(b, again, numbered(10, 1000))
    due = [each.due for each in again.channel.waiting]
    steps = [after - before for before, after in itertools.pairwise(due)]
    assert max(abs(step - 0.02) for step in steps) < 0.5


async def test_speech_that_waits_longer_for_its_next_home_than_listeners_keep_audio_is_heard(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    there = await speak(a, c, frames=500)
    await b.die()
    memory.expiry_seconds = 10 * SECONDS
    await a.die()
    c.let_pass(16.0)
    memory.expire("a")
    await until(lambda: len(heard(there)) >= 200)
    assert heard(there) == numbered(len(heard(there)))
    assert_exact(there)


async def test_a_node_that_takes_over_late_a_channel_that_it_never_had_continues_its_numbers(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    source, _ = await a.claim()
    there = await c.join()
    await until(lambda: record_of(memory) is not None)
    send(a, source, numbered(10))
    await until(lambda: len(heard(there)) == 10)
    memory.expiry_seconds = 10 * SECONDS
    await a.die()
    # For the other one, it is too early to look for channels without a home.
    b.cluster.settle_now()
    b.let_pass(16.0)
    memory.expire("a")
    await until(lambda: b.cluster.tally.adoptions == 1)
    again, _ = await b.claim()
    send(b, again, numbered(10, 10))
    await until(lambda: len(heard(there)) == 20)
    assert heard(there) == numbered(20)
    assert_exact(there)


@pytest.mark.parametrize("farewell", ["end", "pause"])
async def test_how_a_broadcaster_left_outlives_its_home_while_its_speech_waits(
    nodes: list[ClusterNode], memory: MemoryCluster, farewell: str
) -> None:
    a, b, c = nodes
    c.cluster.settle_now()
    there = await speak(a, b, c)
    # Notes of the beginning have the record written, too.
    await until(lambda: there.of_type("channels") and record_of(memory) is not None)
    (channel,) = a.bench.hub.directory
    assert channel.broadcaster is not None
    getattr(a.bench.hub.broadcasting, farewell)(channel.broadcaster)
    await until(lambda: (record := record_of(memory)) is not None and record.channel.farewell == farewell)
    await a.die()
    await until(lambda: len(heard(there)) >= 250)
    assert heard(there) == numbered(250)
    await until(lambda: there.of_type("state")[-1]["state"] != "live")
    told = there.of_type("state")[-1]
    assert (told["state"], told["silence"]) == (("ended", None) if farewell == "end" else ("waiting", "paused"))


async def test_speech_that_was_released_is_not_released_again(nodes_with_a_slow_clock: list[ClusterNode]) -> None:
    a, b, c, d = nodes_with_a_slow_clock
    there = await speak(a, b, c, d, frames=90)
    await a.die()
    again, _ = await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"), connection_id="b")
    send(b, again, numbered(1, 90))
    await until(lambda: len(heard(there)) == 91)
    await b.die()
    last, _ = await c.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="b"))
    send(c, last, numbered(1, 91))
    await until(lambda: len(heard(there)) >= 92)
    assert heard(there) == numbered(92)
    assert_exact(there)


async def test_speech_of_an_earlier_broadcaster_does_not_count_as_accepted(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    there = await speak(a, c)
    await a.die()
    again, _ = await b.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="a"), connection_id="b")
    send(b, again, numbered(2, 250))
    await until(lambda: (record := record_of(memory)) is not None and record.speaker == "b")
    await until(lambda: len(heard(there)) >= 130)
    await b.die()
    last, _ = await c.claim(Offer(pace=Pace.SPEECH, takeover=True, resume="b"))
    assert last.accepted_before == 2 * 320


async def test_what_a_home_accepted_before_its_first_record_counts(
    nodes: list[ClusterNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    source, _ = await a.claim(connection_id="a")
    there = await c.join()
    send(a, source, numbered(10))
    await until(lambda: len(heard(there)) == 10)
    await a.die()
    again, _ = await b.claim(Offer(takeover=True, resume="a"), connection_id="b")
    monkeypatch.setattr(b.bus, "write", no_answer)
    send(b, again, numbered(5, 10))
    await until(lambda: len(heard(there)) == 15)
    await b.die()
    last, _ = await c.claim(Offer(takeover=True, resume="b"))
    assert last.accepted_before == 5 * 320


async def test_claims_are_refused_while_the_bus_is_down_and_audio_goes_on(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, _ = nodes
    source, port = await a.claim()
    here, there = await a.join(), await b.join()
    send(a, source, numbered(10))
    await until(lambda: len(heard(there)) == 10)
    memory.cut()
    send(a, source, numbered(10, 10))
    await until(lambda: len(heard(here)) == 20)
    with pytest.raises(RelayError, match="can't reach its cluster"):
        await b.claim(Offer(takeover=True))
    memory.lose_memory()
    memory.heal()
    await until(lambda: len(heard(there)) == 20)
    assert port.closed is None
    await until(lambda: memory.records)
    with pytest.raises(ChannelBusyError):
        await b.claim()
    assert_exact(there)


async def test_states_labels_and_lists_are_the_same_everywhere(nodes: list[ClusterNode]) -> None:
    a, b, c = nodes
    waiting = await b.join()
    source, _ = await a.claim(Offer(label=Label("Deutsch", "de"), session_name="Town hall"))
    await until(lambda: waiting.of_type("channels"))
    assert waiting.of_type("channels")[-1]["channels"] == [
        {"id": "main", "name": "Deutsch", "lang": "de", "state": "live"}
    ]
    listing = c.bench.hub.directory.listed(ADDRESS.session)
    await until(lambda: c.bench.hub.directory.listed(ADDRESS.session) != listing or listing)
    a.bench.hub.broadcasting.mute(source, on=True)
    await until(lambda: waiting.of_type("state")[-1].get("silence") == "muted")
    a.bench.hub.broadcasting.pause(source)
    await until(lambda: waiting.of_type("state")[-1]["state"] == "waiting")
    late = await c.join()
    assert late.hello["state"] == "waiting"
    assert late.hello["silence"] == "paused"
    assert late.hello["session_name"] == "Town hall"
    again, _ = await b.claim(Offer(AudioFormat(rate=48_000)))
    send(b, again, [bytes(1920)] * 3)
    await until(lambda: len(heard(late)) == 3)
    b.bench.hub.broadcasting.end(again)
    await until(lambda: late.closed is not None and waiting.closed is not None)
    assert late.closed is not None
    assert late.closed[0] is CloseCode.SESSION_ENDED
    assert_exact(late)
    assert_exact(waiting)


async def test_a_channel_whose_home_died_is_adopted(nodes: list[ClusterNode], memory: MemoryCluster) -> None:
    a, b, c = nodes
    for node in nodes:
        node.cluster.settle_now()
    await a.claim()
    there = await c.join()
    await a.die()
    await until(lambda: there.of_type("state") and there.of_type("state")[-1]["state"] == "source_lost")
    assert b.cluster.tally.adoptions + c.cluster.tally.adoptions == 1
    source, _ = await b.claim()
    send(b, source, numbered(3))
    await until(lambda: len(heard(there)) == 3)
    assert there.of_type("state")[-1]["state"] == "live"


async def test_a_node_that_leaves_gives_its_channels_up(nodes: list[ClusterNode]) -> None:
    a, _b, c = nodes
    for node in nodes:
        node.cluster.settle_now()
    source, _ = await a.claim(Offer(pace=Pace.SPEECH), connection_id="first")
    there = await c.join()
    send(a, source, numbered(200))
    await until(lambda: len(heard(there)) >= 100)
    a.bench.hub.broadcasting.release(source)
    await a.cluster.leave()
    await until(lambda: len(heard(there)) == 200)
    assert heard(there) == numbered(200)
    assert_exact(there)


CHANNELS = [ChannelAddress("event", f"{number}") for number in range(8)]


async def test_a_node_that_leaves_while_the_bus_is_down_serves_its_listeners_on() -> None:
    memory = MemoryCluster(answer_seconds=10 * SECONDS)
    async with AsyncExitStack() as stack:
        a, _ = [await stack.enter_async_context(ClusterNode(memory, name).running()) for name in "ab"]
        for address in CHANNELS:
            paused, _ = await a.claim(address=address)
            a.bench.hub.broadcasting.pause(paused)
        source, _ = await a.claim()
        here = await a.join()
        memory.cut()
        async with asyncio.timeout(SECONDS):
            await a.cluster.leave()
        send(a, source, numbered(5))
        await until(lambda: len(heard(here)) == 5)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_node_gives_up_its_channels_at_once_and_in_time(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    monkeypatch.setattr(cluster, "MOVE_SECONDS", 0.05)
    a, _b, _c = nodes
    for address in CHANNELS:
        source, _ = await a.claim(address=address)
        a.bench.hub.broadcasting.pause(source)
    begun, all_begun, publish_stored = 0, asyncio.Event(), a.bus.publish_stored

    async def publish_together(subject: str, payload: bytes) -> None:
        nonlocal begun
        begun += 1
        if begun == len(CHANNELS) and not is_silent:
            all_begun.set()
        await all_begun.wait()
        await publish_stored(subject, payload)

    monkeypatch.setattr(a.bus, "publish_stored", publish_together)
    async with asyncio.timeout(SECONDS):
        await a.cluster.leave()
    homes = {Ownership.unpack(record.value).home for record in memory.records.values()}
    assert homes == ({"a"} if is_silent else {""})


async def test_another_node_takes_a_channel_of_a_node_that_leaves(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "MOVE_SECONDS", 0.05)
    a, b, c = nodes
    for address in (CHANNELS[0], ADDRESS):
        source, _ = await a.claim(address=address)
        a.bench.hub.broadcasting.pause(source)
    there = await c.join()
    taken, publish_stored = list[Broadcaster](), a.bus.publish_stored

    async def take_another(subject: str, payload: bytes) -> None:
        if CHANNELS[0].channel in subject:
            taken.append((await b.claim())[0])
        await publish_stored(subject, payload)

    monkeypatch.setattr(a.bus, "publish_stored", take_another)
    await a.cluster.leave()
    (source,) = taken
    send(b, source, numbered(5))
    await until(lambda: len(heard(there)) == 5)
    await until(lambda: (record := record_of(memory)) is not None and record.home == "b")
    assert_exact(there)


async def test_another_node_takes_a_channel_whose_record_is_being_deleted(
    nodes: list[ClusterNode], memory: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = nodes
    source, _ = await a.claim()
    taken, delete = list[Broadcaster](), a.bus.delete

    async def take_another(key: str, revision: int) -> None:
        await delete(key, revision)
        taken.append((await b.claim())[0])

    monkeypatch.setattr(a.bus, "delete", take_another)
    a.bench.hub.broadcasting.release(source)
    a.bench.hub.directory.forget(source.channel)
    await until(lambda: taken)
    # The housekeeping of the first node goes on: it writes the state of its next channel.
    await a.claim(address=CHANNELS[0])
    key = key_of(CHANNELS[0])
    await until(lambda: Ownership.unpack(memory.records[key].value).channel.timeline.state == "live")


async def test_many_claims_at_once_leave_one_broadcaster(nodes: list[ClusterNode]) -> None:
    listeners = [await node.join() for node in nodes]
    chance = random.Random(5)  # noqa: S311 - no secret

    async def race(node: ClusterNode, number: int) -> None:
        try:
            source, port = await node.claim(Offer(takeover=True), connection_id=f"{node.name} {number}")
        except RelayError:
            return
        for frame in numbered(5, number * 10):
            await asyncio.sleep(chance.random() * 0.01)
            if port.closed is None:
                send(node, source, [frame])

    async with asyncio.TaskGroup() as tasks:
        for number in range(20):
            for node in nodes:
                tasks.create_task(race(node, number))

    def broadcasters() -> int:
        channels = [node.bench.hub.directory.find(ADDRESS) for node in nodes]
        return sum(channel is not None and channel.broadcaster is not None for channel in channels)

    await until(lambda: broadcasters() == 1)
    await until(lambda: len({tuple(heard(each)) for each in listeners}) == 1)
    for each in listeners:
        assert_exact(each)


async def test_a_broadcaster_knows_the_listeners_of_all_nodes(nodes: list[ClusterNode]) -> None:
    a, b, c = nodes
    _, port = await a.claim()
    for node, count in ((a, 1), (b, 2), (c, 3)):
        for number in range(count):
            await node.join(f"{number}")
    await until(lambda: port.of_type("stats") and port.of_type("stats")[-1]["listeners"] == 6)


async def end_session(memory: MemoryCluster, home: ClusterNode, other: ClusterNode, frames: int = 5) -> FakePort:
    """Broadcast at the home, end the session, and wait until its record says so. Return a listener of the other."""
    source, _ = await home.claim()
    there = await other.join()
    send(home, source, numbered(frames))
    await until(lambda: len(heard(there)) == frames)
    home.bench.hub.broadcasting.end(source)
    await until(lambda: there.closed is not None and (record := record_of(memory)) is not None and record.has_ended)
    return there


async def test_a_node_that_followed_a_session_can_be_the_home_of_the_next_one(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    await end_session(memory, a, b)
    source, _ = await b.claim()
    here, there = await b.join("here"), await c.join("there")
    send(b, source, numbered(5, 50))
    b.bench.hub.broadcasting.mute(source, on=True)
    await until(lambda: len(heard(there)) == len(heard(here)) == 5 and there.of_type("state"))
    # A home that follows itself would answer its own entries without end.
    async with asyncio.timeout(SECONDS):
        await memory.settle()
    for port in (here, there):
        assert heard(port) == numbered(5, 50)
        assert [message["silence"] for message in port.of_type("state")] == ["muted"]
        assert port.closed is None


async def test_a_node_that_only_lists_a_channel_learns_of_its_end(nodes: list[ClusterNode]) -> None:
    a, _, c = nodes

    def listed() -> int:
        return len(c.bench.hub.directory.listed(ADDRESS.session))

    source, _ = await a.claim()
    send(a, source, numbered(5))
    await until(lambda: listed() == 1)
    a.bench.hub.broadcasting.end(source)
    await until(lambda: listed() == 0)
    there = await c.join()
    assert there.hello["state"] == "waiting"
    again, _ = await c.claim()
    send(c, again, numbered(5, 50))
    await until(lambda: len(heard(there)) == 5)
    assert heard(there) == numbered(5, 50)
    assert_exact(there)


async def test_a_node_that_missed_the_end_of_a_session_does_not_continue_it(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    b.cluster.settle_now()
    source, _ = await a.claim()
    there = await c.join()
    send(a, source, numbered(5))
    await until(lambda: len(heard(there)) == 5)
    c.bus.cut()
    a.bench.hub.broadcasting.end(source)
    await until(lambda: (record := record_of(memory)) is not None and record.has_ended)
    records = dict(memory.records)
    memory.lose_memory()
    memory.records.update(records)
    c.bus.heal()
    await a.die()
    await until(lambda: there.closed is not None)
    assert there.closed == (CloseCode.SESSION_ENDED, CloseCode.SESSION_ENDED.reason)
    assert not memory.records
    assert b.cluster.tally.adoptions + c.cluster.tally.adoptions == 0


async def test_sessions_whose_record_was_deleted_between_do_not_mix(
    nodes: list[ClusterNode], memory: MemoryCluster
) -> None:
    a, b, c = nodes
    for node in nodes:
        node.cluster.settle_now()
    await end_session(memory, a, c, frames=100)
    await a.die()
    await until(lambda: not memory.records)
    source, _ = await b.claim()
    there = await c.join("there")
    send(b, source, numbered(100, 500))
    # This node started only now, so it knows the earlier session only from the memory of the bus.
    async with ClusterNode(memory, "d").running() as d:
        late = await d.join("late", Delivery(burst_ms=5000))
        await until(lambda: len(heard(there)) == len(heard(late)) == 100)
    assert heard(there) == heard(late) == numbered(100, 500)
    assert there.closed is None
    assert_exact(there)
    assert_exact(late)


async def broadcast_and_end(home: ClusterNode, other: ClusterNode) -> FakePort:
    """Broadcast 5 frames at the home, end the session, and return a listener that has heard that at the other node."""
    source, _ = await home.claim()
    there = await other.join()
    send(home, source, numbered(5))
    home.bench.hub.broadcasting.end(source)
    await until(lambda: there.closed is not None)
    return there


async def test_a_listener_that_comes_back_for_the_rest_of_a_session_ends_nothing_for_those_who_wait_for_the_next(
    nodes: list[ClusterNode],
) -> None:
    a, b, c = nodes
    there = await broadcast_and_end(a, c)
    waiting = await b.join("waiting")
    last = headers(there)[2]
    resumed = await b.join("resumed", Delivery(resume=Resume(last.epoch, last.seq)))
    await until(lambda: resumed.closed is not None)
    assert heard(resumed) == numbered(2, 3)
    assert waiting.closed is None
    again, _ = await c.claim()
    send(c, again, numbered(5, 50))
    await until(lambda: len(heard(waiting)) == 5)
    assert heard(waiting) == numbered(5, 50)
    b.bench.hub.directory.forget_ended(before=inf)
    assert b.bench.hub.directory.ended(ADDRESS) is None


async def test_a_channel_that_ended_begins_anew_on_another_node(nodes: list[ClusterNode]) -> None:
    a, b, c = nodes
    there = await broadcast_and_end(a, c)
    assert heard(there) == numbered(5)
    # A listener that was away when it ended hears the rest, and that it ended.
    last = headers(there)[2]
    resumed = await b.join("resumed", Delivery(resume=Resume(last.epoch, last.seq)))
    await until(lambda: resumed.closed is not None)
    assert heard(resumed) == numbered(2, 3)
    waiting = await c.join("waiting")
    assert waiting.hello["state"] == "waiting"
    again, _ = await b.claim()
    send(b, again, numbered(5, 50))
    await until(lambda: len(heard(waiting)) == 5)
    assert heard(waiting) == numbered(5, 50)
    assert waiting.closed is None
