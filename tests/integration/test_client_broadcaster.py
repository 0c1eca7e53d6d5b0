"""`relay.client.broadcast` against a scripted relay: cuts, backpressure, clear, take-over and silence."""

import asyncio
import socket
from typing import Any, Literal

import pytest
from websockets.asyncio.server import ServerConnection

from relay.client import (
    Audience,
    AudioFormat,
    Backpressure,
    Broadcaster,
    BroadcastingEvent,
    ConnectionLostError,
    ErrorNotice,
    NotAllowedError,
    PolicyError,
    Reconnect,
    Reconnected,
    Reconnecting,
    RelayError,
    broadcast,
)
from relay.client import broadcaster as client_broadcaster
from relay.client.transport import broadcaster as client_connection_of_broadcaster
from relay.client.transport import connection as client_connection
from tests.support.kernel_queues import KernelQueues
from tests.support.scripted_relay import HELLO, Script, cut, in_turn, query_of, say, scripted

SOON = Reconnect(first_seconds=0.01, max_seconds=0.02)
TENTH = b"\1\2" * 1_600
"""100 ms of audio."""


class Heard:
    """The messages that a relay received over all connections, in order."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self._news = asyncio.Condition()

    async def read(self, connection: ServerConnection) -> None:
        """Read until the connection ends or an `end` message arrives."""
        async for message in connection:
            await self.take(message)
            if message == '{"type":"end"}':
                return

    async def take(self, message: str | bytes) -> None:
        async with self._news:
            self.messages.append(message)
            self._news.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.messages) >= count)


def numbered(number: int) -> bytes:
    return bytes([number, number]) * 1_600


async def greeted(connection: ServerConnection, accepted: int | None = None, connection_id: str = "c1") -> None:
    await say(connection, {**HELLO, "connection_id": connection_id, "accepted": accepted})


async def test_what_was_sent_arrives_and_leaving_does_not_end_the_session() -> None:
    heard = Heard()

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await heard.read(connection)

    async with scripted(script) as url:
        async with broadcast(url, "ev1") as broadcaster:
            for number in range(40):
                await broadcaster.send(numbered(number))
        assert heard.messages == [numbered(number) for number in range(40)]
        async with broadcast(url, "ev1") as broadcaster:
            await broadcaster.send(TENTH)
            await broadcaster.end()
            with pytest.raises(RelayError, match=r"^The broadcast to ev1/main is over\.$"):
                await broadcaster.send(TENTH)
    assert heard.messages[40:] == [TENTH, '{"type":"end"}']
    assert broadcaster.stats.sent.seconds == pytest.approx(0.1)


async def test_a_muted_broadcaster_sends_silence_and_says_so_on_each_connection_and_a_pause_is_no_end() -> None:
    heard = Heard()

    async def until_muted(connection: ServerConnection) -> None:
        await greeted(connection)
        for _ in range(3):
            await heard.take(await connection.recv())
        await cut(connection)

    async def then(connection: ServerConnection) -> None:
        # It accepted the first 200 ms.
        await greeted(connection, accepted=3_200)
        async for message in connection:
            await heard.take(message)
            if message == '{"type":"pause"}':
                return

    async with scripted(in_turn(until_muted, then)) as url, broadcast(url, "ev1", reconnect=SOON) as broadcaster:
        await broadcaster.send(TENTH)
        await heard.until(1)
        await broadcaster.mute(on=True)
        await broadcaster.send(TENTH)
        await heard.until(4)
        await broadcaster.mute(on=False)
        await broadcaster.send(TENTH)
        await broadcaster.pause()
    muted, unmuted = '{"type":"mute","on":true}', '{"type":"mute","on":false}'
    assert heard.messages == [TENTH, muted, bytes(len(TENTH)), muted, unmuted, TENTH, '{"type":"pause"}']


async def test_what_the_broadcaster_is_goes_into_the_query() -> None:
    queries = []

    async def script(connection: ServerConnection) -> None:
        queries.append(query_of(connection))
        await greeted(connection)

    stereo = AudioFormat(rate=48_000, channels=2)
    async with scripted(script) as url:
        with pytest.raises(RelayError, match=r"^The relay ended the broadcast to ev1/de\.$"):
            async with broadcast(
                url,
                "ev1",
                channel="de",
                audio_format=stereo,
                pace="speech",
                name="Grüß & Gott",
                lang="de",
                session_name=" Town  hall ",
                takeover=True,
            ) as broadcaster:
                _ = [event async for event in broadcaster]
    assert queries == [
        {
            "codec": "pcm_s16le",
            "rate": "48000",
            "channels": "2",
            "pace": "speech",
            "name": "Grüß & Gott",
            "lang": "de",
            "session_name": "Town hall",
            "takeover": "1",
        }
    ]
    with pytest.raises(ValueError, match="allegro"):
        broadcast("http://127.0.0.1:1", "ev1", pace="allegro")  # type: ignore[arg-type]


async def test_long_audio_is_cut_into_what_can_be_taken_back_and_half_samples_are_refused() -> None:
    heard = Heard()

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await heard.read(connection)

    async with scripted(script) as url, broadcast(url, "ev1") as broadcaster:
        with pytest.raises(PolicyError, match="does not end at a whole sample"):
            await broadcaster.send(b"\1\2\3")
        await broadcaster.send(TENTH * 30)
        await broadcaster.end()
    audio = [message for message in heard.messages if isinstance(message, bytes)]
    assert b"".join(audio) == TENTH * 30
    assert max(map(len, audio)) == 8_000


class Cut:
    """A relay that drops its first connection after `count` messages and greets the second when the test allows it.

    On the second connection it reports that `arrived` tenths of a second arrived, unless that is None.
    """

    def __init__(self, count: int, arrived: int | None) -> None:
        self._arrived = arrived
        self.heard = Heard()
        self.queries: list[dict[str, str]] = []
        self.may_return = asyncio.Event()
        self._count = count

    async def first(self, connection: ServerConnection) -> None:
        self.queries.append(query_of(connection))
        await greeted(connection)
        for _ in range(self._count):
            await self.heard.take(await connection.recv())
        connection.transport.abort()

    async def second(self, connection: ServerConnection) -> None:
        self.queries.append(query_of(connection))
        await self.may_return.wait()
        await greeted(connection, None if self._arrived is None else self._arrived * 1_600, "c2")
        await self.heard.read(connection)


async def until(broadcaster: Broadcaster, kind: type[BroadcastingEvent]) -> None:
    async for event in broadcaster:
        if isinstance(event, kind):
            return


async def test_a_live_broadcaster_drops_its_oldest_audio_during_a_cut_and_takes_its_channel_back() -> None:
    relay = Cut(2, arrived=2)
    async with (
        scripted(in_turn(relay.first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", reconnect=SOON, queue_seconds=0.5) as broadcaster,
    ):
        for number in range(2):
            await broadcaster.send(numbered(number))
        await until(broadcaster, Reconnecting)
        for number in range(2, 12):
            await broadcaster.send(numbered(number))
        assert broadcaster.stats.dropped.chunks == 5
        assert broadcaster.stats.queued_seconds == pytest.approx(0.5)
        relay.may_return.set()
        await until(broadcaster, Reconnected)
        await broadcaster.end()
    assert relay.heard.messages == [*(numbered(number) for number in (0, 1, 7, 8, 9, 10, 11)), '{"type":"end"}']
    assert [(query.get("takeover"), query.get("resume")) for query in relay.queries] == [(None, None), ("1", "c1")]
    assert broadcaster.stats.reconnects == 1


async def test_a_speaking_broadcaster_waits_during_a_cut_and_loses_nothing() -> None:
    relay = Cut(2, arrived=2)
    async with (
        scripted(in_turn(relay.first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", pace="speech", reconnect=SOON, queue_seconds=0.5) as broadcaster,
    ):
        for number in range(2):
            await broadcaster.send(numbered(number))
        await until(broadcaster, Reconnecting)
        for number in range(2, 7):
            await broadcaster.send(numbered(number))
        blocked = asyncio.ensure_future(broadcaster.send(numbered(7)))
        await asyncio.wait([blocked], timeout=0.1)
        assert not blocked.done()
        relay.may_return.set()
        await blocked
        await broadcaster.end()
    assert relay.heard.messages == [*(numbered(number) for number in range(8)), '{"type":"end"}']
    assert broadcaster.stats.dropped.chunks == 0


@pytest.mark.parametrize("pace", ["live", "speech"])
@pytest.mark.parametrize(("arrived", "again"), [(0, [0, 1, 2, 3]), (1, [1, 2, 3]), (4, []), (9, []), (None, [])])
async def test_what_did_not_arrive_before_a_cut_is_sent_again(
    pace: Literal["live", "speech"], arrived: int | None, again: list[int]
) -> None:
    relay = Cut(4, arrived)
    async with (
        scripted(in_turn(relay.first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", pace=pace, reconnect=SOON) as broadcaster,
    ):
        for number in range(4):
            await broadcaster.send(numbered(number))
        await until(broadcaster, Reconnecting)
        await broadcaster.send(numbered(4))
        relay.may_return.set()
        await broadcaster.end()
    assert relay.heard.messages[4:] == [*(numbered(number) for number in (*again, 4)), '{"type":"end"}']
    assert broadcaster.stats.sent.chunks == 5


async def test_of_two_cuts_each_is_made_good_of_its_own_connection() -> None:
    heard, queries = Heard(), []

    def connection_that(accepted: int | None, name: str, count: int | None) -> Script:
        async def script(connection: ServerConnection) -> None:
            queries.append(query_of(connection).get("resume"))
            if name:
                await greeted(connection, accepted, name)
            if count is None:
                await heard.read(connection)
                return
            for _ in range(count):
                await heard.take(await connection.recv())
            connection.transport.abort()

        return script

    # The third connection never greets, so the fourth reports on the audio of the second.
    scripts = ((None, "c1", 3), (2 * 1_600, "c2", 2), (None, "", 0), (1_600, "c4", None))
    async with (
        scripted(in_turn(*(connection_that(*script) for script in scripts))) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", pace="speech", reconnect=SOON) as broadcaster,
    ):
        for number in range(4):
            await broadcaster.send(numbered(number))
            await heard.until(number + 1) if number < 2 else None
        await broadcaster.end()
    assert heard.messages == [*(numbered(number) for number in (0, 1, 2, 2, 3, 3)), '{"type":"end"}']
    assert queries == [None, "c1", "c2", "c2"]
    assert (broadcaster.stats.sent.chunks, broadcaster.stats.dropped.chunks) == (4, 0)


async def test_no_more_is_under_way_than_can_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_broadcaster, "UNDER_WAY_SECONDS", 0.3)
    heard = Heard()
    connections: list[ServerConnection] = []

    async def script(connection: ServerConnection) -> None:
        connections.append(connection)
        await greeted(connection)
        await heard.read(connection)

    async with scripted(script) as url, asyncio.timeout(15), broadcast(url, "ev1") as broadcaster:
        for number in range(6):
            await broadcaster.send(numbered(number))
        await heard.until(3)
        assert broadcaster.stats.queued_seconds == pytest.approx(0.3)
        await say(connections[0], {"type": "stats", "listeners": 0, "accepted": 1_600})
        await heard.until(4)
        assert broadcaster.stats.queued_seconds == pytest.approx(0.2)
        await say(connections[0], {"type": "stats", "listeners": 0, "accepted": 3 * 1_600})
        await broadcaster.end()
    assert heard.messages == [*(numbered(number) for number in range(6)), '{"type":"end"}']


@pytest.mark.parametrize("arrived", [1, 2, 3])
async def test_a_clear_that_may_not_have_arrived_is_told_again_and_what_it_cleared_is_not(arrived: int) -> None:
    relay = Cut(4, arrived)
    async with (
        scripted(in_turn(relay.first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", pace="speech", reconnect=SOON) as broadcaster,
    ):
        for number in range(2):
            await broadcaster.send(numbered(number))
        await relay.heard.until(2)
        await broadcaster.clear()
        await broadcaster.send(numbered(2))
        await until(broadcaster, Reconnecting)
        await broadcaster.send(numbered(3))
        relay.may_return.set()
        await broadcaster.end()
    again = [] if arrived == 3 else ['{"type":"clear"}', numbered(2)]
    assert relay.heard.messages[4:] == [*again, numbered(3), '{"type":"end"}']
    assert (broadcaster.stats.sent.chunks, broadcaster.stats.cleared.chunks) == ((3, 1) if arrived == 1 else (4, 0))


async def test_who_leaves_over_a_cut_leaves_nothing_behind() -> None:
    relay = Cut(0, arrived=0)
    relay.may_return.set()
    everything = 2 * (len(TENTH) + 8) + 8  # both messages and the close frame

    async def first(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await greeted(connection)
        sock = connection.transport.get_extra_info("socket")
        with KernelQueues() as queues:
            while queues.held_bytes(sock) < everything:  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.01)
        connection.transport.abort()

    async with (
        scripted(in_turn(first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", reconnect=SOON) as broadcaster,
    ):
        for number in range(2):
            await broadcaster.send(numbered(number))
    assert relay.heard.messages == [numbered(0), numbered(1)]
    assert (broadcaster.stats.sent.chunks, broadcaster.stats.dropped.chunks) == (2, 0)


async def test_what_comes_back_after_a_cut_and_what_came_meanwhile_are_no_more_than_the_queue_holds() -> None:
    relay = Cut(4, arrived=0)
    async with (
        scripted(in_turn(relay.first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", reconnect=SOON, queue_seconds=0.5) as broadcaster,
    ):
        for number in range(4):
            await broadcaster.send(numbered(number))
        await until(broadcaster, Reconnecting)
        for number in range(4, 7):
            await broadcaster.send(numbered(number))
        relay.may_return.set()
        await broadcaster.end()
    assert relay.heard.messages[4:] == [*(numbered(number) for number in (2, 3, 4, 5, 6)), '{"type":"end"}']
    assert broadcaster.stats.dropped.chunks == 2


async def test_a_clear_that_was_cancelled_while_the_socket_was_full_is_not_repeated() -> None:
    may_read, has_returned = asyncio.Event(), asyncio.Event()
    after = bytes(800) + TENTH
    first_heard: list[str | bytes] = []
    heard = Heard()

    async def first(connection: ServerConnection) -> None:
        await greeted(connection)
        connection.transport.pause_reading()
        await may_read.wait()
        connection.transport.resume_reading()
        while after not in first_heard:
            first_heard.append(await connection.recv())
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        audio = b"".join(message for message in first_heard if isinstance(message, bytes))
        await greeted(connection, accepted=len(audio) // 4)
        has_returned.set()
        await heard.read(connection)

    stereo = AudioFormat(rate=48_000, channels=2)
    async with (
        scripted(in_turn(first, second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", audio_format=stereo, pace="speech", reconnect=SOON, queue_seconds=20) as broadcaster,
    ):
        await broadcaster.send(bytes(10 * 48_000 * 4))
        sent_chunks = -1
        while broadcaster.stats.sent.chunks > sent_chunks:
            sent_chunks = broadcaster.stats.sent.chunks
            await asyncio.sleep(0.3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await broadcaster.clear()
        await broadcaster.send(after)
        may_read.set()
        await has_returned.wait()
        await broadcaster.end()
    assert [message for message in first_heard if isinstance(message, str)] == ['{"type":"clear"}']
    assert heard.messages == ['{"type":"end"}']


async def test_back_pressure_holds_the_audio_where_clear_reaches_it() -> None:
    heard = Heard()
    turns: list[ServerConnection] = []

    async def script(connection: ServerConnection) -> None:
        turns.append(connection)
        await say(connection, HELLO, {"type": "backpressure", "on": True})
        await heard.read(connection)

    async with (
        scripted(script) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", queue_seconds=0.5) as broadcaster,
    ):
        assert await anext(broadcaster) == Backpressure(on=True)
        assert broadcaster.is_held_back
        for number in range(5):
            await broadcaster.send(numbered(number))
        blocked = asyncio.ensure_future(broadcaster.send(numbered(5)))
        await asyncio.wait([blocked], timeout=0.1)
        assert not blocked.done()
        assert heard.messages == []
        await broadcaster.clear()
        await blocked
        await heard.until(1)
        await say(turns[0], {"type": "backpressure", "on": False})
        await broadcaster.end()
    assert heard.messages == ['{"type":"clear"}', numbered(5), '{"type":"end"}']
    assert broadcaster.stats.cleared.chunks == 5


async def test_what_is_cleared_as_soon_as_it_was_sent_is_no_end_of_the_session() -> None:
    heard = Heard()

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await heard.read(connection)

    async with scripted(script) as url, asyncio.timeout(15), broadcast(url, "ev1") as broadcaster:
        await broadcaster.send(numbered(0))
        await heard.until(1)
        # Nothing is awaited in between, so the clear removes the audio before it can be sent.
        await broadcaster.send(numbered(1))
        await broadcaster.clear()
        await heard.until(2)
        await broadcaster.send(numbered(2))
        await broadcaster.end()
    assert heard.messages == [numbered(0), '{"type":"clear"}', numbered(2), '{"type":"end"}']


async def test_a_clear_during_a_cut_is_told_before_any_audio_on_the_next_connection() -> None:
    relay = Cut(1, arrived=1)
    async with (
        scripted(in_turn(relay.first, relay.second)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", reconnect=SOON) as broadcaster,
    ):
        await broadcaster.send(numbered(0))
        await until(broadcaster, Reconnecting)
        await broadcaster.send(numbered(1))
        await broadcaster.clear()
        await broadcaster.send(numbered(2))
        relay.may_return.set()
        await broadcaster.end()
    assert relay.heard.messages == [numbered(0), '{"type":"clear"}', numbered(2), '{"type":"end"}']


async def test_what_the_relay_tells_is_given_as_events_and_of_those_that_nobody_takes_the_latest() -> None:
    taken = asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        stats = {"type": "stats", "listeners": 3, "dropped_frames": 7, "lead_ms": 12.5, "queued_ms": 40, "accepted": 0}
        await say(connection, HELLO, {"type": "applause"}, b"\0\0", stats)
        await say(connection, {"type": "error", "code": 1008, "message": "Half a sample."})
        await taken.wait()
        await say(connection, *({"type": "stats", "listeners": count, "accepted": 0} for count in range(100)))
        await say(connection, {"type": "backpressure", "on": True})
        await connection.wait_closed()

    async with scripted(script) as url, asyncio.timeout(15):
        async with broadcast(url, "ev1") as broadcaster:
            assert await anext(broadcaster) == Audience(3, 7, 12.5, 40.0)
            assert await anext(broadcaster) == ErrorNotice(1008, "Half a sample.")
            taken.set()
            while not broadcaster.is_held_back:  # noqa: ASYNC110 - reading an event would change what the test checks
                await asyncio.sleep(0.01)
            assert broadcaster.audience == Audience(99)
            assert await anext(broadcaster) == Audience(100 - client_broadcaster.MAX_EVENTS + 1)
        rest = [event async for event in broadcaster]
    assert rest[-1] == Backpressure(on=True)
    assert len(rest) == client_broadcaster.MAX_EVENTS - 1


@pytest.mark.parametrize(("code", "kind"), [(4500, RelayError), (4502, NotAllowedError), (1008, PolicyError)])
async def test_a_broadcaster_that_was_replaced_or_refused_stops_for_good(code: int, kind: type[RelayError]) -> None:
    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await connection.close(code, "Another broadcaster took over.")

    async with scripted(in_turn(script)) as url, asyncio.timeout(15):
        broadcaster = await broadcast(url, "ev1", reconnect=SOON).__aenter__()
        for attempt in (anext(broadcaster), broadcaster.end(), broadcaster.send(TENTH), broadcaster.clear()):
            with pytest.raises(kind, match=r"^Another broadcaster took over\.$"):
                await attempt
        await broadcaster.__aexit__(None, None, None)


async def test_a_loss_without_a_policy_is_the_end_and_wakes_a_sender_that_waits() -> None:
    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO, {"type": "backpressure", "on": True})
        await cut(connection)

    async with scripted(in_turn(script)) as url, asyncio.timeout(15):
        broadcaster = await broadcast(url, "ev1", reconnect=None, queue_seconds=0.1).__aenter__()
        with pytest.raises(ConnectionLostError, match="was lost"):
            while True:
                await broadcaster.send(TENTH)
        await broadcaster.__aexit__(None, None, None)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "PING_SECONDS", 0.05)
    monkeypatch.setattr(client_connection_of_broadcaster, "SILENCE_SECONDS", 0.3)


async def silent_for(audio: bytes, *told: dict[str, Any]) -> float:
    """Broadcast to a relay that falls silent after these messages, and return the seconds until the client gives up."""

    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO, *told)
        connection.transport.pause_reading()
        await connection.wait_closed()

    loop = asyncio.get_running_loop()
    async with scripted(in_turn(script), close_timeout=0.1) as url, asyncio.timeout(15):
        broadcaster = await broadcast(url, "ev1", reconnect=None).__aenter__()
        await broadcaster.send(audio)
        for _ in told:
            await anext(broadcaster)
        began = loop.time()
        with pytest.raises(ConnectionLostError, match="has not answered for"):
            await anext(broadcaster)
        await broadcaster.__aexit__(None, None, None)
        return loop.time() - began


async def test_a_relay_that_is_gone_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    assert 0.2 < await silent_for(TENTH) < 5


async def test_a_relay_that_holds_back_is_not_taken_for_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    # The relay may read nothing until the audio so far is due.
    assert 2.2 < await silent_for(TENTH * 20) < 10


async def test_a_relay_that_tells_how_it_does_every_few_seconds_is_not_excused_while_it_holds_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)
    assert await silent_for(TENTH * 60, {"type": "stats", "listeners": 0, "accepted": 0}) < 3


async def test_a_relay_that_is_gone_is_noticed_when_the_socket_accepts_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        connection.transport.pause_reading()
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        # Until the client's socket is full, these messages keep it from sending a ping.
        for _ in range(50):
            await say(connection, {"type": "stats", "listeners": 0, "accepted": 0})
            await asyncio.sleep(0.02)
        await connection.wait_closed()

    stereo = AudioFormat(rate=48_000, channels=2)
    async with (
        scripted(in_turn(script), close_timeout=0.1) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", audio_format=stereo, pace="speech", reconnect=None, queue_seconds=20) as broadcaster,
    ):
        await broadcaster.send(bytes(10 * 48_000 * 4))
        with pytest.raises(ConnectionLostError, match="has not answered for"):
            await until(broadcaster, Reconnecting)


async def test_who_leaves_waits_until_the_relay_has_read_what_was_sent() -> None:
    heard = Heard()

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        connection.transport.pause_reading()
        # The wait is longer than the time limit for closing; the relay holds back five seconds of audio.
        await asyncio.sleep(client_connection.CLOSE_TIMEOUT_SECONDS + 0.5)
        connection.transport.resume_reading()
        await heard.read(connection)

    async with scripted(script) as url, asyncio.timeout(15), broadcast(url, "ev1") as broadcaster:
        await broadcaster.send(TENTH * 50)
    assert sum(len(message) for message in heard.messages) == len(TENTH * 50)
    assert [event async for event in broadcaster] == []


async def test_the_kernel_holds_little_of_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    keep = client_connection.RelaySocket.__init__

    def note(self: client_connection.RelaySocket, websocket: Any, *arguments: Any) -> None:
        sock = websocket.transport.get_extra_info("socket")
        sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        keep(self, websocket, *arguments)

    monkeypatch.setattr(client_connection.RelaySocket, "__init__", note)
    async with scripted(greeted_for_ever()) as url, broadcast(url, "ev1"):
        pass
    # Linux doubles the requested size for its own bookkeeping.
    assert sizes == [128 * 1024]


def greeted_for_ever() -> Script:
    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await connection.wait_closed()

    return script


async def test_leaving_without_a_connection_is_over_in_time_and_counts_what_was_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_broadcaster, "END_TIMEOUT_SECONDS", 0.2)

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await cut(connection)

    async with scripted(script) as url:
        broadcaster = await broadcast(url, "ev1", reconnect=Reconnect(60, 60)).__aenter__()
        await until(broadcaster, Reconnecting)
        await broadcaster.send(TENTH)
        async with asyncio.timeout(10):
            await broadcaster.__aexit__(None, None, None)
    assert (broadcaster.stats.sent.chunks, broadcaster.stats.dropped.chunks) == (0, 1)


TWENTY_SECONDS = TENTH * 200
TWENTY_SECONDS_MESSAGES = len(TWENTY_SECONDS) // 8_000


@pytest.mark.parametrize("is_end", [True, False])
async def test_leaving_during_an_outage_takes_as_long_as_the_audio_that_has_to_be_sent_again(
    monkeypatch: pytest.MonkeyPatch, is_end: bool
) -> None:
    monkeypatch.setattr(client_broadcaster, "END_TIMEOUT_SECONDS", 0.2)
    relay = Cut(TWENTY_SECONDS_MESSAGES, arrived=0)
    async with scripted(in_turn(relay.first, relay.second)) as url, asyncio.timeout(15):
        broadcaster = broadcast(url, "ev1", pace="speech", reconnect=SOON, queue_seconds=20)
        async with broadcaster:
            await broadcaster.send(TWENTY_SECONDS)
            await until(broadcaster, Reconnecting)
            leaving = asyncio.ensure_future(broadcaster.end() if is_end else broadcaster.__aexit__(None, None, None))
            await asyncio.wait([leaving], timeout=1)
            relay.may_return.set()
            await leaving
    again = relay.heard.messages[TWENTY_SECONDS_MESSAGES:]
    assert b"".join(message for message in again if isinstance(message, bytes)) == TWENTY_SECONDS
    assert again[TWENTY_SECONDS_MESSAGES:] == (['{"type":"end"}'] if is_end else [])
    assert broadcaster.stats.dropped.chunks == 0


async def test_after_an_outage_an_end_waits_only_for_what_that_connection_has_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_broadcaster, "END_TIMEOUT_SECONDS", 0.2)
    relay = Cut(TWENTY_SECONDS_MESSAGES, arrived=0)

    async def ignore(connection: ServerConnection) -> None:
        await relay.may_return.wait()
        await greeted(connection, accepted=200 * 1_600)
        await connection.wait_closed()

    async with (
        scripted(in_turn(relay.first, ignore)) as url,
        asyncio.timeout(15),
        broadcast(url, "ev1", pace="speech", reconnect=SOON, queue_seconds=20) as broadcaster,
    ):
        await broadcaster.send(TWENTY_SECONDS)
        await until(broadcaster, Reconnecting)
        ending = asyncio.ensure_future(broadcaster.end())
        await asyncio.sleep(0)
        relay.may_return.set()
        with pytest.raises(RelayError, match="did not confirm the end"):
            await ending


async def test_a_farewell_that_was_not_said_is_told() -> None:
    is_pausing, may_close = asyncio.Event(), asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        assert await connection.recv() == '{"type":"pause"}'
        is_pausing.set()
        await may_close.wait()

    async with scripted(in_turn(script)) as url, asyncio.timeout(15), broadcast(url, "ev1") as broadcaster:
        pausing = asyncio.ensure_future(broadcaster.pause())
        await is_pausing.wait()
        ending = asyncio.ensure_future(broadcaster.end())
        await asyncio.sleep(0)
        may_close.set()
        await pausing
        await broadcaster.pause()
        for attempt in (ending, broadcaster.end()):
            with pytest.raises(RelayError, match=r"^The broadcast to ev1/main was over, so its end was not sent;"):
                await attempt


async def test_an_end_without_a_connection_is_told() -> None:
    async def script(connection: ServerConnection) -> None:
        await greeted(connection)
        await cut(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_broadcaster, "END_TIMEOUT_SECONDS", 0.2)
        async with scripted(script) as url, broadcast(url, "ev1", reconnect=Reconnect(60, 60)) as broadcaster:
            await until(broadcaster, Reconnecting)
            with pytest.raises(RelayError, match=rf"^The relay at {url} did not confirm the end of ev1/main in time"):
                await broadcaster.end()
