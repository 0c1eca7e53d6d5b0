"""Speech arrives early and is heard on time. It runs beside and after a microphone, whose audio may be late."""

from collections.abc import AsyncIterator

import pytest

from relay.hub.channel import ENDED
from relay.hub.tap import TAP_SECONDS, Tap
from relay.protocol.requests import Delivery, Offer, Resume
from relay.vocabulary.audio import AudioFormat, Codec, Pace
from relay.vocabulary.errors import CloseCode
from tests.support.hub_bench import FRAME_SECONDS, Bench, block, check_account, unblock

SPEECH = Offer(pace=Pace.SPEECH)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(bound_seconds=10.0)
    yield bench
    bench.hub.broadcasting.close()
    await bench.tasks.close()


async def pass_seconds(bench: Bench, seconds: float) -> None:
    """Let time pass, and run the work that is due."""
    for _ in range(round(seconds / 0.1)):
        bench.now += 0.1
        for live in bench.hub.directory:
            bench.hub.broadcasting.release_due(live)
        bench.hub.keep_house()
        await bench.settle()


async def test_what_another_pace_leaves_no_room_for_is_counted(bench: Bench) -> None:
    source = bench.claim(offer=SPEECH)
    port = bench.join(delivery=Delivery(buffer_ms=1000))
    block(port)
    bench.publish(source, 100)
    bench.claim(offer=Offer(takeover=True))
    unblock(port)
    await bench.settle()
    (gap,) = port.of_type("gap")
    assert (gap["to_seq"], gap["reason"]) == (37, "overflow")
    assert source.channel.tally.dropped_frames == 38
    check_account(port, 100)


async def test_a_burst_of_speech_costs_a_healthy_listener_nothing(bench: Bench) -> None:
    source, port = bench.claim(offer=SPEECH), bench.join()
    assert port.hello["pace"] == "speech"
    bench.publish(source, 750)
    await bench.settle()
    assert len(port.frames) == 101, "the lead of 2 s"
    await pass_seconds(bench, 15)
    assert [header.seq for header in port.frames] == list(range(750))
    assert port.of_type("gap") == []


async def test_a_listener_that_is_slow_in_speech_keeps_its_bound_and_the_lead(bench: Bench) -> None:
    source = bench.claim(offer=SPEECH)
    bench.hub.keep_house()
    port = bench.join(delivery=Delivery(buffer_ms=1000))
    block(port)
    bench.publish(source, 500)
    assert len(bench.manager.buffers["listener"]) == 101
    await pass_seconds(bench, 10)
    unblock(port)
    await bench.settle()
    (gap,) = port.of_type("gap")
    assert 440 <= gap["to_seq"] <= 460, "all that is older than a second, and nothing that is not"
    check_account(port, 500)


async def test_speech_in_another_format_begins_when_what_was_released_is_over(bench: Bench) -> None:
    port, source = bench.join(), bench.claim(offer=SPEECH)
    bench.publish(source, 150)
    other = bench.claim(offer=Offer(AudioFormat(rate=24_000), Pace.SPEECH, takeover=True))
    bench.publish(other, 1, bytes(960))
    await pass_seconds(bench, 1)
    due = [header.due_ms - port.hello["clock_ms"] for header in port.frames]
    assert due == pytest.approx([frame * 20 for frame in range(102)], abs=1)
    bench.hub.broadcasting.clear(other)
    bench.publish(other, 1, bytes(960))
    await bench.settle()
    assert port.frames[-1].due_ms - port.hello["clock_ms"] == pytest.approx(1000, abs=1), "a clear begins anew"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(("bound_ms", "live_frames", "pause_seconds"), [(1000, 30, 0.7), (10_000, 75, 9.5)])
async def test_the_past_has_no_hole_where_a_microphone_took_over_from_speech(
    bench: Bench, resume: bool, bound_ms: int, live_frames: int, pause_seconds: float
) -> None:
    bench.publish(bench.claim(offer=SPEECH), 100)
    microphone = bench.claim(offer=Offer(takeover=True))
    for _ in range(live_frames):
        bench.publish(microphone)
        bench.now += FRAME_SECONDS
    bench.now += pause_seconds
    epoch = microphone.channel.place.epoch
    past = Delivery(bound_ms, resume=Resume(epoch, 20)) if resume else Delivery(bound_ms, burst_ms=bound_ms)
    port = bench.join(delivery=past)
    await bench.settle()
    check_account(port, 100 + live_frames)
    numbers = [header.seq for header in port.frames]
    assert numbers == list(range(numbers[0], 100 + live_frames))


