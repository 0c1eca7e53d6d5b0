"""A real relay through an event: languages, take-overs, bursts, cuts, interruptions and a restart.

Times come from the relay's own header (`ReceivedFrame.due_ms`) and from its clock, which this machine shares.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.live_session import ask
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import (
    ReceivedFrame,
    WireListener,
    closing,
    milliseconds_between,
    numbered_audio,
    open_listener,
    wire_clock,
)

pytestmark = pytest.mark.timed

FRAME_SECONDS = 0.02
FRAME_BYTES = 640

TOLD_SECONDS = 60.0
"""The wait for a message that may not come; it does not judge speed."""


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process() as process:
        yield process


class Speaker:
    """A broadcaster of numbered frames.

    Attributes:
        told: The messages from the relay.
        sent: How many frames it sent.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.told: list[dict[str, Any]] = []
        self.sent = 0
        self._news = asyncio.Event()

    async def send(self, frames: int, *, every: float = 0.0) -> None:
        for _ in range(frames):
            await self.connection.send(numbered_audio(self.sent, FRAME_BYTES))
            self.sent += 1
            if every:
                await asyncio.sleep(every)

    async def say(self, message_type: str, **members: object) -> None:
        await self.connection.send(json.dumps({"type": message_type, **members}))

    async def read(self) -> None:
        async for message in self.connection:
            self.told.append(json.loads(message))
            self._news.set()

    async def until_told(self, message_type: str, **members: object) -> dict[str, Any]:
        async with asyncio.timeout(TOLD_SECONDS):
            while True:
                for message in self.told:
                    if message["type"] == message_type and members.items() <= message.items():
                        return message
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def speaker(relay: RelayProcess, target: str) -> AsyncIterator[Speaker]:
    url = relay.url.replace("http", "ws") + "/v1/broadcast/" + target
    async with connect(url, subprotocols=[Subprotocol("relay.v1")], compression=None, close_timeout=1) as connection:
        speaking = Speaker(connection)
        reading = asyncio.ensure_future(speaking.read())
        try:
            await speaking.until_told("hello")
            yield speaking
        finally:
            reading.cancel()
            await asyncio.wait([reading])


def listen(relay: RelayProcess, target: str) -> Any:
    return open_listener(relay.url, f"/v1/listen/{target}")


def numbers(listener: WireListener) -> list[int]:
    return [frame.number for frame in listener.frames]


def said(listener: WireListener, message_type: str) -> list[dict[str, Any]]:
    """Return the messages of one type that a listener received."""
    return [told for told in listener.told if told["type"] == message_type]


async def test_a_listener_changes_language_within_half_a_second(relay: RelayProcess) -> None:
    async with (
        speaker(relay, "ev1/en?name=English&lang=en") as english,
        speaker(relay, "ev1/de?name=Deutsch&lang=de") as german,
    ):
        listener = await listen(relay, "ev1/en")
        with closing([listener]):
            talking = [asyncio.ensure_future(each.send(1000, every=FRAME_SECONDS)) for each in (english, german)]
            await listener.until(lambda: len(listener.frames) > 20)
            assert {entry["id"]: (entry["name"], entry["lang"]) for entry in listener.hello["channels"]} == {
                "en": ("English", "en"),
                "de": ("Deutsch", "de"),
            }
            assert min([await switch_ms(listener, channel) for channel in ("de", "en", "de")]) < 500
            for each in talking:
                each.cancel()
            await asyncio.wait(talking)


async def switch_ms(listener: WireListener, channel: str) -> int:
    """Switch to a channel with audio, and return how many milliseconds passed until its first frame."""
    greeted = len(said(listener, "hello"))
    asked = wire_clock()
    listener.send_text("switch", channel=channel)
    await listener.until(lambda: len(said(listener, "hello")) > greeted)
    hello = said(listener, "hello")[-1]
    heard = len(listener.frames)
    await listener.until(lambda: len(listener.frames) > heard + 20)
    after = listener.events[listener.events.index(hello) + 1 :]
    frames = [event for event in after if isinstance(event, ReceivedFrame)]
    assert hello["channel"] == channel
    assert [(frame.epoch, frame.seq) for frame in frames] == [
        (hello["epoch"], hello["next_seq"] + n) for n in range(len(frames))
    ]
    return milliseconds_between(asked, frames[0].read_ms)


