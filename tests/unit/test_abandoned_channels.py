"""What the relay keeps after a broadcaster leaves: limited in channels and bytes, per session and overall."""

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.hub.channel import Channel
from relay.limits.names import Limit
from relay.protocol.requests import Delivery, Offer, Resume
from relay.settings.settings import LimitSettings
from relay.vocabulary.audio import Codec, Pace
from tests.support.hub_bench import Bench, check_account

SPEECH = Offer(pace=Pace.SPEECH)
MINUTE = [bytes(32_000)] * 60
"""The most audio that may wait in a speech channel at 16 kHz mono."""


@asynccontextmanager
async def a_bench(**limits: int) -> AsyncIterator[Bench]:
    bench = Bench(limits=LimitSettings.model_validate(limits))
    try:
        yield bench
    finally:
        bench.hub.broadcasting.close()
        await bench.tasks.close()


def come_and_go(bench: Bench, channel: str, session: str = "ev1") -> Channel:
    """Claim a channel, fill its queue and disappear."""
    source = bench.claim(channel=channel, session=session, offer=SPEECH)
    for audio in MINUTE:
        bench.publish(source, 1, audio)
    bench.release(source)
    return source.channel


def kept_bytes(bench: Bench, session: str | None = None) -> int:
    return sum(live.kept_bytes for live in bench.hub.directory.abandoned(session))


async def test_one_channel_after_the_other_keeps_no_more_than_a_session_may() -> None:
    most = 4_000_000
    async with a_bench(max_abandoned_bytes_per_session=most) as bench:
        other = come_and_go(bench, "main", "other")
        for number in range(73):
            last = come_and_go(bench, f"channel-{number}")
            assert kept_bytes(bench, "ev1") <= most
        assert last.kept_bytes > 1_900_000, "the oldest goes, and the newest stays"
        assert other.kept_bytes > 1_900_000, "another session keeps its own"
        assert bench.limits.counters[Limit.ABANDONED_BYTES_PER_SESSION] == 71


async def test_of_all_sessions_the_one_that_keeps_most_loses() -> None:
    async with a_bench(max_abandoned_bytes=10_000_000) as bench:
        other = come_and_go(bench, "main", "other")
        for number in range(10):
            come_and_go(bench, f"channel-{number}")
            assert kept_bytes(bench) <= 10_000_000
        for number in range(10):
            come_and_go(bench, "main", f"session-{number}")
            assert kept_bytes(bench) <= 10_000_000
        assert other.kept_bytes == 0, "the oldest of those that keep the same"


async def test_channels_without_any_audio_are_bounded_in_number() -> None:
    async with a_bench(max_abandoned_channels_per_session=5, max_abandoned_channels=12) as bench:
        for number in range(20):
            bench.release(bench.claim(channel=f"channel-{number}"))
        assert [live.address.channel for live in bench.hub.directory] == [f"channel-{n}" for n in range(15, 20)]
        for number in range(20):
            bench.release(bench.claim(session=f"session-{number}"))
        assert len(list(bench.hub.directory)) == 12
        for number in range(20):
            bench.hub.broadcasting.end(bench.claim(session=f"session-{number}"))
        assert len(bench.hub.directory.abandoned()) == 12
        bench.now += 100
        bench.hub.keep_house()
        bench.now += 100
        bench.hub.keep_house()
        assert bench.hub.directory.abandoned() == [], "nothing is kept of what was forgotten"


async def test_listeners_of_what_was_thrown_away_are_told_by_a_gap_and_go_on() -> None:
    async with a_bench(max_abandoned_bytes_per_session=100_000) as bench:
        port = bench.join()
        source = bench.claim()
        bench.publish(source, 100)
        await bench.settle()
        bench.release(source)
        await bench.settle()
        assert source.channel.kept_bytes == 0
        hello = port.hello
        resumed = bench.join("again", delivery=Delivery(resume=Resume(hello["epoch"], 9)))
        again = bench.claim()
        assert again.channel is source.channel, "it is the same channel, with its numbers"
        bench.publish(again, 10)
        await bench.settle()
        check_account(port, 110)
        check_account(resumed, 110)
        assert [gap["reason"] for gap in resumed.of_type("gap")] == ["resume"]


async def test_a_channel_that_has_a_broadcaster_again_is_not_touched() -> None:
    async with a_bench(max_abandoned_bytes_per_session=3_000_000) as bench:
        source = bench.claim(channel="mine", offer=SPEECH)
        for audio in MINUTE:
            bench.publish(source, 1, audio)
        bench.release(source)
        bench.claim(channel="mine", offer=SPEECH)
        for number in range(5):
            come_and_go(bench, f"channel-{number}")
        assert source.channel.kept_bytes > 1_900_000


async def test_a_forgotten_channel_is_freed_without_a_garbage_collection() -> None:
    """The relay delays full collections, and a channel may keep megabytes."""
    async with a_bench() as bench:
        gc.collect()
        gc.disable()
        try:
            source = bench.claim()
            bench.publish(source, 10)
            bench.release(source)
            bench.hub.directory.forget(source.channel)
            bench.source_ports.clear()
            channel = weakref.ref(source.channel)
            del source
            assert channel() is None
        finally:
            gc.enable()


async def test_audio_that_waits_to_be_transcoded_is_kept_audio_too() -> None:
    bench = Bench(limits=LimitSettings(max_abandoned_bytes_per_session=1000))
    port = bench.join(delivery=Delivery(codecs=(Codec.OPUS,)))
    source = bench.claim()
    bench.publish(source, 10)
    assert source.channel.kept_bytes > 1000
    bench.release(source)
    assert source.channel.kept_bytes == 0
    await bench.settle()
    assert (port.frames, [gap["to_seq"] for gap in port.of_type("gap")]) == ([], [10])
    await bench.tasks.close()
