"""What a listener passes on, whatever happens to its connections."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.reception import Reception, ReceptionEvent, UnknownLoss
from relay.client.reconnect import Reconnected
from relay.protocol.messages import ChannelEntry, Channels, Clear, FormatChange, Gap, Hello, StateChange
from relay.protocol.wire import HEADER_BYTES, Audio, Header, pack_audio
from relay.vocabulary.audio import AudioFormat, Codec, Pace
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import PolicyError

MONO = AudioFormat()
STEREO = AudioFormat(rate=48_000, channels=2)
WRAP = 1 << 32
HELLO = Hello("c1", ChannelState.LIVE, MONO, 7, 0)


def frame(seq: int, epoch: int = 7, ticks: int = 320) -> Audio:
    return Audio(Header(epoch, seq % WRAP, seq * ticks % WRAP, 0), seq.to_bytes(8, "big", signed=True) * (ticks // 4))


def hello(next_seq: int, *, epoch: int = 7, resumed: bool = True) -> Hello:
    return replace(HELLO, epoch=epoch, next_seq=next_seq % WRAP, resumed=resumed)


def take_all(reception: Reception, *events: Audio | Gap) -> list[ReceptionEvent]:
    return [passed for event in events for passed in reception.take(event)]


def test_frames_in_order_are_passed_on() -> None:
    reception = Reception(HELLO)
    frames = [frame(seq) for seq in range(5)]
    assert take_all(reception, *frames) == frames
    assert reception.resume_point == (7, 4)
    assert reception.stats.received.chunks == 5
    assert reception.stats.received.seconds == pytest.approx(0.1)


def test_before_the_first_frame_it_resumes_behind_the_one_before_it() -> None:
    assert Reception(hello(0)).resume_point == (7, WRAP - 1)
    assert Reception(hello(41)).resume_point == (7, 40)


def test_a_frame_that_comes_again_is_not_passed_on_again() -> None:
    reception = Reception(HELLO)
    take_all(reception, frame(0), frame(1))
    assert reception.resume(hello(0)) == [Reconnected(resumed=True)]
    assert take_all(reception, frame(0), frame(1), frame(2)) == [frame(2)]
    assert reception.stats.duplicate_frames == 2


def test_a_hole_that_nobody_told_is_told_with_its_duration() -> None:
    reception = Reception(HELLO)
    take_all(reception, frame(0))
    assert reception.take(frame(5)) == [Gap(7, 1, 4, 80.0, "untold"), frame(5)]
    assert (reception.stats.gaps, reception.stats.lost_frames, reception.stats.lost_ms) == (1, 4, 80.0)


def test_a_hole_whose_length_nobody_knows_is_an_unknown_loss() -> None:
    reception = Reception(hello(10))
    assert reception.take(frame(12)) == [UnknownLoss("untold"), frame(12)]
    assert reception.take(frame(0, epoch=8)) == [UnknownLoss("untold"), frame(0, epoch=8)]
    assert reception.take(Gap(8, 3, 4, 40.0, "overflow")) == [UnknownLoss("untold"), Gap(8, 3, 4, 40.0, "overflow")]
    assert reception.stats.unknown_losses == 3


def test_a_gap_moves_the_place_and_one_that_is_over_does_not() -> None:
    reception = Reception(HELLO)
    gap = Gap(7, 0, 9, 200.0, "overflow")
    assert take_all(reception, gap, frame(10)) == [gap, frame(10)]
    assert reception.take(gap) == []
    assert reception.take(frame(11)) == [frame(11)]


def test_numbers_wrap() -> None:
    reception = Reception(hello(WRAP - 2))
    frames = [frame(seq) for seq in (WRAP - 2, WRAP - 1, WRAP, WRAP + 1)]
    assert take_all(reception, *frames) == frames
    assert reception.take(frames[1]) == []
    assert reception.take(frame(WRAP + 3)) == [Gap(7, 2, 2, 20.0, "untold"), frame(WRAP + 3)]


def test_a_restart_is_an_unknown_loss() -> None:
    reception = Reception(HELLO)
    reception.take(frame(0))
    told = reception.resume(hello(3, epoch=90, resumed=False))
    assert told == [Reconnected(resumed=False), UnknownLoss("restart")]
    assert reception.take(frame(3, epoch=90)) == [frame(3, epoch=90)]
    assert reception.resume_point == (90, 3)


def test_a_fresh_join_at_the_very_same_place_lost_nothing() -> None:
    reception = Reception(HELLO)
    reception.take(frame(0))
    assert reception.resume(hello(1, resumed=False)) == [Reconnected(resumed=False)]
    assert reception.stats.unknown_losses == 0


def test_what_became_different_during_a_cut_is_told_once() -> None:
    german = ChannelEntry("de", "Deutsch", "de", "live")
    reception = Reception(replace(HELLO, state=ChannelState.WAITING, audio_format=None))
    changed = replace(HELLO, audio_format=STEREO, channels=(german,), pace=Pace.SPEECH, resumed=True)
    different = [Channels((german,)), FormatChange(STEREO, 7), StateChange(ChannelState.LIVE, Pace.SPEECH)]
    assert reception.resume(changed) == [Reconnected(resumed=True), *different]
    assert reception.resume(changed) == [Reconnected(resumed=True)]
    assert (reception.state, reception.audio_format, reception.channels) == (ChannelState.LIVE, STEREO, (german,))


def test_a_format_begins_an_epoch_unless_it_is_the_first_broadcasters() -> None:
    reception = Reception(replace(HELLO, audio_format=None))
    assert reception.take(FormatChange(MONO, 7)) == [FormatChange(MONO, 7)]
    reception.take(frame(0))
    reception.take(FormatChange(STEREO, 8))
    assert reception.resume_point == (8, WRAP - 1)
    assert reception.take(frame(0, epoch=8, ticks=960)) == [frame(0, epoch=8, ticks=960)]


def test_a_switch_begins_another_account() -> None:
    reception = Reception(HELLO)
    reception.take(frame(0))
    german = replace(hello(500, epoch=33), channel="de", audio_format=STEREO)
    assert reception.take(german) == [german]
    assert reception.hello == german
    assert reception.take(frame(500, epoch=33)) == [frame(500, epoch=33)]
    assert reception.stats.gaps == reception.stats.unknown_losses == 0


def test_what_needs_no_account_is_passed_on() -> None:
    reception = Reception(HELLO)
    assert reception.take(Clear()) == [Clear()]
    lost = StateChange(ChannelState.SOURCE_LOST)
    assert reception.take(lost) == [lost]
    assert reception.state is ChannelState.SOURCE_LOST


def test_audio_without_a_format_is_refused() -> None:
    with pytest.raises(PolicyError, match="before its format"):
        Reception(replace(HELLO, audio_format=None)).take(frame(0))


@given(
    first=st.integers(0, 5) | st.integers(WRAP - 8, WRAP - 1),
    cuts=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 3)), max_size=12),
)
def test_over_any_cuts_each_frame_comes_once_or_in_one_gap(first: int, cuts: list[tuple[int, int, int]]) -> None:
    """Each cut has three counts: frames that still arrive, frames released meanwhile, and those the relay forgot."""
    reception = Reception(hello(first))
    released = first
    accounted: list[int] = []

    def note(events: list[ReceptionEvent]) -> None:
        for event in events:
            match event:
                case Audio():
                    accounted.append(event.header.seq)
                case Gap():
                    accounted.extend(
                        (event.from_seq + n) % WRAP for n in range((event.to_seq - event.from_seq) % WRAP + 1)
                    )

    for delivered, missed, forgotten in cuts:
        for _ in range(delivered):
            note(reception.take(frame(released)))
            released += 1
        epoch, after = reception.resume_point
        assert (epoch, after) == (7, (released - 1) % WRAP)
        note(reception.resume(hello(after + 1)))
        lost = min(missed, forgotten)
        if lost:
            note(reception.take(Gap(7, released % WRAP, (released + lost - 1) % WRAP, 20.0 * lost, "resume")))
        for seq in range(released + lost, released + missed):
            note(reception.take(frame(seq)))
        released += missed
    assert accounted == [seq % WRAP for seq in range(first, released)]
    assert reception.stats.duplicate_frames == reception.stats.unknown_losses == 0
    assert reception.stats.reconnects == len(cuts)


OPUS = AudioFormat(Codec.OPUS, 48_000)


def packets(first: int, count: int, media_time: int | None = None) -> list[Audio]:
    """So many packets of 20 ms, as they would come one by one. The first of an epoch begins before its first sample."""
    begins = first * 960 - 312 if media_time is None else media_time
    return [
        Audio(Header(7, seq % WRAP, (begins + 960 * number) % WRAP, 1000 + 20 * number), b"\xf8" + bytes([seq % 251]))
        for number, seq in enumerate(range(first, first + count))
    ]


def packed(frames: list[Audio]) -> Audio:
    message = pack_audio(frames[0].header, [one.payload for one in frames])
    return Audio(Header.unpack(message), message[HEADER_BYTES:])


def test_each_packet_of_a_message_is_a_frame_of_its_own() -> None:
    reception = Reception(replace(HELLO, audio_format=OPUS))
    assert reception.take(packed(packets(0, 3))) == packets(0, 3)
    assert reception.take(packets(3, 1)[0]) == packets(3, 1)
    assert reception.resume_point == (7, 3)
    assert reception.stats.received.chunks == 4
    assert reception.stats.received.seconds == pytest.approx(0.08)


def test_a_hole_before_and_a_repetition_in_a_packed_message_are_told() -> None:
    reception = Reception(replace(HELLO, audio_format=OPUS))
    reception.take(packed(packets(0, 2)))
    assert reception.take(packed(packets(1, 3))) == packets(1, 3)[1:]
    assert reception.take(packed(packets(6, 2))) == [Gap(7, 4, 5, 40.0, "untold"), *packets(6, 2)]
    assert reception.stats.duplicate_frames == 1


def test_where_encoded_audio_begins_is_not_assumed() -> None:
    reception = Reception(replace(HELLO, audio_format=None))
    reception.take(FormatChange(OPUS, 7))
    assert reception.take(packets(2, 1)[0]) == [UnknownLoss("untold"), *packets(2, 1)]


def test_each_codec_has_its_own_numbers() -> None:
    reception = Reception(replace(HELLO, audio_format=OPUS, next_seq=50))
    reception.take(packed(packets(50, 2)))
    assert (reception.codec, reception.resume_point) == (Codec.OPUS, (7, 51))
    # The same numbers, but of another codec.
    told = reception.resume(replace(HELLO, next_seq=52, resumed=False))
    assert told == [Reconnected(resumed=False), UnknownLoss("restart"), FormatChange(MONO, 7)]
    assert reception.codec is Codec.PCM_S16LE
    switched = replace(HELLO, audio_format=OPUS, next_seq=9)
    assert reception.take(switched) == [switched]
    assert (reception.codec, reception.resume_point) == (Codec.OPUS, (7, 8))
    assert reception.take(packets(9, 1)[0]) == packets(9, 1)


def test_a_message_that_is_not_whole_packets_breaks_the_protocol() -> None:
    reception = Reception(replace(HELLO, audio_format=OPUS))
    message = packed(packets(0, 2))
    with pytest.raises(PolicyError, match="ends inside a packet"):
        reception.take(replace(message, payload=message.payload[:-1]))
