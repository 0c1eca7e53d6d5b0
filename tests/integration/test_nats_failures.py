"""What nodes do while NATS fails: nothing within the bound is lost, and nobody notices later than promised."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from relay.cluster.bus import BusDownError, Record
from relay.cluster.nats_bus import NatsBus, open_bus
from tests.support.fault_proxy import fault_proxy
from tests.support.nats import ask_server, cluster_settings, nats, nats_cluster, node_process, until, urls

SUBJECT = "audio.s.c"


class Listening:
    """A node that follows one subject: it drops what it has, and reads from the memory what it misses.

    Attributes:
        heard: The numbers that arrived live, each once.
    """

    def __init__(self, bus: NatsBus) -> None:
        self.heard: list[int] = []
        self._bus = bus
        self._known: set[int] = set()

    async def begin(self) -> None:
        await self._bus.subscribe(SUBJECT, self._take)

    def _take(self, payload: bytes) -> None:
        number = int.from_bytes(payload[:4])
        if number not in self._known:
            self._known.add(number)
            self.heard.append(number)

    async def has_all(self, count: int) -> None:
        """Wait until live audio and memory together have all numbers below this one."""
        async with asyncio.timeout(60):
            while self._known < set(range(count)):
                await asyncio.sleep(0.2)
                try:
                    for payload in await self._bus.fetch(SUBJECT):
                        self._known.add(int.from_bytes(payload[:4]))
                except BusDownError:
                    continue


class Speaking:
    """A node that publishes 50 numbers a second."""

    def __init__(self, bus: NatsBus) -> None:
        self.count = 0
        self._bus = bus
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def until(self, count: int) -> None:
        await until(lambda: self.count >= count)

    async def for_seconds(self, seconds: float) -> None:
        await self.until(self.count + int(seconds * 50))

    async def _run(self) -> None:
        while True:
            self._bus.publish(SUBJECT, self.count.to_bytes(4) * 165)
            self.count += 1
            await asyncio.sleep(0.02)


@asynccontextmanager
async def nodes(*addresses: str, history_seconds: float = 20.0, **settings: Any) -> AsyncIterator[list[NatsBus]]:
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(
                open_bus(cluster_settings(address, history_seconds=history_seconds, **settings))
            )
            for address in addresses
        ]
        await until(lambda: all(len(bus.nodes) == len(made) for bus in made))
        yield made


async def read(bus: NatsBus, key: str) -> Record | None:
    """Read a record, once the servers have elected who knows it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await bus.read(key)
            except BusDownError:
                await asyncio.sleep(0.1)


async def remembered(bus: NatsBus) -> set[int]:
    """Return the numbers that the memory has."""
    return {int.from_bytes(payload[:4]) for payload in await bus.fetch(SUBJECT)}


@asynccontextmanager
async def audio(speaker: NatsBus, *listeners: NatsBus) -> AsyncIterator[Speaking]:
    """Carry audio from a node to others, and check at the end that all of it arrived.

    The speaker hears itself through the server, and its link fails and returns for both directions at once. So it hears
    everything live. Others may miss what was sent before their own link returned, and ask the memory. Messages may come
    out of order: a server may get the last ones of the old link after the first ones of the new link.
    """
    own, *others = (Listening(bus) for bus in (speaker, *listeners))
    for each in (own, *others):
        await each.begin()
    async with Speaking(speaker) as speaking:
        await speaking.until(50)
        yield speaking
        await until(lambda: speaker.is_up and all(bus.is_up for bus in listeners))
        await speaking.for_seconds(1)
    for each in others:
        await each.has_all(speaking.count)
    await until(lambda: len(own.heard) >= speaking.count)
    assert sorted(own.heard) == list(range(speaking.count))
    assert speaker.outbox.dropped_messages == 0


async def test_a_server_that_is_killed_and_starts_empty(tmp_path: Path) -> None:
    async with nats(tmp_path) as server, nodes(server.url, server.url) as (a, b), audio(a, b) as speaking:
        ups: list[str] = []
        b.on_up = lambda: ups.append("up")
        await server.kill()
        await until(lambda: not a.is_up and not b.is_up)
        await speaking.for_seconds(3)
        assert ups == []
        await server.start()
        await until(lambda: ups == ["up"])