async def test_who_is_too_far_ahead_is_told_to_wait_and_to_go_on(bench: Bench) -> None:
    source = bench.claim(offer=SPEECH)
    port = bench.source_ports[source]
    for _ in range(20):
        bench.publish(source, 200)
    assert bench.hub.broadcasting.wait_seconds(source) > 0
    assert port.of_type("backpressure") == [{"type": "backpressure", "on": True}]
    await pass_seconds(bench, 52)
    assert bench.hub.broadcasting.wait_seconds(source) == 0
    assert port.of_type("backpressure")[1:] == [{"type": "backpressure", "on": False}]


async def test_a_source_that_goes_is_heard_to_its_end(bench: Bench) -> None:
    port, source = bench.join(), bench.claim(offer=SPEECH)
    bench.publish(source, 250)
    bench.hub.broadcasting.end(source)
    await bench.settle()
    assert port.closed is None
    await pass_seconds(bench, 5)
    assert len(port.frames) == 250
    assert port.closed == (CloseCode.SESSION_ENDED, "The session ended.")
    assert [message["state"] for message in port.of_type("state")] == ["live", "ended"]


async def test_a_source_that_returns_meanwhile_goes_on_behind_its_own_audio(bench: Bench) -> None:
    port, source = bench.join(), bench.claim(offer=SPEECH)
    bench.publish(source, 250)
    bench.release(source)
    bench.publish(bench.claim(offer=SPEECH), 10)
    await pass_seconds(bench, 10)
    assert len(port.frames) == 260
    assert [message["state"] for message in port.of_type("state")] == ["live"]


async def test_another_pace_is_told_with_the_state(bench: Bench) -> None:
    port, source = bench.join(), bench.claim()
    bench.release(source)
    bench.claim(offer=SPEECH)
    await bench.settle()
    told = [(message["state"], message["pace"]) for message in port.of_type("state")]
    assert told == [("live", "live"), ("source_lost", "live"), ("live", "speech")]


async def test_a_session_that_ends_early_loses_nothing(bench: Bench) -> None:
    """A stopping relay does not wait for 40 s of speech. Sockets, encoders and taps take it one after the other."""
    source = bench.claim(offer=SPEECH)
    healthy, slow = bench.join("healthy"), bench.join("slow")
    opus = bench.join("opus", delivery=Delivery(codecs=(Codec.OPUS,)))
    await bench.settle()
    read = 0
    block(slow)
    with source.channel.open_tap("recorder") as tap:
        bench.publish(source, 2000)
        bench.hub.broadcasting.end(source)
        while bench.hub.broadcasting.end_early():
            await bench.settle()
            read += await read_all(tap)
        await bench.settle()
        read += await read_all(tap)
    unblock(slow)
    await bench.settle()
    assert read > 2000 > TAP_SECONDS / FRAME_SECONDS
    for port in (healthy, slow, opus):
        numbers = [header.seq for header in port.frames]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) == 2000 + (port is opus), "an encoder is late by less than a frame"
        assert port.of_type("gap") == []
        assert port.closed == ENDED


async def read_all(tap: Tap) -> int:
    """Return how many frames and notes waited."""
    return len([await anext(tap) for _ in range(len(tap))])


async def test_a_session_that_ends_now_loses_its_end(bench: Bench) -> None:
    source = bench.claim(offer=SPEECH)
    port, opus = bench.join(), bench.join("opus", delivery=Delivery(codecs=(Codec.OPUS,)))
    await bench.settle()
    bench.publish(source, 2000)
    bench.hub.broadcasting.end(source)
    bench.hub.broadcasting.end_early()
    bench.hub.broadcasting.end_now()
    await bench.settle()
    released = source.channel.place.seq
    assert released == 101 + 251
    check_account(port, released)
    assert port.of_type("gap") == []
    assert opus.told[-2]["type"] == "gap"
    check_account(opus, released + 1)
    assert (port.closed, opus.closed) == (ENDED, ENDED)
