"""What a relay says to a listener, read."""

import json
from typing import Any

import pytest

from relay.core import messages
from relay.core.channel import ChannelState, Silence
from relay.core.listener_events import (
    Audio,
    FormatChange,
    Gap,
    Hello,
    StateChange,
    read_listener_event,
)
from relay.core.shared_events import ErrorNotice, check_protocol
from relay.core.wire import Header
from relay.vocabulary.audio import AudioFormat, Pace, Place
from relay.vocabulary.errors import PolicyError
from relay.vocabulary.names import ChannelAddress

MONO = {"codec": "pcm_s16le", "rate": 16_000, "channels": 1}
STEREO = AudioFormat(rate=48_000, channels=2)


def test_what_the_relay_writes_is_what_a_listener_reads() -> None:
    hello = messages.listener_hello(
        connection_id="c1",
        address=ChannelAddress("s"),
        channels=messages.describe_channels([messages.ChannelEntry("main", "Main", "en", "live")]),
        state="live",
        silence="muted",
        pace=Pace.LIVE,
        audio_format=STEREO,
        place=Place(0, 7, 41, 0),
        clock_ms=5,
        buffer_ms=10_000,
        coalesce_ms=0,
        resumed=False,
    )
    assert read_listener_event(hello) == Hello(
        "c1",
        ChannelState.LIVE,
        STEREO,
        7,
        41,
        channels=(messages.ChannelEntry("main", "Main", "en", "live"),),
        clock_ms=5,
        buffer_ms=10_000,
        silence=Silence.MUTED,
    )
    assert read_listener_event(messages.state_message("waiting", Pace.LIVE, "paused")) == StateChange(
        ChannelState.WAITING, Pace.LIVE, Silence.PAUSED
    )
    assert read_listener_event(messages.state_message("source_lost", Pace.SPEECH)) == StateChange(
        ChannelState.SOURCE_LOST, Pace.SPEECH
    )
    assert read_listener_event(messages.format_message(STEREO, 8)) == FormatChange(STEREO, 8)
    assert read_listener_event(messages.error_message(4503, "Busy.")) == ErrorNotice(4503, "Busy.")
    gap = messages.gap_message(Place(0, 7, 41, 0), Place(2, 7, 43, 960), 48_000, "overflow")
    assert read_listener_event(gap) == Gap(7, 41, 42, 20.0, "overflow")
    header = Header(7, 43, 960, 123)
    assert read_listener_event(header.pack() + b"\1\2") == Audio(header, b"\1\2")


def test_a_greeting_before_the_first_broadcaster_has_no_format() -> None:
    hello = {"type": "hello", "connection_id": "c", "state": "waiting", "format": None, "epoch": 1, "next_seq": 0}
    assert read_listener_event(json.dumps(hello)) == Hello("c", ChannelState.WAITING, None, 1, 0)


@pytest.mark.parametrize("reason", ["asleep", 7, [], None])
def test_a_silence_that_only_a_newer_relay_knows_is_none(reason: object) -> None:
    state = {"type": "state", "state": "live", "silence": reason}
    assert read_listener_event(json.dumps(state)) == StateChange(ChannelState.LIVE)


def test_a_type_of_a_newer_relay_is_no_event() -> None:
    assert read_listener_event('{"type":"applause","volume":11}') is None


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"type": "state"}, "The state message has no usable 'state'."),
        ({"type": "state", "state": "asleep"}, "The state 'asleep' is not one that this implementation knows."),
        ({"type": "format"}, "A format message names no format."),
        ({"type": "format", "format": {"codec": "mp3", "rate": 8000, "channels": 1}}, "is not one that"),
        ({"type": "gap", "epoch": 1, "from_seq": 0, "to_seq": 1}, "no usable 'duration_ms'"),
        ({"type": "gap", "epoch": 1, "from_seq": "0"}, "no usable 'from_seq'"),
        ({"type": "hello", "state": "live"}, "The hello message has no usable 'connection_id'."),
        ({"type": "error", "code": 1}, "The error message has no usable 'message'."),
        ({"type": "state", "state": "live", "pace": "allegro"}, "The pace 'allegro' is not one that"),
        ({"type": "format", "format": MONO}, "The format message has no usable 'epoch'."),
        ({"type": "channels", "channels": 3}, "The channels message has no usable 'channels'."),
        ({"type": "channels", "channels": [{"name": "Deutsch"}]}, "The channels message has no usable 'id'."),
    ],
)
def test_what_is_not_of_the_protocol_is_refused_with_its_name(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        read_listener_event(json.dumps(message))
    assert problem in str(refusal.value)


@pytest.mark.parametrize("message", [b"", b"\1" * 15, b"\2" * 16, "{", "[]"])
def test_garbage_is_refused(message: str | bytes) -> None:
    with pytest.raises(PolicyError):
        read_listener_event(message)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"The relay speaks 'relay.v9', and this client speaks relay.v1."):
        check_protocol({"type": "hello", "protocol": "relay.v9"})