async def test_an_outage_that_lasts_as_long_as_the_bound_loses_nothing(tmp_path: Path) -> None:
    """Coming back takes its time, too, and audio gets older meanwhile."""
    seconds = 3.0
    async with (
        nats(tmp_path) as server,
        nodes(server.url, server.url, history_seconds=seconds) as (a, b),
        audio(a, b) as speaking,
    ):
        await server.kill()
        await until(lambda: not a.is_up and not b.is_up)
        await speaking.for_seconds(seconds)
        await server.start()


@pytest.mark.long
async def test_a_server_that_is_killed_again_and_again_under_load(tmp_path: Path) -> None:
    """A message that the server confirmed, and took with it, is sent again, too."""
    async with nats(tmp_path) as server, nodes(server.url, server.url) as (a, b), audio(a, b) as speaking:
        for pause in (0.3, 0.9, 1.3, 2.1, 2.9):
            await speaking.for_seconds(pause)
            await server.restart()
            await until(lambda: a.is_up and b.is_up)


async def test_records_that_the_servers_lost_are_not_reported_as_deleted(tmp_path: Path) -> None:
    async with nats(tmp_path) as server, nodes(server.url, server.url) as (a, b):
        events: list[tuple[str, bytes | None] | str] = []

        def report(key: str, record: Record | None) -> None:
            events.append((key, None if record is None else record.value))

        b.on_record, b.on_up = report, lambda: events.append("up")
        for number in range(5):
            await a.write(f"s.{number}", b"old", None)
        await until(lambda: len(events) == 5)
        del events[:]
        await server.restart()
        await until(lambda: "up" in events and a.is_up)
        assert events == ["up"]
        # Revisions begin anew, and nothing takes the new record for an old one.
        assert await a.write("s.0", b"new", None) < 5
        await until(lambda: events[-1] == ("s.0", b"new"))


async def test_records_that_are_lost_while_the_link_lives(tmp_path: Path) -> None:
    """The server with the only copy restarts, and the nodes are connected to another one."""
    async with nats_cluster(tmp_path) as servers, AsyncExitStack() as stack:
        async with nodes(urls(servers)) as (first,):
            await first.write("s.c", b"1", None)
            info = await ask_server(servers[0].url, "$JS.API.STREAM.INFO.KV_relay_channels")
        holder = next(server for server in servers if server.name == info["cluster"]["leader"])
        others = urls(server for server in servers if server is not holder)
        a, b = await stack.enter_async_context(nodes(others, others))
        events: list[tuple[str, bytes | None] | str] = []
        a.on_record = lambda key, record: events.append((key, None if record is None else record.value))
        a.on_up = lambda: events.append("up")
        await holder.restart()
        await until(lambda: events[-1:] == ["up"])
        assert ("s.c", None) not in events
        assert await b.read("s.c") is None
        await until(lambda: b.is_up)
        await b.write("s.c", b"2", None)
        await until(lambda: events[-1] == ("s.c", b"2"))


@pytest.mark.parametrize("loss", ["DELETE", "PURGE"])
async def test_records_that_are_lost_without_any_other_failure(tmp_path: Path, loss: str) -> None:
    async with nats(tmp_path) as server, nodes(server.url, server.url) as (a, b):
        events: list[tuple[str, bytes | None] | str] = []
        b.on_record = lambda key, record: events.append((key, None if record is None else record.value))
        b.on_up = lambda: events.append("up")
        await a.write("s.c", b"1", None)
        await until(lambda: events == [("s.c", b"1")])
        await ask_server(server.url, f"$JS.API.STREAM.{loss}.KV_relay_channels")
        await until(lambda: events == [("s.c", b"1"), "up"])
        await until(lambda: a.is_up)
        await a.write("s.c", b"2", None)
        await until(lambda: events[-1] == ("s.c", b"2"))


async def test_claims_fail_at_once_while_no_server_is_there(tmp_path: Path) -> None:
    async with nats(tmp_path) as server, nodes(server.url) as (a,):
        await server.kill()
        await until(lambda: not a.is_up)
        for attempt in (
            a.read("s.c"),
            a.write("s.c", b"", None),
            a.delete("s.c", 1),
            a.fetch(SUBJECT),
            a.ask_one("x", "q", b"", 5),
        ):
            with pytest.raises(BusDownError):
                await attempt

        async def reply(question: bytes) -> bytes:
            return question

        await a.answer("q", reply)
        assert await a.ask("q", b"x", 5) == {a.node_id: b"x"}
        heard: list[bytes] = []
        await a.subscribe(SUBJECT, heard.append)
        a.publish(SUBJECT, b"kept")
        await server.start()
        await until(lambda: b"kept" in heard)
        await until(lambda: a.is_up)
        assert await a.ask_one(a.node_id, "q", b"x", 5) == b"x"


