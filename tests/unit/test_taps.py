"""A tap reads everything that a channel releases and reports. Its reader never affects the listeners."""

import asyncio
import os
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from relay.audio.timeline import Timeline
from relay.hub.channel import ENDED, Channel
from relay.hub.listener import Note
from relay.hub.tap import Tap, TapOverflowError
from relay.protocol.requests import Offer
from relay.vocabulary.audio import AudioFormat, Codec, Frame, Pace
from relay.vocabulary.names import ChannelAddress
from tests.support.hub_bench import ADDRESS, FRAME, Bench, serialize

STEREO = AudioFormat(rate=48_000, channels=2)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.hub.broadcasting.close()
    await made.tasks.close()


async def read_all(tap: Tap) -> list[Frame | Note]:
    async with asyncio.timeout(30.0):
        return [item async for item in tap]


def frames_of(items: list[Frame | Note]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


@pytest.mark.parametrize("pace", list(Pace))
async def test_a_recording_through_a_tap_is_what_was_sent(bench: Bench, pace: Pace) -> None:
    source = bench.claim(offer=Offer(pace=pace))
    tap = source.channel.open_tap("recorder")
    reading = asyncio.ensure_future(read_all(tap))
    sent = [os.urandom(2 * (number % 400 + 1)) for number in range(200)]
    for audio in sent:
        bench.publish(source, audio=audio)
        bench.now += 0.01
        bench.hub.broadcasting.release_due(source.channel)
        await asyncio.sleep(0)
    bench.now += 100.0
    bench.hub.broadcasting.release_due(source.channel)
    bench.hub.broadcasting.end(source)
    items = await reading
    frames = frames_of(items)
    assert b"".join(frame.audio for frame in frames) == b"".join(sent)
    assert frames[0].start is tap.start
    assert all(later.start is earlier.end for earlier, later in pairwise(frames))
    assert frames[-1].end is source.channel.place
    assert isinstance(items[-1], Note)
    assert items[-1].close == ENDED


async def test_notes_stand_between_the_frames_where_listeners_are_told(bench: Bench) -> None:
    source = bench.claim()
    tap = source.channel.open_tap("captions")
    assert tap.audio_format == AudioFormat()
    bench.publish(source)
    bench.hub.broadcasting.clear(source)
    bench.publish(source)
    again = bench.claim(offer=Offer(STEREO, takeover=True))
    bench.publish(again, audio=bytes(192))
    bench.hub.broadcasting.end(again)
    kinds = []
    async for item in tap:
        if isinstance(item, Frame):
            kinds.append(f"frame {item.start.epoch - tap.start.epoch}")
        elif item.clears:
            kinds.append("clear")
        elif item.audio_format is not None:
            kinds.append(str(item.audio_format))
        elif item.close is not None:
            kinds.append("end")
    assert kinds == ["frame 0", "clear", "frame 0", "48000 Hz, stereo", "frame 1", "end"]


async def test_a_reader_that_is_too_slow_loses_its_tap_and_nobody_else_anything(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    port = bench.join()
    source = bench.claim()
    await bench.settle()
    slow, fast = source.channel.open_tap("recorder", 0.1), source.channel.open_tap("bus")
    bench.publish(source, 20)
    await bench.settle()
    assert len(port.frames) == len(fast) == 20
    assert list(source.channel.readers) == [fast]
    assert [await anext(slow) for _ in range(5)] == [await anext(fast) for _ in range(5)]
    with pytest.raises(TapOverflowError, match="recorder"):
        await anext(slow)
    [line] = [record for record in caplog.records if "tap" in record.message]
    assert (line.__dict__["tap"], line.__dict__["channel"]) == ("recorder", "main")
    assert source.channel.tally.lost_taps == 1


async def test_a_reader_that_keeps_up_reads_for_ever(bench: Bench) -> None:
    source = bench.claim()
    tap = source.channel.open_tap("recorder", 0.1)
    for _ in range(20):
        bench.publish(source)
        await anext(tap)
    assert tap.is_open


async def test_frames_of_one_sample_fill_a_tap_by_their_number(bench: Bench) -> None:
    source = bench.claim()
    tap = source.channel.open_tap("recorder", 0.1)
    bench.publish(source, 41, audio=b"\0\0")
    assert (len(tap), tap.is_open) == (40, False)


async def test_a_reader_that_fails_takes_only_its_tap_along(bench: Bench) -> None:
    port, source = bench.join(), bench.claim()
    await bench.settle()

    async def fail() -> None:
        with source.channel.open_tap("encoder") as tap:
            async for _ in tap:
                raise OSError("disk full")

    task = asyncio.ensure_future(fail())
    await bench.settle()
    bench.publish(source)
    with pytest.raises(OSError, match="disk full"):
        await task
    bench.publish(source)
    await bench.settle()
    assert len(port.frames) == 2
    assert not source.channel.readers


async def test_a_tap_that_is_closed_has_nothing_more(bench: Bench) -> None:
    source = bench.claim()
    tap = source.channel.open_tap("recorder")
    bench.publish(source)
    tap.close()
    tap.close()
    assert await read_all(tap) == []


async def test_the_first_and_the_last_subscriber_are_noticed(bench: Bench) -> None:
    source = bench.claim()
    noticed: list[bool] = []
    source.channel.observers.append(noticed.append)
    first, second = bench.join("first"), bench.join("second")
    tap = source.channel.open_tap("encoder")
    passive = source.channel.open_tap("bus", is_passive=True)
    bench.leave(first)
    bench.leave(second)
    assert noticed == [True]
    tap.close()
    assert noticed == [True, False]
    passive.close()
    third = bench.join("third")
    bench.switch(third, "main")
    assert noticed == [True, False, True, False, True]


async def test_an_observer_that_fails_stops_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    source = bench.claim()
    noticed: list[bool] = []

    def fail(has_subscribers: bool) -> None:
        raise ZeroDivisionError(has_subscribers)

    source.channel.observers += [fail, noticed.append]
    port = bench.join()
    bench.publish(source)
    await bench.settle()
    assert (noticed, len(port.frames)) == ([True], 1)
    assert "an observer of a channel failed" in caplog.messages


async def test_every_channel_that_is_made_can_be_tapped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    taps: list[Tap] = []

    def fail(live: Channel) -> None:
        raise ZeroDivisionError(live)

    def attach(live: Channel) -> None:
        taps.append(live.open_tap("bus", is_passive=True))

    bench.hub.on_open += [fail, attach]
    source = bench.claim()
    bench.publish(source, 3)
    assert [len(frames_of([await anext(taps[0]) for _ in range(len(taps[0]))]))] == [3]
    assert "a callback for new channels failed" in caplog.messages


async def test_only_a_tap_that_is_not_passive_keeps_a_channel(bench: Bench) -> None:
    taps = {name: bench.hub.directory.open(ChannelAddress("ev1", name)).open_tap(name) for name in ("a", "b")}
    passive = bench.hub.directory.open(ChannelAddress("ev1", "c")).open_tap("c", is_passive=True)
    taps["b"].close()
    for _ in range(2):
        bench.hub.keep_house()
        bench.now += 1000.0
    bench.hub.keep_house()
    assert [live.address.channel for live in bench.hub.directory] == ["a"]
    assert await read_all(passive) == [], "it ends with its channel"
    [kept] = bench.hub.directory
    bench.hub.directory.give_up(kept)
    assert list(bench.hub.directory) == [kept], "nor is it given up for want of room"


async def test_an_epoch_can_be_given(bench: Bench) -> None:
    def epoch(address: ChannelAddress) -> int:
        return len(address.channel)

    assert Bench(draw_epoch=epoch).join(channel="main").hello["epoch"] == 4


async def test_frames_that_were_numbered_elsewhere_are_handed_on_alike(bench: Bench) -> None:
    """Another process that carries the same channel sends its listeners the same bytes."""
    home = Timeline(7, serialize)
    other = Bench(draw_epoch=lambda _: 7)
    port = other.join(delivery=None)
    live = other.hub.directory.open(ADDRESS)
    live.go_live(AudioFormat())
    home.go_live(AudioFormat())
    frames = [home.release(AudioFormat().measure(FRAME), other.now + number / 50) for number in range(3)]
    tap = live.open_tap("recorder")
    other.hub.broadcasting.distribute(live, frames)
    await other.settle()
    assert b"".join(port.writes) == b"".join(frame.wire for frame in frames)
    assert [await anext(tap) for _ in range(3)] == frames
    assert live.place is frames[-1].end
    assert list(live.streams[Codec.PCM_S16LE].history.frames) == frames
    assert other.join("late").hello["next_seq"] == 3
    await other.tasks.close()
