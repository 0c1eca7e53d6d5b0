"""What a relay says to a broadcaster, and to both roles, read."""

import json
from typing import Any

import pytest

from relay.protocol import messages
from relay.protocol.broadcaster_events import Audience, Backpressure, read_broadcaster_event
from relay.protocol.listener_events import read_listener_event
from relay.protocol.shared_events import MAX_RELAY_TEXT_BYTES, ErrorNotice, Goaway, Pong
from relay.vocabulary.errors import PolicyError


def test_what_the_relay_writes_is_what_a_broadcaster_reads() -> None:
    stats = messages.broadcaster_stats(listeners=3, dropped_frames=7, lead_ms=1200, queued_ms=40, accepted=4711)
    assert read_broadcaster_event(stats) == Audience(3, 7, 1200.0, 40.0, 4711)
    stats = messages.broadcaster_stats(
        listeners=3, dropped_frames=7, lead_ms=0, queued_ms=0, accepted=9, arrival_rate=1.5
    )
    assert read_broadcaster_event(stats) == Audience(3, 7, 0.0, 0.0, 9, 1.5)
    assert read_broadcaster_event(messages.backpressure_message(on=True)) == Backpressure(on=True)
    assert read_broadcaster_event(messages.error_message(1008, "Half a sample.")) == ErrorNotice(1008, "Half a sample.")


@pytest.mark.parametrize("read", [read_broadcaster_event, read_listener_event])
def test_both_roles_read_what_is_for_both(read: Any) -> None:
    pong = messages.pong_message({"type": "ping", "id": 4, "sent": 1.5}, 99)
    assert read(pong) == Pong(4, 99)
    assert read('{"type":"goaway","reconnect_after_ms":1500}') == Goaway(1500)
    assert read('{"type":"goaway","reconnect_after_ms":-3}') == Goaway(0)
    assert read('{"type":"applause"}') is None


def test_audio_for_a_broadcaster_is_ignored() -> None:
    assert read_broadcaster_event(b"\0\0") is None


def test_a_list_of_many_channels_is_longer_than_what_a_relay_reads() -> None:
    entries = [messages.ChannelEntry(f"channel-{number}", "Ä" * 64, "de", "live") for number in range(64)]
    text = messages.channels_message(messages.describe_channels(entries))
    assert len(text.encode()) > 10_000
    event = read_listener_event(text)
    assert event is not None
    assert getattr(event, "channels", None) == tuple(entries)


def test_what_is_longer_than_any_message_is_refused() -> None:
    with pytest.raises(PolicyError, match="over the limit of 65536"):
        read_broadcaster_event(json.dumps({"type": "stats", "listeners": "9" * MAX_RELAY_TEXT_BYTES}))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"type": "stats"}, "The stats message has no usable 'listeners'."),
        ({"type": "stats", "listeners": True}, "The stats message has no usable 'listeners'."),
        ({"type": "stats", "listeners": 1}, "The stats message has no usable 'accepted'."),
        ({"type": "stats", "listeners": 1, "lead_ms": "2"}, "The stats message has no usable 'lead_ms'."),
        (
            {"type": "stats", "listeners": 1, "accepted": 1, "arrival_rate": True},
            "The stats message has no usable 'arrival_rate'.",
        ),
        ({"type": "backpressure", "on": 1}, "The backpressure message has no usable 'on'."),
        ({"type": "goaway"}, "The goaway message has no usable 'reconnect_after_ms'."),
        ({"type": "pong", "id": 1}, "The pong message has no usable 'clock_ms'."),
    ],
)
def test_what_is_not_of_the_protocol_is_refused_with_its_name(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        read_broadcaster_event(json.dumps(message))
    assert str(refusal.value) == problem