async def test_a_server_that_is_stopped_for_ten_seconds(tmp_path: Path) -> None:
    async with nats(tmp_path) as server, nodes(server.url, server.url) as (a, b), audio(a, b) as speaking:
        server.stop()
        try:
            begun = speaking.count
            await until(lambda: not a.is_up and not b.is_up)
            down_after = speaking.count - begun
            await speaking.until(begun + 500)
        finally:
            server.go_on()
        # Counted in messages, 50 a second, so that a busy machine changes nothing.
        assert down_after < 50 * 7


async def test_links_that_were_cut_for_three_seconds(tmp_path: Path) -> None:
    async with (
        nats(tmp_path) as server,
        fault_proxy(server.url) as speaker_link,
        fault_proxy(server.url) as listener_link,
        nodes(speaker_link.url, listener_link.url, server.url) as (a, b, c),
        audio(a, b, c) as speaking,
    ):
        for network in (listener_link, speaker_link):
            network.vanish()
            await speaking.for_seconds(3)
            network.appear()
            await speaking.for_seconds(2)
            network.cut()
            await speaking.for_seconds(3)
            network.mend()
            await until(lambda: a.is_up and b.is_up)


async def test_a_node_on_a_dead_link_changes_to_another_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the old connection to close, which takes until the server goes on."""
    monkeypatch.setattr("relay.cluster.nats_link.random.sample", lambda servers, _: list(servers))
    async with (
        nats_cluster(tmp_path) as servers,
        nodes(urls(servers), urls(servers), replicas=3) as (a, b),
        audio(a, b),
    ):
        stopped = servers[0]
        stopped.stop()
        try:
            for _ in range(200):
                a.publish("audio.s.other", bytes(100_000))
            await until(lambda: not a.is_up and not b.is_up)
            await until(lambda: a.is_up and b.is_up)
        finally:
            stopped.go_on()


@pytest.mark.long
async def test_three_servers_of_which_each_is_killed_once(tmp_path: Path) -> None:
    async with (
        nats_cluster(tmp_path) as servers,
        nodes(urls(servers), urls(servers), urls(servers), replicas=3) as (a, b, c),
        audio(a, b, c) as speaking,
    ):
        revision = await a.write("s.c", b"1", None)
        for number, server in enumerate(servers):
            await server.kill()
            await speaking.for_seconds(1)
            await until(lambda: a.is_up and b.is_up and c.is_up)
            for bus in (b, c):
                record = await read(bus, "s.c")
                assert record == Record(b"%d" % (number + 1), revision)
            revision = await b.write("s.c", b"%d" % (number + 2), revision)
            await server.start()
            await until(lambda: a.is_up and b.is_up and c.is_up)
            await speaking.for_seconds(3)
        # Without a leader, the servers deliver live messages and store none. These are sent again.
        assert await remembered(c) >= set(range(speaking.count - 200))


async def test_a_node_that_was_stopped_comes_back(tmp_path: Path) -> None:
    """Its server closed the connection meanwhile."""
    async with (
        nats(tmp_path, 'ping_interval: "1s"', "ping_max: 1") as server,
        nodes(server.url) as (a,),
        node_process(server.url) as other,
    ):
        await until(lambda: len(a.nodes) == 2)
        other.send_signal(signal.SIGSTOP)
        await until(lambda: len(a.nodes) == 1)
        other.send_signal(signal.SIGCONT)
        await until(lambda: len(a.nodes) == 2)


async def test_the_node_stops_quickly_while_its_server_is_stopped(tmp_path: Path) -> None:
    async with nats(tmp_path) as server:
        async with open_bus(cluster_settings(server.url)) as bus:
            for _ in range(200):
                bus.publish(SUBJECT, bytes(100_000))
            server.stop()
            began = time.monotonic()  # noqa: TID251
        server.go_on()
        assert time.monotonic() - began < 15  # noqa: TID251 - nats-py alone waits until the server goes on
