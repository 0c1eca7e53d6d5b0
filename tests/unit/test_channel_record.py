"""A channel as plain values: another relay can continue it, and reconnecting listeners learn of every loss."""

import asyncio
import json

import pytest

from relay.hub.channel import Channel
from relay.hub.channel_record import ChannelRecord
from relay.protocol.requests import Delivery, Offer, Resume
from relay.vocabulary.audio import AudioFormat, Frame, Pace
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import RelayError
from relay.vocabulary.labels import Label
from tests.support.hub_bench import Bench

STEREO = AudioFormat(rate=48_000, channels=2)


def move(live: Channel, target: Bench, source: Bench) -> Channel:
    [record] = source.hub.export()
    target.now = source.now
    return target.hub.broadcasting.restore(ChannelRecord.from_json(record.to_json()), live.waiting)


async def test_a_record_is_plain_json_and_reads_as_it_was() -> None:
    bench = Bench()
    source = bench.claim(offer=Offer(label=Label("Deutsch", "de"), session_name="Town hall"))
    bench.publish(source, 3)
    bench.publish(bench.claim(offer=Offer(STEREO, takeover=True, session_name="Town hall")))
    [record] = bench.hub.export()
    read = ChannelRecord.from_json(record.to_json())
    assert read == record
    plain = json.loads(record.to_json())
    assert (plain["session"], plain["channel"], plain["name"], plain["session_name"]) == (
        "ev1",
        "main",
        None,
        "Town hall",
    )
    assert (plain["timeline"]["state"], plain["timeline"]["place"][2]) == ("live", 1)
    assert [epoch[1] for epoch in plain["timeline"]["numbers"]["epochs"]] == [16_000, 48_000]
    assert plain["ingest"]["pace"] == "live"
    bench.hub.broadcasting.close()
    await bench.tasks.close()


async def test_speech_goes_on_at_another_relay_where_it_was() -> None:
    old, new = Bench(), Bench()
    port = old.join()
    source = old.claim(offer=Offer(pace=Pace.SPEECH, label=Label("Deutsch", "de"), session_name="Town hall"))
    sent = [bytes([number, 0]) * 320 for number in range(250)]
    for audio in sent:
        old.publish(source, audio=audio)
    await old.settle()
    heard = len(port.frames)
    assert 0 < heard < 250

    live = move(source.channel, new, old)
    assert (live.entry.name, live.entry.lang) == ("Deutsch", "de")
    assert new.hub.directory.session_name("ev1") == "Town hall"
    tap = live.open_tap("recorder")
    resumed = new.join(delivery=Delivery(resume=Resume(port.hello["epoch"], heard - 1)))
    assert (resumed.hello["resumed"], resumed.hello["next_seq"]) == (True, heard)
    new.now += 0.02
    async with asyncio.timeout(30.0):
        frames = [await anext(tap)]
    for _ in range(250):
        new.now += 0.02
        new.hub.broadcasting.release_due(live)
        await new.settle()
    assert [header.seq for header in resumed.frames] == list(range(heard, 250)), (
        "what waited is released when it is due"
    )
    frames += [await anext(tap) for _ in range(249 - heard)]
    assert [frame.audio for frame in frames if isinstance(frame, Frame)] == sent[heard:]
    assert [message["state"] for message in resumed.of_type("state")] == ["source_lost"]
    assert live.accepted[source.connection_id] == 250 * 320, "its source is told so when it returns"
    again = new.claim(offer=Offer(pace=Pace.SPEECH))
    new.publish(again)
    await new.settle()
    assert resumed.frames[-1].seq == 250
    for bench in (old, new):
        bench.hub.broadcasting.close()
        await bench.tasks.close()


async def test_a_farewell_is_told_there_after_the_last_of_the_audio() -> None:
    old, new = Bench(), Bench()
    source = old.claim(offer=Offer(pace=Pace.SPEECH))
    old.publish(source, 250)
    old.hub.broadcasting.pause(source)
    live = move(source.channel, new, old)
    assert live.state is ChannelState.LIVE, "to its listeners it speaks on"
    new.now += 10.0
    new.hub.broadcasting.release_due(live)
    assert (live.state, live.timeline.silence, live.place.seq) == (ChannelState.WAITING, Silence.PAUSED, 250)
    for bench in (old, new):
        bench.hub.broadcasting.close()
        await bench.tasks.close()


async def test_who_was_behind_is_told_exactly_what_the_other_relay_does_not_have() -> None:
    old, new = Bench(), Bench()
    port = old.join()
    source = old.claim()
    old.publish(source, 10)
    source = old.claim(offer=Offer(STEREO, takeover=True))
    old.publish(source, 5, bytes(4 * 960))
    move(source.channel, new, old)
    late = new.join(delivery=Delivery(resume=Resume(port.hello["epoch"], 3)))
    new.publish(new.claim(STEREO), 1, bytes(4 * 960))
    await new.settle()
    gaps = [(gap["from_seq"], gap["to_seq"], gap["duration_ms"], gap["reason"]) for gap in late.of_type("gap")]
    assert gaps == [(4, 9, 120, "resume"), (0, 4, 100, "resume")]
    assert [header.seq for header in late.frames] == [5]
    for bench in (old, new):
        await bench.tasks.close()


@pytest.mark.parametrize("state", [ChannelState.WAITING, ChannelState.SOURCE_LOST])
async def test_a_channel_without_a_source_waits_on(state: ChannelState) -> None:
    old, new = Bench(), Bench()
    source = old.claim()
    (old.hub.broadcasting.pause if state is ChannelState.WAITING else old.hub.broadcasting.release)(source)
    live = move(source.channel, new, old)
    assert (live.state, live.timeline.silence) == (state, source.channel.timeline.silence)
    assert live.had_broadcaster
    new.hub.keep_house()
    assert live.state is state, "its grace is not over"
    new.now += 1000.0
    new.hub.keep_house()
    assert live.state is ChannelState.WAITING, "the grace goes on"
    for bench in (old, new):
        await bench.tasks.close()


async def test_a_channel_in_use_is_not_replaced() -> None:
    bench = Bench()
    bench.claim()
    [record] = bench.hub.export()
    with pytest.raises(RelayError, match="ev1/main cannot be restored"):
        bench.hub.broadcasting.restore(record)
    await bench.tasks.close()
