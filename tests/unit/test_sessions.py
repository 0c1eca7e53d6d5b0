"""Channels of a session in real life: takeovers, returns, switches, bursts and clears."""

from collections.abc import AsyncIterator, Sequence

import pytest

from relay.audio.ingest import Timed
from relay.hub.channel import MAX_KNOWN_CONNECTIONS
from relay.hub.framing import RAW
from relay.protocol.requests import Delivery, Offer, Resume
from relay.vocabulary.audio import AudioFormat, Pace
from relay.vocabulary.errors import BadRequestError, ChannelBusyError, CloseCode, PolicyError
from relay.vocabulary.labels import Declaration
from tests.support.hub_bench import (
    FRAME,
    FRAME_SECONDS,
    MONO,
    Bench,
    FakeSourcePort,
    block,
    check_account,
    unblock,
)

STEREO = AudioFormat(rate=48_000, channels=2)
SPEECH = Offer(pace=Pace.SPEECH)
DECLARED = (Declaration.read("*/main - Original"), Declaration.read("ev1/de de Deutsch"))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(bound_seconds=10.0, declared=DECLARED)
    yield bench
    bench.hub.broadcasting.close()
    await bench.tasks.close()


def port_of(bench: Bench, source: object) -> FakeSourcePort:
    return bench.source_ports[source]


async def test_a_listener_switches_and_hears_nothing_of_the_old_channel(bench: Bench) -> None:
    main, german = bench.claim(), bench.claim(STEREO, channel="de")
    port = bench.join(delivery=Delivery(buffer_ms=500))
    bench.publish(main, 3)
    await bench.settle()
    block(port)
    bench.publish(main, 3)
    bench.switch(port, "de")
    unblock(port)
    bench.publish(main, 3)
    bench.publish(german, 2, bytes(192))
    await bench.settle()
    hello = port.of_type("hello")[1]
    assert (hello["channel"], hello["format"]["rate"], hello["buffer_ms"]) == ("de", 48_000, 500)
    assert hello["connection_id"] == port.hello["connection_id"]
    behind = port.written[port.written.index(hello) :]
    assert [item for item in behind if isinstance(item, dict)] == [hello], "no gap is told of the old channel"
    assert [header.epoch for header in port.frames[3:]] == [hello["epoch"]] * 2


