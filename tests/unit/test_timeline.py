"""The life of a channel and the places of its frames."""

import pytest

from relay.audio.timeline import IllegalTransitionError, Timeline
from relay.protocol.wire import HEADER_BYTES, Header
from relay.vocabulary.audio import EPOCH_STRIDE, FLICKS_PER_SECOND, AudioFormat
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import CloseCode

MONO = AudioFormat()
STEREO = AudioFormat(rate=48_000, channels=2)


def plain(payload: bytes) -> bytes:
    return payload


def live_channel(first_epoch: int = 7) -> Timeline:
    channel = Timeline(first_epoch, plain)
    channel.go_live(MONO)
    return channel


def test_frames_are_consecutive_in_every_respect() -> None:
    channel = live_channel()
    first = channel.release(MONO.measure(bytes(640)), 1.0)
    second = channel.release(MONO.measure(bytes(320)), 1.5)
    assert first.start == (0, 7, 0, 0)
    assert first.end is second.start
    assert second.start == (1, 7, 1, 320)
    assert second.end == (2, 7, 2, 480)
    assert first.duration == FLICKS_PER_SECOND // 50
    assert (first.audio, first.timestamp) == (bytes(640), 1.0)


def test_the_wire_form_is_header_and_audio() -> None:
    frame = live_channel().release(MONO.measure(b"\1\2" * 320), 12.3456)
    assert Header.unpack(frame.wire) == Header(epoch=7, seq=0, media_time=0, due_ms=12_345)
    assert frame.wire[HEADER_BYTES:] == b"\1\2" * 320


def test_a_broadcaster_that_returns_with_the_same_format_continues() -> None:
    channel = live_channel()
    channel.release(MONO.measure(bytes(640)), 0.0)
    channel.lose_broadcaster(1.0)
    assert channel.go_live(MONO) is False
    assert channel.release(MONO.measure(bytes(640)), 2.0).start == (1, 7, 1, 320)


def test_another_format_begins_a_new_epoch() -> None:
    channel = live_channel(first_epoch=0xFFFF)
    channel.release(MONO.measure(bytes(640)), 0.0)
    channel.lose_broadcaster(1.0)
    assert channel.go_live(STEREO) is True
    frame = channel.release(STEREO.measure(bytes(4 * 48)), 2.0)
    assert frame.start == (EPOCH_STRIDE, 0, 0, 0), "the epoch wraps at 16 bits, the position goes on"
    assert frame.end.media_time == 48


def test_the_first_format_begins_no_new_epoch() -> None:
    channel = Timeline(9, plain)
    assert channel.go_live(STEREO) is True
    assert channel.place.epoch == 9


def test_the_grace_ends_at_its_time() -> None:
    channel = live_channel()
    assert channel.give_up_broadcaster(100.0, 30.0) is False, "it is live"
    channel.lose_broadcaster(100.0)
    assert channel.give_up_broadcaster(129.9, 30.0) is False
    assert channel.give_up_broadcaster(130.0, 30.0) is True
    assert channel.state is ChannelState.WAITING
    assert channel.give_up_broadcaster(200.0, 30.0) is False


def silence_of(channel: Timeline) -> Silence | None:
    return channel.silence


def test_a_broadcaster_says_why_there_is_nothing_to_hear_and_that_ends_with_it() -> None:
    channel = live_channel()
    assert silence_of(channel) is None
    assert (channel.mute(on=True), channel.mute(on=True), silence_of(channel)) == (True, False, Silence.MUTED)
    assert (channel.mute(on=False), channel.mute(on=False), silence_of(channel)) == (True, False, None)
    for after in (lambda: channel.go_live(MONO), lambda: channel.lose_broadcaster(0.0)):
        channel.mute(on=True)
        after()
        assert silence_of(channel) is None, "another connection has not said so"
    channel.go_live(MONO)
    place = channel.place
    channel.pause()
    assert (channel.state, silence_of(channel), channel.place) == (ChannelState.WAITING, Silence.PAUSED, place)
    assert channel.give_up_broadcaster(1e9, 30.0) is False, "a pause has no grace"
    for illegal in (channel.pause, lambda: channel.mute(on=True), lambda: channel.mute(on=False)):
        with pytest.raises(IllegalTransitionError):
            illegal()
    assert (channel.state, silence_of(channel)) == (ChannelState.WAITING, Silence.PAUSED)
    channel.go_live(MONO)
    assert (silence_of(channel), channel.place) == (None, place)
    channel.mute(on=True)
    channel.end()
    assert silence_of(channel) is None


def test_who_takes_over_with_the_same_format_continues() -> None:
    channel = live_channel()
    channel.release(MONO.measure(bytes(640)), 0.0)
    assert channel.go_live(MONO) is False
    assert channel.release(MONO.measure(bytes(640)), 2.0).start == (1, 7, 1, 320)


def test_an_illegal_transition_raises_and_changes_nothing() -> None:
    channel = Timeline(7, plain)
    with pytest.raises(IllegalTransitionError) as caught:
        channel.lose_broadcaster(0.0)
    assert caught.value.close_code is CloseCode.INTERNAL
    assert (channel.state, channel.audio_format) == (ChannelState.WAITING, None)
    channel.end()
    place = channel.place
    for illegal in (channel.end, lambda: channel.go_live(MONO), lambda: channel.lose_broadcaster(0.0)):
        with pytest.raises(IllegalTransitionError):
            illegal()
    assert (channel.state, channel.place) == (ChannelState.ENDED, place)


def test_only_a_live_channel_releases_audio() -> None:
    channel = Timeline(0, plain)
    with pytest.raises(IllegalTransitionError, match="waiting"):
        channel.release(MONO.measure(b"12"), 0.0)
    channel.go_live(MONO)
    channel.lose_broadcaster(0.0)
    with pytest.raises(IllegalTransitionError, match="source_lost"):
        channel.release(MONO.measure(b"12"), 0.0)
    assert channel.place.position == 0