async def test_a_switch_to_a_channel_that_there_is_not_changes_nothing(relay: RelayProcess) -> None:
    async with speaker(relay, "ev1") as speaking:
        listener = await listen(relay, "ev1")
        with closing([listener]):
            for channel in ("nowhere", "a/b", 7):
                listener.send_text("switch", channel=channel)
            await speaking.send(5)
            await listener.until(lambda: len(listener.frames) == 5)
            await listener.until(lambda: len(said(listener, "error")) == 3)
            assert all(error["code"] == 4504 for error in said(listener, "error"))
            assert listener.account() == [listener.hello["next_seq"] + 5]


async def test_what_is_not_for_a_listener_is_ignored(relay: RelayProcess) -> None:
    async with speaker(relay, "ev1") as speaking:
        listener = await listen(relay, "ev1")
        with closing([listener]):
            listener.send_text("clear")
            listener.send_text("end")
            await ask(listener, 1)
            await speaking.send(5)
            await listener.until(lambda: len(listener.frames) == 5)
            assert listener.account() == [5]


async def test_of_many_who_take_over_one_has_the_channel(relay: RelayProcess) -> None:
    listener = await listen(relay, "ev1")
    with closing([listener]):
        url = relay.url.replace("http", "ws") + "/v1/broadcast/ev1?takeover=1"
        connections = await asyncio.gather(
            *(connect(url, subprotocols=[Subprotocol("relay.v1")], compression=None) for _ in range(20))
        )
        open_ones = {asyncio.ensure_future(connection.wait_closed()) for connection in connections}
        async with asyncio.timeout(20):
            while len(open_ones) > 1:
                _, open_ones = await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
        assert sorted((connection.close_code for connection in connections), key=str) == [4500] * 19 + [None]
        (winner,) = (connection for connection in connections if connection.close_code is None)
        for number in range(3):
            await winner.send(numbered_audio(number, FRAME_BYTES))
        await listener.until(lambda: len(listener.frames) == 3)
        assert listener.account() == [3]
        assert [told["state"] for told in listener.told if told["type"] == "state"] == ["live"]
        await winner.close()


async def test_a_cut_of_three_seconds_loses_nothing_and_repeats_nothing(relay: RelayProcess) -> None:
    async with speaker(relay, "ev1") as speaking:
        first = await listen(relay, "ev1")
        talking = asyncio.ensure_future(speaking.send(250, every=FRAME_SECONDS))
        await first.until(lambda: len(first.frames) >= 50)
        first.close()
        last = first.frames[-1]
        await asyncio.sleep(3)
        again = await listen(relay, f"ev1?epoch={last.epoch}&after={last.seq}")
        with closing([again]):
            await talking
            await again.until(lambda: len(first.frames) + len(again.frames) == 250)
            assert again.hello["resumed"] is True
            assert numbers(first) + numbers(again) == list(range(250))
            assert again.gaps == []


async def test_a_restarted_relay_says_that_it_can_not_go_on() -> None:
    async with relay_process() as relay, speaker(relay, "ev1") as speaking:
        listener = await listen(relay, "ev1")
        await speaking.send(10)
        await listener.until(lambda: len(listener.frames) == 10)
        last = listener.frames[-1]
        listener.close()
    async with relay_process() as relay, speaker(relay, "ev1"):
        listener = await listen(relay, f"ev1?epoch={last.epoch}&after={last.seq}")
        with closing([listener]):
            assert (listener.hello["resumed"], listener.hello["next_seq"]) == (False, 0)
            assert listener.hello["epoch"] != last.epoch


async def test_fifteen_seconds_of_speech_at_once_cost_a_healthy_listener_nothing(relay: RelayProcess) -> None:
    async with speaker(relay, "ev1?pace=speech") as speaking:
        listener = await listen(relay, "ev1")
        with closing([listener]):
            began = wire_clock()
            await speaking.send(750)
            sent_ms = milliseconds_between(began, wire_clock())
            await speaking.say("end")
            await listener.until_ended(30)
            assert sent_ms < 5000
            assert numbers(listener) == list(range(750))
            assert listener.gaps == []
            leads = [-frame.age_ms for frame in listener.frames]
            assert max(leads) <= 2000 + 5, "nothing is released more than the lead before it is due"
            steps_ms = [milliseconds_between(one.due_ms, two.due_ms) for one, two in pairwise(listener.frames)]
            assert min(steps_ms) >= 19, "due word after word"
            assert max(steps_ms[50:]) <= 21, "the speaker was a second ahead, so that it was late is no excuse"


