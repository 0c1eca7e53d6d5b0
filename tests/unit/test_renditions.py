"""Listeners of one channel can use different codecs. Each stream has numbers, a bound and an exact account."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from relay.hub import rendition
from relay.hub.feed import MAX_BEHIND_SECONDS
from relay.hub.listener import MAX_NOTES
from relay.hub.listening import PRE_ROLL_SECONDS
from relay.hub.rendition import NoRenditions, OpusRenditions
from relay.media.libopus import OpusDecoder, OpusEncoder
from relay.media.transcoding import OpusEncoding
from relay.protocol.requests import Delivery, Offer, Resume
from relay.protocol.wire import HEADER_BYTES, Header
from relay.vocabulary.audio import EPOCH_STRIDE, AudioFormat, Codec, Pace, Place
from relay.vocabulary.errors import BadRequestError, CloseCode, UserError
from tests.support.hub_bench import Bench, FakePort, check_account, split
from tests.support.toy_codec import DELAY_TICKS, FRAME_TICKS, POISON

PCM, OPUS = (Codec.PCM_S16LE,), (Codec.OPUS,)
OPUS_SOURCE = AudioFormat(Codec.OPUS, 24_000)
PACKET = b"\xf8" + bytes(30)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(bound_seconds=10.0)
    yield made
    made.hub.broadcasting.close()
    await made.tasks.close()


def pcm(first: int, samples: int = 320) -> bytes:
    """Return samples whose values count up from `first`."""
    return b"".join((first + number & 0x7FFF).to_bytes(2, "little") for number in range(samples))


def join(bench: Bench, name: str, codecs: tuple[Codec, ...] = OPUS, **says: object) -> FakePort:
    return bench.join(name, delivery=Delivery(codecs=codecs, **says))  # type: ignore[arg-type]


def audio(port: FakePort) -> list[bytes]:
    return [payload[HEADER_BYTES:] for write in port.writes for payload in split(write)]


async def test_one_channel_in_two_codecs_is_numbered_by_its_source(bench: Bench) -> None:
    source = bench.claim()
    plain, opus = join(bench, "plain", PCM), join(bench, "opus")
    for number in range(10):
        bench.publish(source, audio=pcm(480 * number, 480))
        bench.now += 0.03
    await bench.settle()
    assert plain.hello["format"] == {"codec": "pcm_s16le", "rate": 16_000, "channels": 1, "clock_rate": 16_000}
    assert opus.hello["format"] == {"codec": "opus", "rate": 48_000, "channels": 1, "clock_rate": 48_000}
    assert opus.hello["epoch"] == plain.hello["epoch"]
    assert len(plain.frames) == 10
    assert [frame.seq for frame in opus.frames] == list(range(15))
    assert [frame.media_time for frame in opus.frames] == [
        (FRAME_TICKS * seq - DELAY_TICKS) % 2**32 for seq in range(15)
    ]
    assert [frame.due_ms for frame in opus.frames][:4] == [999_993, 1_000_013, 1_000_033, 1_000_053]
    assert audio(opus) == [b"\xf8" + pcm(320 * seq, 20) for seq in range(15)]


async def test_the_end_of_the_audio_is_padded_and_what_follows_in_the_same_frame_is_cut(bench: Bench) -> None:
    source = bench.claim()
    opus = join(bench, "opus")
    bench.publish(source, audio=pcm(0, 480))
    await bench.settle()
    assert len(opus.frames) == 1
    bench.hub.broadcasting.pause(source)
    await bench.settle()
    assert len(opus.frames) == 2
    assert opus.kinds == ["hello", "state"]
    bench.publish(bench.claim(), audio=pcm(480, 640))
    await bench.settle()
    assert audio(opus) == [b"\xf8" + pcm(first, 20) for first in (0, 320, 640)]
    assert [frame.seq for frame in opus.frames] == [0, 1, 2]


async def test_a_broadcaster_that_leaves_without_a_word_leaves_no_gap(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.publish(bench.claim(), audio=pcm(0, 600))
    source = bench.claim(offer=Offer(takeover=True))
    bench.hub.broadcasting.clear(source)
    port = join(bench, "opus")
    for audio_samples in (0, 160, 0):
        if audio_samples:
            bench.publish(source, audio=pcm(600, audio_samples))
        bench.hub.broadcasting.pause(source)
        await bench.settle()
        source = bench.claim()
    await bench.settle()
    assert not port.of_type("gap")
    assert not [record for record in caplog.records if record.name == "relay.hub.feed"]


async def test_notes_keep_their_place_between_the_frames(bench: Bench) -> None:
    port = join(bench, "opus")
    assert port.hello["format"] is None
    source = bench.claim()
    bench.publish(source, 2)
    bench.hub.broadcasting.mute(source, on=True)
    bench.publish(source, 2, pcm(0, 480))
    again = bench.claim(offer=Offer(AudioFormat(rate=48_000), takeover=True))
    bench.publish(again, 2, bytes(1920))
    await bench.settle()
    bench.hub.broadcasting.clear(again)
    bench.publish(again, 1, bytes(1920))
    bench.hub.broadcasting.end(again)
    await bench.settle()
    story = [
        f"{item['type']} {item.get('silence') or ''}".strip() if isinstance(item, dict) else len(split(item))
        for item in port.written
    ]
    expected = ["hello", "format", "state", 2, "state muted", 4, "format", "state", 2, "clear", 2, "state"]
    assert story == expected
    assert port.closed == (CloseCode.SESSION_ENDED, "The session ended.")
    numbers = [(frame.epoch - port.hello["epoch"], frame.seq) for frame in port.frames]
    assert numbers == [*((0, seq) for seq in range(6)), *((1, seq) for seq in range(4))]


async def test_opus_of_a_source_passes_untouched_and_is_decoded_for_others(bench: Bench) -> None:
    source = bench.claim(OPUS_SOURCE)
    plain, opus = join(bench, "plain", PCM), join(bench, "opus")
    sent = [b"\xf8" + bytes([number]) * 20 for number in range(20)]
    for packet in sent:
        bench.publish(source, audio=packet)
    await bench.settle()
    assert audio(opus) == sent
    assert plain.hello["format"] == {"codec": "pcm_s16le", "rate": 24_000, "channels": 1, "clock_rate": 24_000}
    assert audio(plain) == [bytes([number]) * 960 for number in range(20)]
    assert [(each.seq, each.media_time) for each in plain.frames] == [(seq, 480 * seq) for seq in range(20)]
    assert [each.due_ms for each in plain.frames] == [each.due_ms for each in opus.frames]


async def test_a_rendition_lives_while_somebody_wants_it(bench: Bench) -> None:
    source = bench.claim()
    streams = source.channel.streams
    bench.publish(source, 10)
    assert set(streams) == set(PCM)
    port = join(bench, "opus")
    assert port.hello["next_seq"] == 10
    bench.publish(source, 10)
    await bench.settle()
    assert [frame.seq for frame in port.frames] == list(range(10, 20))
    bench.leave(port)
    bench.hub.keep_house()
    bench.publish(source, 5)
    await bench.settle()
    back = join(bench, "again", resume=Resume(port.hello["epoch"], 19, Codec.OPUS))
    await bench.settle()
    assert back.hello["resumed"]
    assert [frame.seq for frame in back.frames] == list(range(20, 25))
    bench.leave(back)
    bench.hub.keep_house()
    bench.now += 9.0
    bench.hub.keep_house()
    assert set(streams) == {*PCM, *OPUS}
    bench.now += 2.0
    bench.hub.keep_house()
    assert set(streams) == set(PCM)


@pytest.mark.parametrize(("after", "expected"), [(5, 6), (499, 500), (511, 512)])
async def test_a_listener_resumes_on_a_rendition_that_nobody_has(bench: Bench, after: int, expected: int) -> None:
    """The rendition's numbers follow from the source, so its first listener continues where another process stopped."""
    source = bench.claim()
    for number in range(512):
        bench.publish(source, audio=pcm(320 * number))
        bench.now += 0.02
    port = join(bench, "opus", resume=Resume(source.channel.place.epoch, after, Codec.OPUS))
    await bench.settle()
    assert port.hello["resumed"]
    assert port.hello["next_seq"] == expected
    bench.publish(source, audio=pcm(320 * 512))
    await bench.settle()
    check_account(port, 513)
    assert [gap["reason"] for gap in port.of_type("gap")] == (["resume", "stale"] if after == 5 else [])
    assert audio(port)[-1] == b"\xf8" + pcm(320 * 512, 20)
    for frame, packet in zip(port.frames, audio(port), strict=True):
        assert packet == b"\xf8" + pcm(320 * frame.seq, 20)


