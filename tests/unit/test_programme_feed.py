"""Programmes of channels: numbered, bounded and accounted for like every stream, with silence while nobody sends."""

import io
from collections.abc import AsyncIterator

import pytest

from relay.hub.channel import Broadcaster
from relay.hub.feed import MAX_BEHIND_SECONDS
from relay.hub.framing import HttpFraming
from relay.hub.hub import HOUSEKEEPING_SECONDS
from relay.media.ogg_pages import Page, PageReader
from relay.media.programme import ProgrammeSettings
from relay.protocol.requests import Delivery, Offer
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import AudioFormat, Pace
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import CloseCode, NotServedError
from tests.support.hub_bench import ADDRESS, FRAME, Bench, FakePort

PLAIN = HttpFraming(Container.OGG, is_chunked=False)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(bound_seconds=10.0, programmes=ProgrammeSettings())
    yield made
    made.hub.broadcasting.close()
    await made.tasks.close()


def join(bench: Bench, name: str = "radio", burst_ms: int = 0, framing: HttpFraming = PLAIN) -> FakePort:
    return bench.join(name, framing, delivery=Delivery(burst_ms=burst_ms, container=framing.container))


def pages(port: FakePort) -> list[Page]:
    reader = PageReader(io.BytesIO(b"".join(port.writes)))
    found = list(reader)
    assert not reader.damaged
    return found


def seconds(port: FakePort) -> float:
    return sum(opus_packet.measure(packet) for page in pages(port) for packet in page.packets) / opus_packet.CLOCK_RATE


async def rest(bench: Bench, seconds: float) -> None:
    """Let time pass, with the housekeeping of a running relay."""
    for _ in range(round(seconds / HOUSEKEEPING_SECONDS)):
        bench.now += HOUSEKEEPING_SECONDS
        bench.hub.keep_house()
        await bench.settle()


async def release_and_rest(bench: Bench, seconds: float) -> None:
    """Let time pass, and release speech that is due meanwhile."""
    for _ in range(round(seconds / HOUSEKEEPING_SECONDS)):
        bench.hub.broadcasting.release_due(bench.hub.directory.open(ADDRESS))
        await rest(bench, HOUSEKEEPING_SECONDS)


async def play(bench: Bench, source: Broadcaster, seconds: float, audio: bytes = FRAME) -> None:
    for _ in range(round(seconds / 0.02)):
        bench.now += 0.02
        bench.publish(source, audio=audio)
        await bench.settle()


async def test_a_programme_has_silence_before_between_and_after_its_sources(bench: Bench) -> None:
    port = join(bench)
    await rest(bench, 3)
    assert seconds(port) == pytest.approx(3, abs=0.02)
    source = bench.claim()
    await play(bench, source, 2)
    assert seconds(port) == pytest.approx(5, abs=0.12)
    bench.hub.broadcasting.pause(source)
    await rest(bench, 4)
    assert seconds(port) == pytest.approx(9, abs=0.12)
    await play(bench, bench.claim(AudioFormat(rate=48_000, channels=2)), 1, bytes(3840))
    assert seconds(port) == pytest.approx(10, abs=0.14)
    assert [page.number for page in pages(port)] == list(range(2, 2 + len(pages(port))))


async def test_a_source_that_is_there_and_sends_nothing_is_waited_for(bench: Bench) -> None:
    port = join(bench)
    source = bench.claim()
    await play(bench, source, 1)
    await rest(bench, 3)
    assert seconds(port) == pytest.approx(1, abs=0.12)


async def test_speech_that_is_released_early_is_followed_by_less_silence(bench: Bench) -> None:
    port, began = join(bench), bench.now
    for _ in range(5):
        source = bench.claim(offer=Offer(pace=Pace.SPEECH))
        bench.publish(source, 250)
        bench.hub.broadcasting.pause(source)
        await release_and_rest(bench, 15)
        assert seconds(port) == pytest.approx(bench.now - began, abs=0.2)


async def test_the_end_of_a_grace_period_costs_no_silence(bench: Bench) -> None:
    port, began = join(bench), bench.now
    for _ in range(5):
        source = bench.claim()
        await play(bench, source, 1)
        bench.release(source)
        await rest(bench, 40)
        assert seconds(port) == pytest.approx(bench.now - began, abs=0.2)


async def test_late_audio_of_a_broadcaster_that_came_back_delays_a_programme_only_until_the_next_silence(
    bench: Bench,
) -> None:
    port, began = join(bench), bench.now
    source = bench.claim()
    for _ in range(5):
        await play(bench, source, 5)
        bench.release(source)
        await rest(bench, 8)
        assert seconds(port) == pytest.approx(bench.now - began, abs=0.2)
        source = bench.claim(offer=Offer(takeover=True))
        bench.publish(source, 400)
        await bench.settle()
        assert seconds(port) == pytest.approx(bench.now - began + 8, abs=0.2), "nothing of it is lost"


