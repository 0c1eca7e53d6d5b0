"""`relay.client.listen` against a scripted relay: cuts, restarts, switches and silence."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from relay.client import (
    Audio,
    AudioFormat,
    BadRequestError,
    ChannelState,
    Clear,
    Codec,
    ConnectionLostError,
    DeliveryChange,
    ErrorNotice,
    Goaway,
    Hello,
    Listener,
    ListeningEvent,
    Pong,
    Reconnect,
    Reconnected,
    Reconnecting,
    RelayError,
    StateChange,
    UnknownLoss,
    UnreachableError,
    UserError,
    listen,
)
from relay.client.transport import connection as client_connection
from relay.client.transport import listener as client_listener
from relay.protocol.messages import read_listener_event
from relay.protocol.wire import Header, pack_audio, serial_difference
from relay.vocabulary.clock import relay_clock, wire_milliseconds
from tests.support.scripted_relay import HELLO, Script, cut, frame, in_turn, query_of, say, scripted

SOON = Reconnect(first_seconds=0.01, max_seconds=0.02)
RESUMED = {**HELLO, "resumed": True}
SAMPLES = b"\1\2" * 320


async def listen_to(script: Script, **options: Any) -> list[ListeningEvent]:
    """Return all events until the session ends."""
    options.setdefault("reconnect", SOON)
    async with scripted(script) as url, asyncio.timeout(15), listen(url, "ev1", **options) as listener:
        return [event async for event in listener]


async def in_short_steps(listener: Listener, pause: Callable[[], None] = lambda: None) -> list[ListeningEvent]:
    """Return all events. Cancel each step after 10 ms, and call `pause` when that happens."""
    events: list[ListeningEvent] = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                events.append(await anext(listener))
        except TimeoutError:
            pause()
        except StopAsyncIteration:
            return events


def told(events: list[ListeningEvent]) -> list[object]:
    """Summarize events: a frame by its seq, a greeting or a retry by its kind."""
    return [
        event.header.seq
        if isinstance(event, Audio)
        else type(event)
        if isinstance(event, Hello | Reconnecting)
        else event
        for event in events
    ]


async def test_a_cut_is_resumed_without_a_hole_or_a_frame_twice() -> None:
    async def first(connection: ServerConnection) -> None:
        assert query_of(connection) == {"buffer_ms": "3000", "burst_ms": "500"}
        await say(connection, HELLO, *(frame(seq, SAMPLES) for seq in range(3)))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert query_of(connection) == {"buffer_ms": "3000", "burst_ms": "500", "epoch": "1", "after": "2"}
        await say(connection, {**RESUMED, "next_seq": 3}, *(frame(seq, SAMPLES) for seq in (2, 3, 4)))

    events = await listen_to(in_turn(first, second), buffer_ms=3000, burst_ms=500)
    assert told(events) == [Hello, 0, 1, 2, Reconnecting, Reconnected(resumed=True), 3, 4]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000, 4001, 4499])
async def test_a_close_that_asks_for_it_is_followed_by_a_reconnect(code: int) -> None:
    async def close(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.close(code, "For now.")

    async def end(connection: ServerConnection) -> None:
        await say(connection, HELLO)

    events = await listen_to(in_turn(close, end))
    assert told(events) == [Hello, Reconnecting, Reconnected(resumed=False)]
    assert isinstance(events[1], Reconnecting)
    assert events[1].reason == "For now."


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 4500, 4501, 4502, 4503, 4504, 4999])
async def test_a_close_that_forbids_it_is_the_end(code: int) -> None:
    async def close(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.close(code, "For good.")

    with pytest.raises(RelayError, match=r"^For good\.$"):
        await listen_to(in_turn(close))


async def test_a_relay_that_says_what_is_not_of_the_protocol_is_not_asked_again() -> None:
    async def too_long(connection: ServerConnection) -> None:
        await say(connection, HELLO, bytes(300 * 1024))
        await connection.wait_closed()

    async def half_a_header(connection: ServerConnection) -> None:
        await say(connection, HELLO, b"\1\0")
        await connection.wait_closed()

    with pytest.raises(RelayError, match=r"The connection to .* was lost \(.*\)\.$") as lost:
        await listen_to(in_turn(too_long))
    assert not isinstance(lost.value, ConnectionLostError)
    with pytest.raises(RelayError, match="too few for the 16-byte header"):
        await listen_to(in_turn(half_a_header))


async def test_without_a_policy_a_loss_is_the_end() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await cut(connection)

    with pytest.raises(ConnectionLostError, match="was lost"):
        await listen_to(in_turn(first), reconnect=None)


async def test_a_relay_that_goes_away_is_left_alone_for_as_long_as_it_asks() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO, {"type": "goaway", "reconnect_after_ms": 300})
        await connection.close(1012, "The relay is restarting.")

    times = []

    async def second(connection: ServerConnection) -> None:
        times.append(asyncio.get_running_loop().time())
        await say(connection, HELLO)

    async with scripted(in_turn(first, second)) as url, asyncio.timeout(15), listen(url, "ev1", reconnect=SOON) as one:
        events = []
        async for event in one:
            events.append(event)
            if isinstance(event, Reconnecting):
                times.append(asyncio.get_running_loop().time())
    assert told(events)[:3] == [Hello, Goaway(300), Reconnecting]
    assert times[1] - times[0] >= 0.29


async def test_a_restart_is_told_as_a_loss_of_unknown_size() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO, frame(0, SAMPLES))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert query_of(connection) == {"epoch": "1", "after": "0"}
        await say(connection, {**HELLO, "epoch": 9, "next_seq": 4, "state": "waiting"}, frame(4, SAMPLES, 9))
        await cut(connection)

    async def third(connection: ServerConnection) -> None:
        assert query_of(connection) == {"epoch": "9", "after": "4"}
        await say(connection, {**RESUMED, "epoch": 9, "next_seq": 5, "state": "waiting"})

    events = await listen_to(in_turn(first, second, third))
    assert told(events) == [
        Hello,
        0,
        Reconnecting,
        Reconnected(resumed=False),
        UnknownLoss("restart"),
        StateChange(ChannelState.WAITING),
        4,
        Reconnecting,
        Reconnected(resumed=True),
    ]


async def test_tries_go_on_while_nobody_answers_and_while_a_proxy_says_so() -> None:
    answers = iter([None, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, None])

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        status = next(answers)
        if status is None:
            return None
        response = connection.respond(status, "no\n")
        response.headers["Retry-After"] = "0"
        return response

    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        await say(connection, HELLO)

    script = in_turn(first, second)
    async with scripted(script, process_request=answer) as url, listen(url, "ev1", reconnect=SOON) as listener:
        events = [event async for event in listener]
    assert told(events) == [Hello, Reconnecting, Reconnecting, Reconnecting, Reconnected(resumed=False)]
    attempts = [(event.attempt, event.reason) for event in events if isinstance(event, Reconnecting)]
    assert attempts == [
        (1, f"The connection to {url} was lost."),
        (2, f"The relay at {url} cannot be reached at present (HTTP 502); try again later."),
        (3, f"The relay at {url} is overloaded (HTTP 503); try again later."),
    ]


async def test_a_relay_that_asks_for_time_before_the_upgrade_gets_it() -> None:
    def answer(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no\n")
        response.headers["Retry-After"] = "7"
        return response

    async with scripted(in_turn(), process_request=answer) as url:
        with pytest.raises(UnreachableError) as refusal:
            await listen(url, "ev1").__aenter__()
    assert refusal.value.retry_after_seconds == 7


async def test_what_will_not_heal_ends_the_tries() -> None:
    answers = iter([None, HTTPStatus.NOT_FOUND])

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        status = next(answers)
        return None if status is None else connection.respond(status, "no\n")

    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await cut(connection)

    async with scripted(in_turn(first), process_request=answer) as url, listen(url, "ev1", reconnect=SOON) as listener:
        with pytest.raises(UserError, match="answered HTTP 404, not like a relay"):
            _ = [event async for event in listener]


async def test_a_client_gives_up_when_it_was_told_when() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await cut(connection)

    policy = Reconnect(first_seconds=0.01, max_seconds=0.02, give_up_seconds=0.1)
    async with scripted(in_turn(first)) as url:
        listener = await listen(url, "ev1", reconnect=policy).__aenter__()
        assert isinstance(await anext(listener), Hello)
        assert isinstance(await anext(listener), Reconnecting)
    # The server has stopped.
    async with asyncio.timeout(10):
        with pytest.raises(UnreachableError, match="Nothing listens at"):
            _ = [event async for event in listener]
    await listener.__aexit__(None, None, None)


async def test_a_switch_is_answered_by_a_greeting_and_kept_over_a_reconnect() -> None:
    async def first(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/listen/ev1/main"
        await say(connection, HELLO, frame(0, SAMPLES))
        assert await connection.recv() == '{"type":"switch","channel":"de","codec":null}'
        await say(connection, {**HELLO, "channel": "de", "epoch": 5, "next_seq": 70}, frame(70, SAMPLES, 5))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/listen/ev1/de?epoch=5&after=70"
        await say(connection, {**RESUMED, "channel": "de", "epoch": 5, "next_seq": 71}, frame(71, SAMPLES, 5))

    async with scripted(in_turn(first, second)) as url, listen(url, "ev1", reconnect=SOON) as listener:
        events = []
        async for event in listener:
            events.append(event)
            if isinstance(event, Audio) and event.header.seq == 0:
                await listener.switch("de")
        assert str(listener.address) == "ev1/de"
    assert told(events) == [Hello, 0, Hello, 70, Reconnecting, Reconnected(resumed=True), 71]


async def resume_and_switch(connection: ServerConnection) -> None:
    await say(connection, RESUMED)
    assert await connection.recv() == '{"type":"switch","channel":"de","codec":null}'
    await say(connection, {**HELLO, "channel": "de"})


async def told_after_a_switch(*scripts: Callable[[ServerConnection], Awaitable[None]]) -> list[object]:
    async with (
        scripted(in_turn(*scripts)) as url,
        asyncio.timeout(15),
        listen(url, "ev1", reconnect=SOON) as listener,
    ):
        await listener.switch("de")
        return told([event async for event in listener])


async def test_a_switch_that_was_lost_on_the_way_is_asked_again() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.recv()
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/listen/ev1/main?epoch=1&after=4294967295"
        await resume_and_switch(connection)

    assert await told_after_a_switch(first, second) == [Hello, Reconnecting, Reconnected(resumed=True), Hello]


async def test_a_switch_that_fails_changes_nothing_and_is_not_asked_again() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.recv()
        await say(connection, {"type": "error", "code": 4504, "message": "No such channel."}, frame(0, SAMPLES))
        await cut(connection)

    asked = []

    async def second(connection: ServerConnection) -> None:
        await say(connection, {**RESUMED, "next_seq": 1})
        asked.append(await connection.recv())

    async with scripted(in_turn(first, second)) as url, listen(url, "ev1", reconnect=SOON) as listener:
        await listener.switch("xx")
        assert isinstance(await anext(listener), Hello)
        assert await anext(listener) == ErrorNotice(4504, "No such channel.")
        assert told([await anext(listener) for _ in range(3)]) == [0, Reconnecting, Reconnected(resumed=True)]
        assert str(listener.address) == "ev1/main"
        await listener.ping()
        assert [event async for event in listener] == []
    assert asked == ['{"type":"ping","id":0}']


async def test_each_answer_belongs_to_the_first_switch_that_has_none() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        assert await connection.recv() == '{"type":"switch","channel":"xx","codec":null}'
        assert await connection.recv() == '{"type":"switch","channel":"de","codec":null}'
        assert await connection.recv() == '{"type":"switch","channel":null,"codec":"opus"}'
        await say(connection, {"type": "error", "code": 4504, "message": "No such channel."})
        await say(connection, {**HELLO, "channel": "de", "epoch": 5, "next_seq": 70}, frame(70, SAMPLES, 5))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/listen/ev1/de?epoch=5&after=70"
        await say(connection, {**RESUMED, "channel": "de", "epoch": 5, "next_seq": 71})
        assert await connection.recv() == '{"type":"switch","channel":null,"codec":"opus"}'
        await say(connection, {**OPUS_HELLO, "channel": "de", "epoch": 5, "next_seq": 71})
        await cut(connection)

    async def third(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path.startswith("/v1/listen/ev1/de?codec=opus&epoch=5&after=70&")
        await say(connection, {**OPUS_HELLO, "resumed": True, "channel": "de", "epoch": 5, "next_seq": 71})

    async with (
        scripted(in_turn(first, second, third)) as url,
        asyncio.timeout(15),
        listen(url, "ev1", reconnect=SOON) as listener,
    ):
        await listener.switch("xx")
        await listener.switch("de")
        await listener.switch(codec="opus")
        events = [event async for event in listener]
    back = [Reconnecting, Reconnected(resumed=True)]
    assert told(events) == [Hello, ErrorNotice(4504, "No such channel."), Hello, 70, *back, Hello, *back]


async def test_a_switch_is_asked_again_after_an_error_that_does_not_answer_it() -> None:
    expired = "The token expired."

    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.recv()
        await say(connection, {"type": "error", "code": 4001, "message": expired})
        await connection.close(4001, expired)

    assert await told_after_a_switch(first, resume_and_switch) == [
        Hello,
        ErrorNotice(4001, expired),
        Reconnecting,
        Reconnected(resumed=True),
        Hello,
    ]


async def test_switches_without_a_connection_become_one() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        await say(connection, RESUMED)
        assert await connection.recv() == '{"type":"switch","channel":"fr","codec":"opus"}'
        await say(connection, {**OPUS_HELLO, "channel": "fr"})

    async with (
        scripted(in_turn(first, second)) as url,
        asyncio.timeout(15),
        listen(url, "ev1", reconnect=SOON) as listener,
    ):
        assert [type(await anext(listener)) for _ in range(2)] == [Hello, Reconnecting]
        await listener.switch("de", codec="opus")
        await listener.switch("fr")
        assert told([event async for event in listener]) == [Reconnected(resumed=True), Hello]
        assert str(listener.address) == "ev1/fr"


OPUS = {"codec": "opus", "rate": 48_000, "channels": 1, "clock_rate": 48_000}
OPUS_HELLO = {**HELLO, "format": OPUS}
PACKETS = [b"\xf8" + bytes([number]) for number in range(9)]


def packed(first: int, count: int) -> bytes:
    return pack_audio(Header(1, first, 960 * first, 0), PACKETS[first : first + count])


async def test_packets_come_one_by_one_and_are_resumed_by_the_numbers_of_their_codec() -> None:
    async def first(connection: ServerConnection) -> None:
        assert query_of(connection) == {"codec": "opus,pcm_s16le", "packet_ms": "60"}
        await say(connection, OPUS_HELLO, packed(0, 3), packed(3, 1))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        resume = {"epoch": "1", "after": "3", "after_codec": "opus"}
        assert query_of(connection) == {"codec": "opus,pcm_s16le", "packet_ms": "60", **resume}
        await say(connection, {**OPUS_HELLO, "resumed": True, "next_seq": 4}, packed(4, 2))

    events = await listen_to(in_turn(first, second), codec=("opus", "pcm_s16le"), packet_ms=60)
    assert told(events) == [Hello, 0, 1, 2, 3, Reconnecting, Reconnected(resumed=True), 4, 5]
    audio = [event for event in events if isinstance(event, Audio)]
    assert [event.payload for event in audio] == PACKETS[:6]
    assert [event.header.media_time for event in audio] == [960 * number for number in range(6)]


async def test_a_codec_is_switched_and_asked_for_by_later_connections() -> None:
    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO, frame(0, SAMPLES))
        assert await connection.recv() == '{"type":"switch","channel":null,"codec":"opus"}'
        await say(connection, frame(1, SAMPLES), {**OPUS_HELLO, "next_seq": 2}, packed(2, 2))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert query_of(connection) == {"codec": "opus", "epoch": "1", "after": "3", "after_codec": "opus"}
        await say(connection, {**OPUS_HELLO, "resumed": True, "next_seq": 4})

    async with scripted(in_turn(first, second)) as url, listen(url, "ev1", reconnect=SOON) as listener:
        events = []
        async for event in listener:
            events.append(event)
            if isinstance(event, Audio) and len(events) == 2:
                await listener.switch(codec="opus")
        assert str(listener.address) == "ev1/main"
        assert listener.audio_format == AudioFormat(Codec.OPUS, 48_000)
    assert told(events) == [Hello, 0, 1, Hello, 2, 3, Reconnecting, Reconnected(resumed=True)]


async def test_a_change_of_delivery_is_answered_and_kept_over_a_reconnect() -> None:
    async def first(connection: ServerConnection) -> None:
        assert query_of(connection) == {"codec": "opus", "packet_ms": "60"}
        await say(connection, {**OPUS_HELLO, "packet_ms": 60})
        assert await connection.recv() == '{"type":"delivery","coalesce_ms":40,"packet_ms":null}'
        await say(connection, {"type": "delivery", "coalesce_ms": 40, "packet_ms": 60}, packed(0, 1))
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        assert query_of(connection).items() >= {"coalesce_ms": "40", "packet_ms": "60"}.items()
        await say(connection, {**OPUS_HELLO, "resumed": True, "next_seq": 1})

    script = in_turn(first, second)
    async with scripted(script) as url, listen(url, "ev1", codec="opus", packet_ms=60, reconnect=SOON) as listener:
        await listener.set_delivery(coalesce_ms=40)
        events = [event async for event in listener]
    assert events[1] == DeliveryChange(40, 60)


async def test_a_delivery_that_can_not_be_is_refused_before_anything_is_sent() -> None:
    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        with pytest.raises(ConnectionClosed):
            await connection.recv()

    async with scripted(script) as url, listen(url, "ev1") as listener:
        with pytest.raises(ValueError, match="must not be negative"):
            await listener.set_delivery(packet_ms=-1)


async def test_a_codec_that_does_not_exist_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="mp3"):
        listen("http://127.0.0.1:1", "ev1", codec=("opus", "mp3"))  # type: ignore[arg-type]


async def test_a_channel_that_can_not_be_is_refused_before_anything_is_sent() -> None:
    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.wait_closed()

    async with scripted(script) as url, listen(url, "ev1") as listener:
        with pytest.raises(BadRequestError, match="The channel id 'a b' must have"):
            await listener.switch("a b")


async def test_a_ping_tells_the_difference_of_the_clocks() -> None:
    ahead_ms = 123_456_789

    def relays_clock() -> int:
        return (wire_milliseconds(relay_clock()) + ahead_ms) % (1 << 32)

    async def script(connection: ServerConnection) -> None:
        await say(connection, {**HELLO, "clock_ms": relays_clock()})
        async for _ in connection:
            break
        await say(connection, {"type": "pong", "id": 0, "clock_ms": relays_clock()})
        await say(connection, {"type": "pong", "id": 77, "clock_ms": 5}, frame(0, SAMPLES))

    async with scripted(script) as url, listen(url, "ev1") as listener:
        await listener.ping()
        events = [event async for event in listener]
        assert [type(event) for event in events] == [Hello, Pong, Pong, Audio]
        assert listener.clock_offset_ms == pytest.approx(ahead_ms, abs=500)
        frame_of_now = frame(0, SAMPLES)[:12] + relays_clock().to_bytes(4) + SAMPLES
        event = read_listener_event(frame_of_now)
        assert isinstance(event, Audio)
        assert listener.age_ms(event) == pytest.approx(0, abs=500)


SLOW_SECONDS = 1.2
"""How old the clock in a slow greeting is. Half of it is the error of an estimate from this greeting alone."""


@pytest.mark.parametrize(("clock_id", "is_kept"), [("one", True), ("two", False), (None, False)])
async def test_the_estimate_of_a_clock_outlives_the_connection_but_not_the_clock(
    clock_id: str | None, is_kept: bool
) -> None:
    """The second greeting is slow. If it is of the same clock, the estimate is no worse than before."""

    def relays_clock() -> int:
        return wire_milliseconds(relay_clock())

    async def first(connection: ServerConnection) -> None:
        await say(connection, {**HELLO, "clock_ms": relays_clock(), "clock_id": "one"})
        await anext(aiter(connection))
        await say(connection, {"type": "pong", "id": 0, "clock_ms": relays_clock()})
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        clock = {"clock_ms": relays_clock()} | ({} if clock_id is None else {"clock_id": clock_id})
        await asyncio.sleep(SLOW_SECONDS)
        await say(connection, {**RESUMED, **clock})

    async with scripted(in_turn(first, second)) as url, listen(url, "ev1", reconnect=SOON) as listener:
        await listener.ping()
        offsets = {type(event): serial_difference(listener.clock_offset_ms, 0) async for event in listener}
    moved_ms = abs(offsets[Reconnected] - offsets[Pong])
    assert moved_ms < 250 if is_kept else moved_ms > 350


async def test_a_frame_keeps_its_age_while_a_cancelled_step_connects_to_another_clock() -> None:
    begun, cancelled, greeted = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def first(connection: ServerConnection) -> None:
        clock_ms = wire_milliseconds(relay_clock())
        await say(connection, {**HELLO, "clock_ms": clock_ms, "clock_id": "one"})
        await say(connection, Header(1, 0, 0, clock_ms).pack() + SAMPLES)
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        begun.set()
        await cancelled.wait()
        clock_ms = (wire_milliseconds(relay_clock()) + 3_000_000) % (1 << 32)
        await say(connection, {**RESUMED, "next_seq": 1, "clock_ms": clock_ms, "clock_id": "two"})
        await (await connection.ping())
        greeted.set()
        await connection.wait_closed()

    async with scripted(in_turn(first, second)) as url, listen(url, "ev1", reconnect=SOON) as listener:
        events = [await anext(listener) for _ in range(3)]
        assert [type(event) for event in events] == [Hello, Audio, Reconnecting]
        assert isinstance(events[1], Audio)
        step = asyncio.ensure_future(anext(listener))
        await begun.wait()
        step.cancel()
        await asyncio.wait([step])
        cancelled.set()
        await greeted.wait()
        # The attempt is over as soon as its task has run. If that takes longer, the test notices nothing.
        await asyncio.sleep(0.05)
        assert abs(listener.age_ms(events[1])) < 1_000_000
        assert isinstance(await anext(listener), Reconnected)
        assert listener.age_ms(events[1]) > 2_000_000


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "PING_SECONDS", 0.05)
    monkeypatch.setattr(client_listener, "SILENCE_SECONDS", 2.0)


@pytest.mark.parametrize("is_stepwise", [False, True])
async def test_a_relay_that_is_gone_without_a_word_is_noticed(
    monkeypatch: pytest.MonkeyPatch, is_stepwise: bool
) -> None:
    impatient(monkeypatch)

    async def vanish(connection: ServerConnection) -> None:
        await say(connection, HELLO, frame(0, SAMPLES))
        connection.transport.pause_reading()
        await connection.wait_closed()

    async def quiet(connection: ServerConnection) -> None:
        await say(connection, {**RESUMED, "next_seq": 1})
        # The relay sends nothing for much longer than the limit, but answers pings.
        await asyncio.sleep(2 * client_listener.SILENCE_SECONDS)

    async with (
        scripted(in_turn(vanish, quiet), close_timeout=0.1) as url,
        asyncio.timeout(60),
        listen(url, "ev1", reconnect=SOON) as listener,
    ):
        events = await in_short_steps(listener) if is_stepwise else [event async for event in listener]
    assert told(events) == [Hello, 0, Reconnecting, Reconnected(resumed=True)]
    assert isinstance(events[2], Reconnecting)
    assert "has not answered for " in events[2].reason


async def test_a_relay_is_not_taken_for_gone_after_a_time_in_which_the_program_did_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)
    is_asked, may_speak = asyncio.Event(), asyncio.Event()

    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        connection.transport.pause_reading()
        await is_asked.wait()
        connection.transport.resume_reading()
        await may_speak.wait()
        await say(connection, frame(0, SAMPLES))

    async with (
        scripted(in_turn(script)) as url,
        asyncio.timeout(15),
        listen(url, "ev1", reconnect=SOON) as listener,
    ):
        assert isinstance(await anext(listener), Hello)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(listener)
        is_asked.set()
        time.sleep(3)  # noqa: ASYNC251 - nothing else may run meanwhile
        assert told(await in_short_steps(listener, may_speak.set)) == [0]


async def test_a_token_is_sent_and_a_function_is_asked_for_a_fresh_one_each_time() -> None:
    heard: list[str | None] = []

    def note(connection: ServerConnection) -> None:
        assert connection.request is not None
        heard.append(connection.request.headers.get("Authorization"))

    async def first(connection: ServerConnection) -> None:
        note(connection)
        await say(connection, HELLO)
        await connection.close(4001, "The token expired.")

    async def last(connection: ServerConnection) -> None:
        note(connection)
        await say(connection, HELLO)

    tokens = iter(["one", "two"])

    async def fresh() -> str:
        return next(tokens)

    await listen_to(in_turn(first, last), token=fresh)
    await listen_to(in_turn(last), token=lambda: "three")
    await listen_to(in_turn(last), token="four")  # noqa: S106 - not a real secret
    await listen_to(in_turn(last))
    assert heard == ["Bearer one", "Bearer two", "Bearer three", "Bearer four", None]


async def test_cancelling_a_step_loses_nothing_and_ends_no_try_to_connect() -> None:
    go_on = asyncio.Event()

    async def first(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await go_on.wait()
        await say(connection, frame(0, SAMPLES), {"type": "clear"})
        await cut(connection)

    async def second(connection: ServerConnection) -> None:
        await say(connection, {**RESUMED, "next_seq": 1}, frame(1, SAMPLES))

    async def take_time(connection: ServerConnection, request: Request) -> None:
        # This time covers many steps.
        await asyncio.sleep(0.3)

    policy = Reconnect(first_seconds=0.2, max_seconds=0.2)

    async with (
        scripted(in_turn(first, second), process_request=take_time) as url,
        asyncio.timeout(15),
        listen(url, "ev1", reconnect=policy) as listener,
    ):
        events = await in_short_steps(listener, go_on.set)
    assert told(events) == [Hello, 0, Clear(), Reconnecting, Reconnected(resumed=True), 1]


async def test_a_listener_that_was_not_entered_knows_nothing() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        _ = listen("http://127.0.0.1:1", "ev1").hello
