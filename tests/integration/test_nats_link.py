"""One connection to NATS: what nats-py does in the corner cases, and what a link makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.cluster.bus import BusDownError
from relay.cluster.nats_link import Link, NobodyListensError, Received, Replies, open_link
from relay.cluster.nats_login import Login
from tests.support.nats import NatsServer, cluster_settings, nats


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats(tmp_path) as running:
        yield running


@asynccontextmanager
async def link_to(server: NatsServer) -> AsyncIterator[Link]:
    login = Login.read(cluster_settings(server.url).cluster, "test")
    link = await open_link(login, Replies())
    try:
        yield link
    finally:
        await link.close()


async def test_after_a_round_trip_the_server_has_all_that_was_sent(server: NatsServer) -> None:
    """The ping of `Client.flush` overtakes what waits in the client's buffer."""
    async with link_to(server) as sender, link_to(server) as receiver:
        taken: list[bytes] = []
        await receiver.subscribe("relay.audio.s.c", lambda message: taken.append(message.data))
        assert await receiver.round_trip()
        for number in range(1, 6):
            for _ in range(18):
                await sender.publish("relay.audio.s.c", bytes(100_000))
            assert await sender.round_trip()
            assert await receiver.round_trip()
            assert len(taken) == 18 * number


async def test_an_answer_that_comes_too_late_harms_nothing(server: NatsServer) -> None:
    """A pong that comes after the time-out of `Client.flush` ends the client's reading."""
    async with link_to(server) as link:
        server.stop()
        try:
            assert not await link.round_trip(0.2)
        finally:
            server.go_on()
        assert await link.round_trip()
        assert link.is_open


async def test_a_full_buffer_does_not_swallow_a_cancellation(server: NatsServer) -> None:
    async with link_to(server) as link:
        server.stop()
        try:

            async def fill() -> None:
                while True:
                    await link.publish("relay.audio.s.c", bytes(500_000))

            filling = asyncio.get_running_loop().create_task(fill())
            await asyncio.wait([filling], timeout=1)
            filling.cancel()
            done, _ = await asyncio.wait([filling], timeout=30)
            assert done
            assert filling.cancelled()
        finally:
            server.go_on()


async def test_a_retired_link_delivers_nothing(server: NatsServer) -> None:
    async with link_to(server) as sender, link_to(server) as receiver:
        taken: list[Received] = []
        await receiver.subscribe("relay.audio.s.c", taken.append)
        assert await receiver.round_trip()
        receiver.retire()
        await sender.publish("relay.audio.s.c", b"late")
        assert await sender.round_trip()
        assert await receiver.round_trip(0.2) in {True, False}
        assert taken == []


async def test_a_question_that_nobody_hears_is_answered_at_once(server: NatsServer) -> None:
    async with link_to(server) as link:
        with pytest.raises(NobodyListensError):
            await link.request("relay.nobody", b"", seconds=60)


async def test_a_link_that_was_closed_says_so(server: NatsServer) -> None:
    async with link_to(server) as link:
        await link.close()
        assert not link.is_open
        assert not await link.round_trip()
        with pytest.raises(BusDownError):
            await link.publish("relay.audio.s.c", b"x")
        with pytest.raises(BusDownError):
            await link.subscribe("relay.audio.s.c", lambda _: None)


async def test_an_answer_that_is_expected_no_more_is_dropped(server: NatsServer) -> None:
    async with link_to(server) as link:
        taken: list[bytes] = []
        first = link.replies.expect(lambda message: taken.append(b"first " + message.data))
        second = link.replies.expect(lambda message: taken.append(b"second " + message.data))
        link.replies.forget(first)
        for reply in (first, second):
            await link.publish(reply, b"answer")
        assert await link.round_trip()
        assert taken == [b"second answer"]