async def test_a_stall_of_the_microphone_leaves_no_lasting_delay(relay: RelayProcess) -> None:
    async with speaker(relay, "ev1") as speaking:
        listener = await listen(relay, "ev1")
        with closing([listener]):
            await speaking.send(50, every=FRAME_SECONDS)
            await asyncio.sleep(3)
            await speaking.send(150)
            sent_ms = []
            for _ in range(25):
                sent_ms.append(wire_clock())
                await speaking.send(1, every=FRAME_SECONDS)
            await listener.until(lambda: len(listener.frames) == 225)
            after = listener.frames[200:]
            way_ms = [milliseconds_between(sent, frame.read_ms) for sent, frame in zip(sent_ms, after, strict=True)]
            assert min(way_ms) < 250, "what was late is passed on at once"
            assert min(abs(frame.age_ms) for frame in after) < 250, "and not due later"
            assert listener.account() == [225]


async def test_audio_sent_at_full_speed_is_slowed_down_and_none_is_lost() -> None:
    async with relay_process(RELAY_BROADCAST_QUEUE_SECONDS="2") as relay:
        await asyncio.gather(slowed_down(relay, "live"), slowed_down(relay, "speech"))


async def slowed_down(relay: RelayProcess, pace: str) -> None:
    async with speaker(relay, f"{pace}?pace={pace}") as speaking:
        listener = await listen(relay, pace)
        with closing([listener]):
            began = wire_clock()
            sending = asyncio.ensure_future(speaking.send(2500))
            await speaking.until_told("backpressure", on=True)
            await listener.until(lambda: len(listener.frames) >= 300, 30)
            took_ms = milliseconds_between(began, wire_clock())
            assert took_ms > (300 - 200) * 20, "the relay passed it on faster than real time"
            assert listener.account() == [len(listener.frames)]
            sending.cancel()
            await asyncio.wait([sending])


async def test_clear_is_silence_within_200_ms(relay: RelayProcess) -> None:
    assert min([await silence_ms(relay, session) for session in ("ev1", "ev2", "ev3")]) < 200


async def silence_ms(relay: RelayProcess, session: str) -> int:
    """Clear in the middle of a speech, and return how many milliseconds passed until a listener received the notice."""
    async with speaker(relay, f"{session}?pace=speech") as speaking:
        listener = await listen(relay, session)
        with closing([listener]):
            await speaking.send(500)
            # The pong shows that the relay has read all audio, so none can arrive after the clear.
            await speaking.say("ping")
            await speaking.until_told("pong")
            await listener.until(lambda: len(listener.frames) >= 100)
            asked = wire_clock()
            await speaking.say("clear")
            await listener.until(lambda: said(listener, "clear") != [])
            took_ms = milliseconds_between(asked, wire_clock())
            after = await listen(relay, session)
            with closing([after]):
                speaking.sent = after.hello["next_seq"]
                await speaking.send(10)
                await listener.until(lambda: listener.frames[-1].number == speaking.sent - 1)
            assert listener.frames[-10].age_ms >= 0, "what is said next is due at once"
            assert listener.account() == [speaking.sent], "what was on its way to it when it was cleared is a gap"
            assert sum(gap["to_seq"] + 1 - gap["from_seq"] for gap in listener.gaps) <= 100, (
                "no more than the lead of 2 s"
            )
            return took_ms


async def test_a_broadcaster_learns_within_two_seconds_who_listens(relay: RelayProcess) -> None:
    assert min([await learning_ms(relay, session) for session in ("ev1", "ev2", "ev3")]) < 2000


async def learning_ms(relay: RelayProcess, session: str) -> int:
    """Return how many milliseconds it took until a broadcaster learned that a listener came, or that it left."""
    async with speaker(relay, session) as speaking:
        await speaking.until_told("stats", listeners=0)
        came = wire_clock()
        listener = await listen(relay, session)
        await speaking.until_told("stats", listeners=1)
        coming_ms = milliseconds_between(came, wire_clock())
        speaking.told.clear()
        left = wire_clock()
        listener.close()
        await speaking.until_told("stats", listeners=0)
        return max(coming_ms, milliseconds_between(left, wire_clock()))


