"""The bus on a real NATS server: each promise of `relay.cluster.bus`, while the server works."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.cluster import nats_bus
from relay.cluster.bus import BusDownError, ConflictError, Record
from relay.cluster.nats_bus import NatsBus, open_bus
from tests.support.nats import NatsServer, cluster_settings, nats, node_process, until

WAIT_SECONDS = 30.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats(tmp_path) as running:
        yield running


@asynccontextmanager
async def buses(server: NatsServer, count: int = 2, **cluster: Any) -> AsyncIterator[list[NatsBus]]:
    """Connect nodes, which all know each other."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(open_bus(cluster_settings(server.url, **cluster))) for _ in range(count)
        ]
        await until(lambda: all(len(bus.nodes) == count for bus in made))
        yield made


def value_of(record: Record | None) -> bytes | None:
    return None if record is None else record.value


async def test_a_message_reaches_all_subscribers_in_order(server: NatsServer) -> None:
    async with buses(server, 3) as (a, b, c):
        taken: list[list[bytes]] = [[], [], []]
        for bus, each in zip((a, b, c), taken, strict=True):
            await bus.subscribe("audio.s.c", each.append)
        sent = [b"%d" % number for number in range(500)]
        for payload in sent:
            a.publish("audio.s.c", payload)
        a.publish("audio.s.other", b"for nobody")
        await until(lambda: all(len(each) >= len(sent) for each in taken))
        assert taken == [sent] * 3