async def test_a_switch_to_nowhere_changes_nothing(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    with pytest.raises(BadRequestError, match=r"The channel id 'xx\\n' must have"):
        bench.switch(port, "xx\n")
    with pytest.raises(BadRequestError, match="This session has no channel 'xx'"):
        bench.switch(port, "xx")
    bench.publish(source)
    await bench.settle()
    check_account(port, 1)


async def test_a_stalled_listener_does_not_gain_time_by_switching(bench: Bench) -> None:
    bench.claim(channel="de")
    port = bench.join()
    block(port)
    for _ in range(4):
        bench.now += 5
        bench.switch(port, "de")
        bench.hub.keep_house()
    assert port.aborted


async def test_a_second_broadcaster_is_refused_unless_it_takes_over(bench: Bench) -> None:
    port, first = bench.join(), bench.claim()
    bench.publish(first, 2)
    with pytest.raises(ChannelBusyError, match="replace it with takeover=1"):
        bench.claim()
    second = bench.claim(offer=Offer(takeover=True))
    third = bench.claim(offer=Offer(takeover=True))
    assert [port_of(bench, source).closed for source in (first, second, third)] == [
        (CloseCode.TAKEN_OVER, "Another broadcaster took over."),
        (CloseCode.TAKEN_OVER, "Another broadcaster took over."),
        None,
    ]
    bench.publish(first)
    bench.publish(second)
    bench.publish(third, 2)
    bench.release(first)
    await bench.settle()
    assert [header.seq for header in port.frames] == [0, 1, 2, 3], "epoch and numbers go on"
    assert [message["state"] for message in port.of_type("state")] == ["live"], "listeners notice nothing"


async def test_a_broadcaster_that_returns_within_the_grace_continues(bench: Bench) -> None:
    port, source = bench.join(), bench.claim()
    bench.publish(source, 2)
    await bench.settle()
    bench.release(source)
    bench.now += 29
    bench.hub.keep_house()
    bench.publish(bench.claim(), 2)
    await bench.settle()
    assert [header.seq for header in port.frames] == [0, 1, 2, 3]
    assert [message["state"] for message in port.of_type("state")] == ["live", "source_lost", "live"]


async def test_one_who_returns_gets_exactly_what_it_missed(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    bench.publish(source, 5)
    await bench.settle()
    bench.leave(port)
    for _ in range(150):
        bench.now += FRAME_SECONDS
        bench.publish(source)
    again = bench.join("again", delivery=Delivery(resume=Resume(port.hello["epoch"], 4)))
    bench.publish(source)
    await bench.settle()
    assert again.hello["resumed"]
    assert again.hello["next_seq"] == 5
    assert [header.seq for header in again.frames] == list(range(5, 156))
    assert again.of_type("gap") == []


async def test_what_one_missed_beyond_its_bound_is_one_gap(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    bench.publish(source, 5)
    await bench.settle()
    bench.leave(port)
    for _ in range(100):
        bench.publish(source)
        bench.now += FRAME_SECONDS
    resume = Resume(port.hello["epoch"], 4)
    again = bench.join("again", delivery=Delivery(buffer_ms=1000, resume=resume))
    await bench.settle()
    (gap,) = again.of_type("gap")
    assert (gap["from_seq"], gap["reason"]) == (5, "resume")
    assert gap["duration_ms"] == (gap["to_seq"] - 4) * 20
    assert 48 <= len(again.frames) <= 51
    check_account(again, 105)


async def test_one_who_comes_back_after_a_format_change_is_led_through_it(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    bench.publish(source, 5)
    await bench.settle()
    bench.leave(port)
    bench.publish(source, 2)
    bench.release(source)
    source = bench.claim(STEREO)
    bench.publish(source, 3, bytes(192))
    again = bench.join("again", delivery=Delivery(resume=Resume(port.hello["epoch"], 4)))
    await bench.settle()
    assert again.hello["format"]["rate"] == 16_000
    assert [(header.epoch - port.hello["epoch"], header.seq) for header in again.frames] == [
        (0, 5),
        (0, 6),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert again.kinds == ["hello", "format"]


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_format_change_takes_nothing_from_one_who_is_behind(bench: Bench, is_away: bool) -> None:
    port, source = bench.join(), bench.claim(STEREO)
    bench.publish(source, 1, bytes(192_000))
    await bench.settle()
    if is_away:
        bench.leave(port)
    else:
        block(port)
    for _ in range(250):
        bench.publish(source, 1, bytes(3840))
        bench.now += FRAME_SECONDS
    source = bench.claim(offer=Offer(AudioFormat(rate=8000), takeover=True))
    bench.publish(source, 10, bytes(320))
    if is_away:
        port = bench.join("again", delivery=Delivery(resume=Resume(port.hello["epoch"], 3)))
    else:
        unblock(port)
    await bench.settle()
    assert [header.seq for header in port.frames][-260:] == [*range(4, 254), *range(10)]
    assert port.of_type("gap") == []


async def test_what_one_who_comes_back_has_no_room_for_is_counted(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    bench.leave(port)
    bench.publish(source, 100)
    resume = Resume(port.hello["epoch"], 2**32 - 1)
    again = bench.join("again", delivery=Delivery(1000, resume=resume))
    await bench.settle()
    assert source.channel.tally.dropped_frames == 38
    assert len(again.frames) == 62
    check_account(again, 100)


@pytest.mark.parametrize("after", [5, 1000, 2**32 - 2])
async def test_a_number_that_is_not_known_is_a_fresh_join(bench: Bench, after: int) -> None:
    source, port = bench.claim(), bench.join()
    bench.publish(source, 5)
    again = bench.join("again", delivery=Delivery(resume=Resume(port.hello["epoch"], after)))
    foreign = bench.join("foreign", delivery=Delivery(resume=Resume(port.hello["epoch"] ^ 1, 3)))
    for fresh in (again, foreign):
        assert (fresh.hello["resumed"], fresh.hello["next_seq"]) == (False, 5)


@pytest.mark.parametrize(("buffer_ms", "coalesce_ms", "granted_ms"), [(200, 200, 100), (None, 300, 200), (50, 60, 60)])
async def test_frames_wait_for_each_other_half_of_the_bound_at_the_most(
    bench: Bench, buffer_ms: int | None, coalesce_ms: int, granted_ms: int
) -> None:
    assert bench.join(delivery=Delivery(buffer_ms, coalesce_ms)).hello["coalesce_ms"] == granted_ms


async def test_a_burst_begins_with_the_past_and_then_goes_on_live(bench: Bench) -> None:
    source = bench.claim()
    for _ in range(100):
        bench.publish(source)
        bench.now += FRAME_SECONDS
    port = bench.join(delivery=Delivery(burst_ms=500))
    bench.publish(source)
    await bench.settle()
    assert port.hello["next_seq"] in (75, 76)
    assert [header.seq for header in port.frames] == list(range(port.hello["next_seq"], 101))
    bench.leave(port)
    plain = bench.join("plain")
    assert plain.hello["next_seq"] == 101


async def test_of_each_connection_is_known_how_much_was_taken_whatever_became_of_it(bench: Bench) -> None:
    first = bench.claim(offer=SPEECH)
    accepted = first.channel.accepted
    bench.publish(first, 250)
    bench.hub.broadcasting.clear(first)
    bench.publish(first, 2, bytes(40_000))
    with pytest.raises(PolicyError):
        bench.publish(first, 1, b"odd")
    taken = 250 * len(FRAME) // 2 + 40_000
    assert accepted == {first.connection_id: taken}
    stranger = bench.claim(offer=Offer(STEREO, takeover=True))
    bench.publish(first, 5)
    bench.publish(stranger, 3, bytes(192))
    bench.publish(bench.claim(offer=Offer(pace=Pace.SPEECH, takeover=True)), 1)
    assert list(accepted.values()) == [taken, 3 * 48, len(FRAME) // 2]


async def test_a_broadcaster_is_told_how_much_was_taken_so_far(bench: Bench) -> None:
    bench.release(bench.claim())
    source = bench.claim()
    bench.publish(source, 3)
    bench.hub.keep_house()
    assert port_of(bench, source).of_type("stats")[-1]["accepted"] == 3 * len(FRAME) // 2


async def test_of_connections_long_gone_nothing_is_known(bench: Bench) -> None:
    sources = [bench.claim(offer=Offer(takeover=True)) for _ in range(MAX_KNOWN_CONNECTIONS + 5)]
    assert list(sources[0].channel.accepted) == [source.connection_id for source in sources[5:]]


async def test_clear_throws_away_what_was_not_written_and_tells_so(bench: Bench) -> None:
    source = bench.claim(offer=SPEECH)
    healthy, slow, raw = bench.join("healthy"), bench.join("slow"), bench.join("raw", RAW)
    block(slow)
    bench.publish(source, 500)
    await bench.settle()
    bench.hub.broadcasting.clear(source)
    bench.publish(source, 5)
    unblock(slow)
    await bench.settle()
    assert [header.seq for header in healthy.frames] == list(range(106))
    assert healthy.kinds[-1] == "clear"
    assert [message["type"] for message in slow.told if message["type"] in ("gap", "clear")] == ["gap", "clear"]
    (gap,) = slow.of_type("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["reason"]) == (0, 100, "clear")
    assert [header.seq for header in slow.frames] == list(range(101, 106))
    assert raw.told == []
    for port in (healthy, slow):
        check_account(port, 106)


async def test_one_who_was_away_at_the_end_gets_the_rest_and_the_end(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    bench.publish(source, 5)
    await bench.settle()
    bench.leave(port)
    bench.publish(source, 2)
    bench.hub.broadcasting.end(source)
    resume = Delivery(resume=Resume(port.hello["epoch"], 4))
    late = bench.join("late", delivery=resume)
    await bench.settle()
    assert (late.hello["resumed"], late.hello["state"]) == (True, "ended")
    assert [header.seq for header in late.frames] == [5, 6]
    assert late.closed == (CloseCode.SESSION_ENDED, "The session ended.")
    anew = bench.join("anew")
    assert anew.hello["state"] == "waiting"
    bench.now += 11
    bench.hub.keep_house()
    assert bench.join("too late", delivery=resume).hello["resumed"] is False


async def test_what_was_cleared_is_not_replayed(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    bench.publish(source, 5)
    bench.hub.broadcasting.clear(source)
    again = bench.join("again", delivery=Delivery(resume=Resume(port.hello["epoch"], 1)))
    bench.publish(source)
    await bench.settle()
    (gap,) = again.of_type("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["reason"]) == (2, 4, "resume")
    assert [header.seq for header in again.frames] == [5]


async def test_a_broadcaster_is_told_who_listens(bench: Bench) -> None:
    source = bench.claim()
    bench.hub.keep_house()
    bench.join()
    bench.hub.keep_house()
    bench.hub.keep_house()
    told = port_of(bench, source).of_type("stats")
    assert [message["listeners"] for message in told] == [0, 1], "only what changed"
    bench.now += 5
    bench.hub.keep_house()
    assert len(port_of(bench, source).of_type("stats")) == 3


async def test_listeners_that_keep_up_share_one_backlog(bench: Bench) -> None:
    """A listener that keeps up has no queue. One that falls behind gets a queue with everything that it is owed."""
    ports, source = [bench.join(name) for name in "abc"], bench.claim()
    bench.publish(source)
    await bench.settle()
    bench.publish(source, 2)
    assert set(bench.manager.buffer_sizes.values()) == {0}
    block(ports[1])
    assert bench.manager.buffer_sizes["b"] == 2 * len(FRAME)
    await bench.settle()
    unblock(ports[1])
    await bench.settle()
    assert bench.manager.buffer_sizes["b"] == 0
    for port in ports:
        check_account(port, 3)
        bench.leave(port)


async def test_counters_are_exact_whichever_way_audio_went(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    port, source = bench.join(), bench.claim()
    bench.publish(source, 3)
    await bench.settle()
    block(port)
    bench.publish(source, 2)
    unblock(port)
    await bench.settle()
    bench.publish(source, 5)
    await bench.settle()
    bench.leave(port)
    (left,) = [record for record in caplog.records if record.message == "listener left"]
    assert left.__dict__["delivered_seconds"] == 0.2
    assert source.channel.tally.delivered_frames == 10


def test_the_format_of_a_frame_of_this_test() -> None:
    assert MONO.bytes_per_second * FRAME_SECONDS == len(FRAME)


async def test_a_claim_gives_what_its_greeting_says(bench: Bench) -> None:
    first = bench.claim()
    bench.publish(first, 3)
    second = bench.claim(offer=Offer(STEREO, takeover=True, resume=first.connection_id))
    assert (first.start.seq, first.accepted_before) == (0, None)
    assert (second.start, second.accepted_before) == (second.channel.place, 3 * 320)
    assert (second.start.epoch, second.start.seq) == (first.start.epoch + 1 & 0xFFFF, 0)
    bench.publish(second, 1, bytes(192))
    third = bench.claim(offer=Offer(STEREO, takeover=True, resume="nobody"))
    assert (third.start.seq, third.accepted_before) == (1, None)


class CountingLog:
    """Counts the audio that a cluster would keep until its release."""

    def __init__(self) -> None:
        self.kept = 0

    def keep(self, pieces: Sequence[Timed]) -> None:
        self.kept += len(pieces)

    def discard(self) -> None:
        self.kept = 0

    def note_departure(self) -> None:
        raise AssertionError("nobody left")


async def test_an_empty_message_is_no_audio_of_a_microphone(bench: Bench) -> None:
    source, port = bench.claim(), bench.join()
    for _ in range(100):
        bench.now += FRAME_SECONDS
        bench.publish(source)
        await bench.settle()
    bench.now += 1.0
    for _ in range(100):
        bench.now += 0.2
        bench.publish(source, audio=b"")
    assert len(port.frames) == 100
    assert source.arrival_rate is None


async def test_an_empty_message_is_no_audio_of_speech_that_is_kept(bench: Bench) -> None:
    source = bench.claim(offer=SPEECH)
    source.channel.held_log = log = CountingLog()
    bench.publish(source, 200)
    bench.now += 1.0
    bench.publish(source, audio=b"")
    assert log.kept == 200