async def test_a_burst_and_audio_that_was_never_made_shorten_no_silence(bench: Bench) -> None:
    source = bench.claim()
    await play(bench, source, 8)
    port, began = join(bench, burst_ms=3000), bench.now
    await play(bench, source, 1)
    for _ in range(round(MAX_BEHIND_SECONDS / 0.02) + 1):
        bench.now += 0.02
        bench.publish(source)
    await bench.settle()
    assert seconds(port) == pytest.approx(4, abs=0.2)
    bench.hub.broadcasting.pause(source)
    await rest(bench, 5)
    assert seconds(port) == pytest.approx(bench.now - began + 3 - MAX_BEHIND_SECONDS, abs=0.2)


async def test_listeners_share_pages_and_a_slow_one_loses_whole_pages(bench: Bench) -> None:
    source = bench.claim()
    quick, slow = join(bench, "quick"), join(bench, "slow")
    await play(bench, source, 1)
    slow.room = 2
    await play(bench, source, 1)
    assert slow.listener is not None
    await play(bench, source, 14)
    slow.room = 1_000_000
    bench.hub.listening.unblock(slow.listener)
    await play(bench, source, 1)
    whole, got = pages(quick), pages(slow)
    assert {page.number for page in got} < {page.number for page in whole}
    lost = len(whole) - len(got)
    counters = slow.listener.buffer.counters
    assert 30 < lost == counters.dropped.chunks
    assert bench.hub.directory.open(ADDRESS).tally.dropped_frames == lost
    by_number = {page.number: page for page in whole}
    assert all(by_number[page.number] == page for page in got)


async def test_a_burst_comes_from_the_channel_or_from_the_programme(bench: Bench) -> None:
    source = bench.claim()
    await play(bench, source, 8)
    first = join(bench, "first", burst_ms=3000)
    await bench.settle()
    assert seconds(first) == pytest.approx(3, abs=0.15)
    await play(bench, source, 2)
    second, live = join(bench, "second", burst_ms=2000), join(bench, "live")
    await bench.settle()
    assert seconds(second) == pytest.approx(2, abs=0.15)
    assert live.writes == []
    await play(bench, source, 1)
    assert seconds(live) == pytest.approx(1, abs=0.15)
    assert pages(second)[-1] == pages(live)[-1] == pages(first)[-1]


async def test_the_end_of_a_session_ends_the_programme_after_its_last_audio(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench)
    await play(bench, source, 1.03)
    bench.hub.broadcasting.end(source)
    await bench.settle()
    assert port.closed == (CloseCode.SESSION_ENDED, "The session ended.")
    assert 1.03 <= seconds(port) < 1.08, "all of it can be heard, and the last packet is full"
    assert [page.is_last for page in pages(port)][-2:] == [False, True]


async def test_what_a_broadcaster_clears_is_dropped_and_the_programme_goes_on(bench: Bench) -> None:
    source = bench.claim(offer=Offer(pace=Pace.SPEECH))
    port = join(bench)
    bench.publish(source, 50)
    await bench.settle()
    bench.hub.broadcasting.clear(source)
    await play(bench, source, 1)
    numbers = [page.number for page in pages(port)]
    assert numbers == sorted(numbers)
    assert ADDRESS in [channel.address for channel in bench.hub.directory]
    assert bench.hub.directory.open(ADDRESS).tally.unmade_frames == 0
    assert port.closed is None


async def test_a_programme_that_is_too_slow_loses_what_waits_and_goes_on(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench)
    await bench.settle()
    for _ in range(round(MAX_BEHIND_SECONDS / 0.02) + 50):
        bench.now += 0.02
        bench.publish(source)
    await bench.settle()
    unmade = bench.hub.directory.open(ADDRESS).tally.unmade_frames
    assert unmade == round(MAX_BEHIND_SECONDS / 0.02)
    assert seconds(port) == pytest.approx(1, abs=0.12)


async def test_a_programme_ends_some_time_after_its_last_listener_and_begins_anew(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench)
    await play(bench, source, 1)
    bench.leave(port)
    channel = bench.hub.directory.open(ADDRESS)
    assert Container.OGG in channel.streams
    await rest(bench, 11)
    assert Container.OGG not in channel.streams
    again = join(bench, "again")
    await play(bench, source, 1)
    assert pages(again)[0].number == 2


async def test_chunks_are_whole_and_a_relay_without_programmes_says_so(bench: Bench) -> None:
    port = join(bench, framing=HttpFraming(Container.WAV))
    source = bench.claim()
    await play(bench, source, 0.5)
    data = b"".join(port.writes)
    while data:
        size, _, data = data.partition(b"\r\n")
        data, end, rest_of_it = data[int(size, 16) :][:0], data[int(size, 16) :][:2], data[int(size, 16) + 2 :]
        assert end == b"\r\n"
        data = rest_of_it
    other = Bench()
    with pytest.raises(NotServedError, match=r"stream\.enabled"):
        join(other)
    await other.tasks.close()