async def test_a_closed_subscription_gets_nothing_more(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        first: list[bytes] = []
        second: list[bytes] = []
        subscription = await b.subscribe("audio.s.c", first.append)
        await b.subscribe("audio.s.c", second.append)
        a.publish("audio.s.c", b"1")
        await until(lambda: second == [b"1"])
        subscription.close()
        subscription.close()
        a.publish("audio.s.c", b"2")
        await until(lambda: second == [b"1", b"2"])
        assert first == [b"1"]


async def test_what_is_stored_includes_all_that_came_before(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        sent = [b"%d" % number for number in range(1201)]
        for payload in sent[:-1]:
            a.publish("audio.s.c", payload)
        await a.publish_stored("audio.s.c", sent[-1])
        assert await b.fetch("audio.s.c") == sent
        assert await b.fetch("audio.s.other") == []


async def test_what_is_not_confirmed_is_repeated_once_for_all_who_ask(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        taken: list[bytes] = []
        await b.subscribe("audio.s.c", taken.append)
        sent = [b"%d" % number for number in range(100)]
        for payload in sent:
            a.publish("audio.s.c", payload)
        await until(lambda: taken == sent)
        await asyncio.gather(*(a.repeat() for _ in range(5)))
        assert await b.fetch("audio.s.c") == sent * 2
        await until(lambda: len(taken) >= 2 * len(sent))
        assert taken == sent * 2


async def test_the_memory_is_asked_for_what_came_since_a_time(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        await a.publish_stored("held.s.c", b"early")
        await asyncio.sleep(0.05)
        since = time.time()  # noqa: TID251 - the server's clock is this machine's
        await a.publish_stored("held.s.c", b"late")
        assert await b.fetch("held.s.c", since) == [b"late"]
        assert await b.fetch("held.s.c", since + 1) == []


async def test_a_record_is_created_changed_and_deleted(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        reported: list[tuple[str, bytes | None]] = []
        b.on_record = lambda key, record: reported.append((key, value_of(record)))
        assert await a.read("s.c") is None
        first = await a.write("s.c", b"1", None)
        assert await b.read("s.c") == Record(b"1", first)
        second = await b.write("s.c", b"2", first)
        await a.delete("s.c", second)
        assert await b.read("s.c") is None
        third = await b.write("s.c", b"3", None)
        assert first < second < third
        await until(lambda: len(reported) == 4)
        assert reported == [("s.c", b"1"), ("s.c", b"2"), ("s.c", None), ("s.c", b"3")]


async def test_who_has_an_old_revision_loses(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        revision = await a.write("s.c", b"1", None)
        newer = await a.write("s.c", b"2", revision)
        for attempt in (
            b.write("s.c", b"x", revision),
            b.write("s.c", b"x", None),
            b.write("s.c", b"x", newer + 5),
            b.delete("s.c", revision),
        ):
            with pytest.raises(ConflictError):
                await attempt
        assert await b.read("s.c") == Record(b"2", newer)


async def test_a_write_that_lost_is_reported_to_nobody(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        reported: list[bytes | None] = []
        b.on_record = lambda _key, record: reported.append(value_of(record))
        await a.write("s.c", b"1", None)
        with pytest.raises(ConflictError):
            await a.write("s.c", b"lost", None)
        await a.write("s.d", b"2", None)
        await until(lambda: reported[-1:] == [b"2"])
        assert reported == [b"1", b"2"]


async def test_of_fifty_that_write_at_once_each_counts(server: NatsServer) -> None:
    async with buses(server, 3) as made:

        async def add(bus: NatsBus, name: bytes) -> None:
            """Add a name to the record. On a busy machine an answer may be late, and the write counts or does not."""
            while True:
                with contextlib.suppress(ConflictError, BusDownError):
                    record = await bus.read("s.c")
                    names, revision = ([], None) if record is None else (record.value.split(), record.revision)
                    if name in names:
                        return
                    await bus.write("s.c", b" ".join([*names, name]), revision)

        names = [b"%d" % number for number in range(50)]
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(*(add(made[number % 3], name) for number, name in enumerate(names)))
        record = await made[0].read("s.c")
        assert record is not None
        assert sorted(record.value.split()) == sorted(names)


async def test_a_new_node_gets_all_records(server: NatsServer) -> None:
    async with buses(server, 1) as (a,):
        revisions = [await a.write(f"s.{number}", b"%d" % number, None) for number in range(1100)]
        await a.delete("s.0", revisions[0])
        reported: dict[str, Record | None] = {}
        late = open_bus(cluster_settings(server.url))
        late.on_record = reported.__setitem__
        async with late:
            assert {key for key, record in reported.items() if record is not None} == {
                f"s.{number}" for number in range(1, 1100)
            }


async def test_news_that_got_lost_are_read_within_seconds(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.cluster.nats_bus.NatsBus._take_record", lambda *_: None)
    async with buses(server) as (a, b):
        reported: list[bytes | None] = []
        b.on_record = lambda _key, record: reported.append(value_of(record))
        await a.write("s.c", b"1", None)
        await until(lambda: reported == [b"1"])


async def test_nodes_come_drain_and_go(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others learn it at once, not with the next renewal or at the end of a life."""
    monkeypatch.setattr("relay.cluster.nats_bus.RENEWAL_INTERVAL_SECONDS", 1000.0)
    monkeypatch.setattr("relay.cluster.presence.LIFE_SECONDS", 1000.0)
    async with buses(server, 1) as (a,):
        seen: list[dict[str, bool]] = []
        a.on_nodes = lambda: seen.append({node.id: node.is_draining for node in a.nodes.values()})
        other = open_bus(cluster_settings(server.url, node="other"))
        assert other.node_id.startswith("other-")
        async with other:
            await until(lambda: seen[-1:] == [{a.node_id: False, other.node_id: False}])
            other.describe(url="http://other", is_draining=True, listeners=7)
            await until(lambda: seen[-1:] == [{a.node_id: False, other.node_id: True}])
            assert a.nodes[other.node_id].url == "http://other"
            assert a.nodes[other.node_id].listeners == 7
        await until(lambda: seen[-1:] == [{a.node_id: False}])


async def test_a_node_that_died_is_gone_after_its_life(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.cluster.presence.LIFE_SECONDS", 5.0)
    async with buses(server, 1) as (a,):
        async with node_process(server.url) as other:
            await until(lambda: len(a.nodes) == 2)
            other.kill()
        await until(lambda: len(a.nodes) == 1)
        assert a.is_up


async def test_all_nodes_are_asked_and_answer_with_their_names(server: NatsServer) -> None:
    async with buses(server, 3) as made:
        for bus in made:

            async def reply(question: bytes, name: str = bus.node_id) -> bytes:
                return question + b" " + name.encode()

            await bus.answer("who", reply)
        answers = await made[0].ask("who", b"is", WAIT_SECONDS)
        assert answers == {bus.node_id: b"is " + bus.node_id.encode() for bus in made}
        for bus in made:
            assert await made[1].ask_one(bus.node_id, "who", b"is", WAIT_SECONDS) == b"is " + bus.node_id.encode()


async def test_a_node_that_does_not_answer_is_missing(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async with buses(server, 3) as (a, b, c):

        async def reply(question: bytes) -> bytes:
            return question

        async def never(_: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def fail(_: bytes) -> bytes:
            raise BusDownError("of purpose")

        await a.answer("q", reply)
        await b.answer("q", never)
        await c.answer("q", fail)
        with caplog.at_level(logging.CRITICAL):
            assert await a.ask("q", b"x", 0.5) == {a.node_id: b"x"}
            for silent, name in ((b, "q"), (c, "q"), (b, "unknown")):
                with pytest.raises(BusDownError, match=f"The node {silent.node_id} did not answer"):
                    await a.ask_one(silent.node_id, name, b"x", 0.5)
        with pytest.raises(BusDownError, match="The node nobody did not answer"):
            await a.ask_one("nobody", "q", b"x", WAIT_SECONDS)


async def test_a_node_answers_only_so_many_questions_at_a_time(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_bus, "QUESTIONS", 2)
    async with buses(server) as (a, b):
        begun: list[bytes] = []
        may_end = asyncio.Event()

        async def slow(question: bytes) -> bytes:
            begun.append(question)
            await may_end.wait()
            return question

        await b.answer("q", slow)
        asking = [asyncio.ensure_future(a.ask_one(b.node_id, "q", name, WAIT_SECONDS)) for name in (b"1", b"2")]
        await until(lambda: len(begun) == 2)
        with pytest.raises(BusDownError, match="did not answer"):
            await a.ask_one(b.node_id, "q", b"3", 0.5)
        may_end.set()
        assert await asyncio.gather(*asking) == begun == [b"1", b"2"]
        assert await a.ask_one(b.node_id, "q", b"4", WAIT_SECONDS) == b"4"


async def test_a_slow_answer_delays_no_other(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def slow(_: bytes) -> bytes:
            begun.set()
            await may_end.wait()
            return b"slow"

        async def quick(_: bytes) -> bytes:
            return b"quick"

        await b.answer("slow", slow)
        await b.answer("quick", quick)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(a.ask_one(b.node_id, "slow", b"", WAIT_SECONDS))
            await begun.wait()
            assert await a.ask_one(b.node_id, "quick", b"", WAIT_SECONDS) == b"quick"
            may_end.set()
        assert waiting.result() == b"slow"


async def test_news_reach_all_nodes_and_their_own(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        heard: list[str] = []
        await a.hear("moved", lambda payload: heard.append(f"a {payload.decode()}"))
        subscription = await b.hear("moved", lambda payload: heard.append(f"b {payload.decode()}"))
        a.say("moved", b"1")
        await until(lambda: sorted(heard) == ["a 1", "b 1"])
        subscription.close()
        b.say("moved", b"2")
        await until(lambda: "a 2" in heard)
        assert sorted(heard) == ["a 1", "a 2", "b 1"]


async def test_clusters_with_different_prefixes_do_not_meet(server: NatsServer) -> None:
    async with buses(server, 1) as (a,), buses(server, 1, prefix="other") as (b,):
        heard: list[bytes] = []
        await b.subscribe("audio.s.c", heard.append)
        await b.hear("name", heard.append)
        await a.write("s.c", b"1", None)
        a.say("name", b"1")
        await a.publish_stored("audio.s.c", b"1")
        assert await b.read("s.c") is None
        assert await b.fetch("audio.s.c") == []
        assert (set(a.nodes), set(b.nodes), heard) == ({a.node_id}, {b.node_id}, [])


async def test_what_is_left_is_sent_at_the_end(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "FAREWELL_SECONDS", WAIT_SECONDS)
    async with buses(server, 1) as (a,):
        heard: list[bytes] = []
        await a.subscribe("audio.s.c", heard.append)
        async with open_bus(cluster_settings(server.url)) as b:
            for number in range(3000):
                b.publish("audio.s.c", b"%d" % number)
        await until(lambda: len(heard) == 3000)


async def test_a_listener_that_fails_stops_nothing(server: NatsServer) -> None:
    async with buses(server) as (a, b):
        heard: list[bytes] = []

        def take(payload: bytes) -> None:
            heard.append(payload)
            if payload == b"1":
                raise ValueError(payload)

        await b.subscribe("audio.s.c", take)
        for payload in (b"1", b"2"):
            a.publish("audio.s.c", payload)
        await until(lambda: heard == [b"1", b"2"])
        assert b.is_up


async def test_a_loop_that_was_busy_loses_nothing(server: NatsServer) -> None:
    """The client would drop the newest messages beyond its own limits, which are off."""
    async with buses(server) as (a, b):
        heard: list[bytes] = []
        await b.subscribe("audio.s.c", heard.append)
        sent = [number.to_bytes(4) * 165 for number in range(6000)]
        for payload in sent:
            a.publish("audio.s.c", payload)
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251 - busy on purpose
        await until(lambda: len(heard) >= len(sent))
        assert heard == sent


async def test_a_message_that_is_too_large_is_left_out(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async with buses(server) as (a, b):
        heard: list[bytes] = []
        await b.subscribe("audio.s.c", heard.append)
        a.publish("audio.s.c", bytes(2 * 1024 * 1024))
        a.publish("audio.s.c", b"small")
        await until(lambda: heard == [b"small"])
        assert a.is_up
    assert "a message is too large for NATS" in caplog.text


@pytest.mark.parametrize("action", ["read", "fetch", "write", "delete", "stored"])
async def test_cancelling_a_request_ends_it(server: NatsServer, action: str) -> None:
    async with buses(server, 1) as (a,):
        server.stop()
        try:
            actions: dict[str, Callable[[], object]] = {
                "read": lambda: a.read("s.c"),
                "fetch": lambda: a.fetch("audio.s.c"),
                "write": lambda: a.write("s.c", b"", None),
                "delete": lambda: a.delete("s.c", 1),
                "stored": lambda: a.publish_stored("audio.s.c", b""),
            }
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await actions[action]()  # type: ignore[misc]
        finally:
            server.go_on()