async def test_listeners_may_come_first_and_stay_through_a_loss() -> None:
    async with relay_process(RELAY_BROADCAST_GRACE_SECONDS="1") as relay:
        listener = await listen(relay, "ev1")
        with closing([listener]):
            assert (listener.hello["state"], listener.hello["format"]) == ("waiting", None)
            async with speaker(relay, "ev1") as speaking:
                await speaking.send(3)
                await listener.until(lambda: len(listener.frames) == 3)
            await listener.until(lambda: listener.told[-1]["type"] == "channels" and states(listener)[-1] == "waiting")
            async with speaker(relay, "ev1") as speaking:
                speaking.sent = 3
                await speaking.send(3)
                await listener.until(lambda: len(listener.frames) == 6)
            assert states(listener)[:4] == ["live", "source_lost", "waiting", "live"]
            assert listener.account() == [6], "the numbering goes on"


async def test_a_mute_and_a_pause_are_told_in_their_place_and_a_pause_outlasts_the_grace() -> None:
    async with relay_process(RELAY_BROADCAST_GRACE_SECONDS="0.1") as relay:
        listener = await listen(relay, "ev1")
        with closing([listener]):
            async with speaker(relay, "ev1") as speaking:
                await speaking.send(3)
                await speaking.say("mute", on=True)
                await speaking.say("mute", on=True)
                await speaking.send(3)
                await speaking.say("mute", on="perhaps")
                assert (await speaking.until_told("error"))["code"] == 4504
                late = await listen(relay, "ev1")
                with closing([late]):
                    assert (late.hello["state"], late.hello["silence"]) == ("live", "muted")
                await speaking.say("mute", on=False)
                await speaking.send(3)
                await speaking.say("pause")
                await speaking.connection.wait_closed()
                assert speaking.connection.close_code == 1000
            await listener.until(lambda: silences(listener)[-1] == ("waiting", "paused"))
            # The housekeeping that ends a grace period also sends the list of channels.
            await listener.until(lambda: listener.told[-1]["type"] == "channels")
            late = await listen(relay, "ev1")
            with closing([late]):
                assert (late.hello["state"], late.hello["silence"]) == ("waiting", "paused")
            async with speaker(relay, "ev1") as speaking:
                speaking.sent = 9
                await speaking.send(3)
                await speaking.say("end")
                await listener.until_ended()
            assert silences(listener) == [
                ("live", None),
                ("live", "muted"),
                ("live", None),
                ("waiting", "paused"),
                ("live", None),
                ("ended", None),
            ]
            # Each frame arrived on the right side of each state message, and none is missing.
            assert frames_before_states(listener) == [0, 3, 6, 9, 9, 12]
            assert listener.account() == [12]


def silences(listener: WireListener) -> list[tuple[str, str | None]]:
    return [(told["state"], told["silence"]) for told in said(listener, "state")]


def frames_before_states(listener: WireListener) -> list[int]:
    """Return the number of frames before each state message."""
    counts, frames = list[int](), 0
    for event in listener.events:
        if isinstance(event, ReceivedFrame):
            frames += 1
        elif event["type"] == "state":
            counts.append(frames)
    return counts


def states(listener: WireListener) -> list[str]:
    return [told["state"] for told in listener.told if told["type"] == "state"]


async def test_a_burst_begins_before_the_join(relay: RelayProcess) -> None:
    async with speaker(relay, "ev1") as speaking:
        first = await listen(relay, "ev1")
        with closing([first]):
            await speaking.send(75, every=FRAME_SECONDS)
            await first.until(lambda: len(first.frames) == 75)
            joined = wire_clock()
            listener = await listen(relay, "ev1?burst_ms=1000")
            with closing([listener]):
                await speaking.send(1)
                await listener.until(lambda: listener.frames[-1:] != [] and listener.frames[-1].number == 75)
                begins = listener.hello["next_seq"]
                assert numbers(listener) == list(range(begins, 76))
                assert milliseconds_between(listener.frames[0].due_ms, joined) <= 1000 + 5
                left_out = first.frames[begins - 1]
                assert milliseconds_between(left_out.due_ms, listener.hello["clock_ms"]) >= 1000 - 1