async def test_numbers_of_another_codec_begin_afresh(bench: Bench) -> None:
    source = bench.claim()
    bench.publish(source, 10)
    port = join(bench, "opus", resume=Resume(source.channel.place.epoch, 5))
    assert (port.hello["resumed"], port.hello["next_seq"]) == (False, 10)
    unreleased = join(bench, "future", resume=Resume(source.channel.place.epoch, 10, Codec.OPUS))
    assert not unreleased.hello["resumed"]


async def test_a_burst_comes_before_a_rendition_that_nobody_has_and_that_others_have(bench: Bench) -> None:
    source = bench.claim()
    for number in range(100):
        bench.publish(source, audio=pcm(320 * number))
        bench.now += 0.02
    first = join(bench, "first", burst_ms=500)
    await bench.settle()
    second = join(bench, "second", burst_ms=300)
    await bench.settle()
    assert [frame.seq for frame in first.frames] == list(range(75, 100))
    assert [frame.seq for frame in second.frames] == list(range(86, 100)), "due by an encoder's look-ahead earlier"
    assert audio(first)[0] == b"\xf8" + pcm(320 * 75, 20)


async def test_a_listener_changes_its_codec_at_its_media_time(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench, "listener", PCM)
    position = 0
    for number in range(60):
        bench.publish(source, audio=pcm(position, 400))
        position += 400
        bench.now += 0.025
        if number % 10 == 9:
            await bench.settle()
            bench.switch(port, None, OPUS if number // 10 % 2 == 0 else PCM)
    await bench.settle()
    codec, reached, begun = "", 0.0, False
    for item in port.written:
        if isinstance(item, dict) and item["type"] == "hello":
            codec, begun = item["format"]["codec"], False
        assert not isinstance(item, dict) or item["type"] != "gap"
        if isinstance(item, bytes):
            for payload in split(item):
                header = Header.unpack(payload)
                rate = 48_000 if codec == "opus" else 16_000
                start = ((header.media_time + 2**31) % 2**32 - 2**31) / rate
                end = start + (0.02 if codec == "opus" else 0.025)
                if not begun:
                    needed = max(0.0, reached - PRE_ROLL_SECONDS) if codec == "opus" else reached
                    assert start <= needed < end or needed == start == 0.0, "it begins with the frame that it needs"
                else:
                    assert start == pytest.approx(reached)
                reached, begun = end, True
    assert len(port.of_type("hello")) == 7


async def test_a_listener_that_changes_its_mind_at_once_is_where_it_was(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench, "listener", PCM)
    bench.publish(source, 50)
    await bench.settle()
    for codecs in (OPUS, PCM, OPUS, PCM, OPUS):
        bench.switch(port, None, codecs)
    bench.publish(source, 5)
    await bench.settle()
    # What a decoder of Opus needs from before is sent once, however often it changes.
    assert [hello["next_seq"] for hello in port.of_type("hello")] == [0, 46, 46, 46, 46, 46]


async def test_a_codec_that_cannot_be_served_changes_nothing() -> None:
    bench = Bench(renditions=NoRenditions())
    source = bench.claim()
    port = join(bench, "listener", PCM)
    with pytest.raises(BadRequestError, match=r"as pcm_s16le, not as opus\."):
        bench.switch(port, None, OPUS)
    with pytest.raises(BadRequestError):
        join(bench, "opus")
    best = join(bench, "best", (*OPUS, *PCM))
    bench.publish(source)
    await bench.settle()
    assert len(port.frames) == len(best.frames) == 1
    bench.claim(OPUS_SOURCE, offer=Offer(OPUS_SOURCE, takeover=True))
    await bench.settle()
    assert port.closed is not None
    assert port.closed[0] is CloseCode.BAD_REQUEST
    assert join(bench, "new", (*PCM, *OPUS)).hello["format"]["codec"] == "opus"
    await bench.tasks.close()


async def test_the_source_changes_its_codec_and_streams_go_on(bench: Bench) -> None:
    source = bench.claim()
    plain, opus = join(bench, "plain", PCM), join(bench, "opus")
    for audio_format, sound in ((OPUS_SOURCE, PACKET), (AudioFormat(), pcm(0)), (OPUS_SOURCE, PACKET)):
        bench.publish(source, 3, PACKET if source.channel.audio_format == OPUS_SOURCE else pcm(0))
        source = bench.claim(offer=Offer(audio_format, takeover=True))
        bench.publish(source, 3, sound)
    await bench.settle()
    streams = source.channel.streams
    # When PCM stops, one more frame holds the encoder's lookahead.
    for port, stream, counts in ((plain, streams[PCM[0]], (3, 6, 6, 3)), (opus, streams[OPUS[0]], (4, 6, 7, 3))):
        assert [message["format"]["codec"] for message in port.of_type("format")] == [stream.codec] * 3
        numbers = [(frame.epoch - port.hello["epoch"], frame.seq) for frame in port.frames]
        assert numbers == [(epoch, seq) for epoch, count in enumerate(counts) for seq in range(count)]
    assert streams[OPUS[0]].feed is None, "what nobody has to make is handed on directly"
    assert streams[PCM[0]].feed is not None


async def test_audio_that_cannot_be_made_is_a_gap(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    source = bench.claim()
    port = join(bench, "opus")
    bench.publish(source, 5, pcm(0))
    bench.publish(source, 1, POISON + bytes(640 - len(POISON)))
    bench.publish(source, 5, pcm(0))
    await bench.settle()
    check_account(port, 11)
    [gap] = port.of_type("gap")
    assert (gap["from_seq"], gap["to_seq"], gap["duration_ms"], gap["reason"]) == (5, 5, 20, "missing")
    assert source.channel.tally.unmade_frames == 1
    assert "audio of a channel could not be transcoded" in caplog.messages
    bench.publish(source, 1, POISON + bytes(640 - len(POISON)))
    bench.hub.broadcasting.pause(source)
    await bench.settle()
    check_account(port, 13)


async def test_a_hole_before_the_first_frame_is_told_when_the_audio_stops(bench: Bench) -> None:
    source = bench.claim(offer=Offer(OPUS_SOURCE))
    plain, pcm_port = join(bench, "plain"), join(bench, "pcm", PCM)
    place, ticks = source.start, OPUS_SOURCE.measure(PACKET).ticks
    source.channel.skip(Place(place.position + 5, place.epoch, 5, 5 * ticks))
    bench.hub.broadcasting.end(source)
    await bench.settle()
    for port in (plain, pcm_port):
        (gap,) = port.of_type("gap")
        assert (gap["from_seq"], gap["to_seq"]) == (0, 4)
        assert port.closed is not None


async def test_a_stream_that_begins_behind_lost_audio_has_the_numbers_of_one_that_was_there(bench: Bench) -> None:
    source = bench.claim()
    join(bench, "opus")
    place = source.start
    source.channel.skip(Place(place.position + 1, place.epoch, 1, 320))
    bench.hub.broadcasting.disconnect(source)
    await bench.settle()
    expected = join(bench, "late").hello["next_seq"]
    source.channel.streams.stop()
    source.channel.streams.clear()
    back = join(bench, "back", resume=Resume(place.epoch, -1, Codec.OPUS))
    await bench.settle()
    (gap,) = back.of_type("gap")
    assert gap["to_seq"] + 1 == expected


async def test_a_feed_that_falls_too_far_behind_begins_anew(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench, "opus")
    await bench.settle()
    frames = round(MAX_BEHIND_SECONDS * 50) + 20
    for _ in range(frames):
        bench.publish(source)
        bench.now += 0.02
    bench.hub.broadcasting.mute(source, on=True)
    await bench.settle()
    check_account(port, frames)
    [gap] = port.of_type("gap")
    assert gap["reason"] == "missing"
    assert port.of_type("state")[-1]["silence"] == "muted"


async def test_a_feed_with_too_many_notes_gives_its_listeners_up(bench: Bench) -> None:
    source = bench.claim()
    port = join(bench, "opus")
    await bench.settle()
    for number in range(MAX_NOTES + 2):
        bench.hub.broadcasting.mute(source, on=number % 2 == 0)
    assert port.aborted
    bench.leave(port)
    again = join(bench, "again")
    bench.publish(source)
    await bench.settle()
    assert len(again.frames) == 1


async def test_speech_keeps_its_due_times(bench: Bench) -> None:
    source = bench.claim(offer=Offer(pace=Pace.SPEECH))
    port = join(bench, "opus")
    bench.publish(source, audio=pcm(0, 16_000))
    await bench.settle()
    assert [frame.due_ms - port.frames[0].due_ms for frame in port.frames] == [20 * seq for seq in range(50)]


async def test_a_forgotten_channel_stops_its_renditions(bench: Bench) -> None:
    source = bench.claim()
    bench.leave(join(bench, "opus"))
    bench.hub.broadcasting.end(source)
    await bench.settle()
    late = join(bench, "late", resume=Resume(source.start.epoch, 2**32 - 1, Codec.OPUS))
    await asyncio.sleep(0)
    await bench.settle()
    assert late.kinds == ["hello", "state"]
    assert late.closed == (CloseCode.SESSION_ENDED, "The session ended.")


def test_without_a_library_the_relay_passes_on_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UserError("Opus needs libopus.")

    monkeypatch.setattr(rendition, "make_transcoder", refuse)
    renditions = rendition.OpusRenditions(OpusEncoding())
    for source in (AudioFormat(), OPUS_SOURCE):
        found = {codec: renditions.find(source, codec) for codec in Codec}
        assert found.pop(source.codec) == rendition.as_it_is(source)
        assert list(found.values()) == [None]
    with pytest.raises(UserError, match="libopus"):
        renditions.make(AudioFormat(), Codec.OPUS)


def test_opus_that_is_not_offered_is_decoded_all_the_same() -> None:
    renditions = rendition.OpusRenditions(None)
    assert renditions.find(AudioFormat(), Codec.OPUS) is None
    decoded = renditions.find(OPUS_SOURCE, Codec.PCM_S16LE)
    assert decoded is not None
    assert decoded.audio_format == AudioFormat(rate=24_000)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_places_of_a_rendition_follow_from_those_of_its_source(rate: int) -> None:
    found = rendition.OpusRenditions(OpusEncoding(frame_ms=40)).find(AudioFormat(rate=rate), Codec.OPUS)
    assert found is not None
    first = Place(5 * EPOCH_STRIDE, 7, 0, 0)
    assert found.place(first) == found.end(first) == Place(5 * EPOCH_STRIDE, 7, 0, -DELAY_TICKS)
    later = Place(5 * EPOCH_STRIDE + 9, 7, 9, rate * 79 // 1000)
    assert found.place(later) == Place(5 * EPOCH_STRIDE + 2, 7, 2, 2 * 1920 - DELAY_TICKS)
    assert found.end(later).seq == 3, "what the encoder has not given out yet needs one more frame"


async def test_a_decoder_that_begins_in_the_middle_of_a_stream_is_warm() -> None:
    encoder = OpusEncoder(48_000, 1, 64_000, 5)
    tone = (8000 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(960 * 40))).astype("<i2").tobytes()
    packets = [encoder.encode(tone[1920 * number : 1920 * (number + 1)]) for number in range(40)]
    decoder = OpusDecoder(48_000, 1)
    heard_from_the_beginning = [decoder.decode(packet, 960) for packet in packets]
    bench = Bench(bound_seconds=10.0, renditions=OpusRenditions(OpusEncoding()))
    source = bench.claim(offer=Offer(AudioFormat(Codec.OPUS, 48_000)))
    for packet in packets[:30]:
        bench.publish(source, audio=packet)
        bench.now += 0.02
    port = join(bench, "late", PCM)
    for packet in packets[30:]:
        bench.publish(source, audio=packet)
        bench.now += 0.02
    await bench.settle()
    assert [frame.seq for frame in port.frames] == list(range(30, 40))
    for heard, meant in zip(audio(port), heard_from_the_beginning[30:], strict=True):
        difference = np.frombuffer(heard, "<i2").astype(float) - np.frombuffer(meant, "<i2")
        assert np.sqrt(np.mean(difference**2)) < 0.05 * 8000
    bench.hub.broadcasting.close()
    await bench.tasks.close()
