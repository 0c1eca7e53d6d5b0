"""Control messages: built as the protocol says, and read without trust."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import messages
from relay.core.shared_events import MAX_RELAY_TEXT_BYTES
from relay.vocabulary.audio import AudioFormat, Pace, Place
from relay.vocabulary.errors import BadRequestError, CloseCode, PolicyError
from relay.vocabulary.names import ChannelAddress


def test_type_stands_first() -> None:
    assert messages.encode("state", state="live") == '{"type":"state","state":"live"}'


def test_listener_hello() -> None:
    text = messages.listener_hello(
        connection_id="c1",
        address=ChannelAddress("ev1", "de"),
        channels=messages.describe_channels(
            [
                messages.ChannelEntry("de", "Deutsch", "de", "live"),
                messages.ChannelEntry("x", "x", None, "waiting"),
            ]
        ),
        state="live",
        silence="muted",
        pace=Pace.SPEECH,
        audio_format=AudioFormat(rate=48_000, channels=2),
        place=Place(2**33, 5, 2**32 + 17, 99),
        clock_ms=1234,
        buffer_ms=10_000,
        coalesce_ms=40,
        resumed=True,
        session_name="Town hall",
    )
    assert json.loads(text) == {
        "type": "hello",
        "protocol": "relay.v1",
        "connection_id": "c1",
        "session": "ev1",
        "session_name": "Town hall",
        "channel": "de",
        "channels": [
            {"id": "de", "name": "Deutsch", "lang": "de", "state": "live"},
            {"id": "x", "name": "x", "lang": None, "state": "waiting"},
        ],
        "state": "live",
        "silence": "muted",
        "pace": "speech",
        "format": {"codec": "pcm_s16le", "rate": 48000, "channels": 2, "clock_rate": 48000},
        "epoch": 5,
        "next_seq": 17,
        "clock_ms": 1234,
        "buffer_ms": 10_000,
        "coalesce_ms": 40,
        "resumed": True,
        "limits": {"text_bytes": 4096},
    }


def test_gap_names_both_ends_inclusive_and_the_sum_of_durations() -> None:
    lost_from, lost_to = Place(10, 3, 2**32 - 1, 16_000), Place(12, 3, 2**32 + 1, 16_640)
    assert json.loads(messages.gap_message(lost_from, lost_to, 16_000, "overflow")) == {
        "type": "gap",
        "epoch": 3,
        "from_seq": 2**32 - 1,
        "to_seq": 0,
        "duration_ms": 40,
        "reason": "overflow",
    }


def test_pong_repeats_the_ping_and_adds_the_clock() -> None:
    ping = messages.decode('{"type":"ping","id":7,"t":[1,2],"clock_ms":"a lie"}')
    assert json.loads(messages.pong_message(ping, 99)) == {"type": "pong", "id": 7, "t": [1, 2], "clock_ms": 99}


def test_a_ping_may_name_its_members_as_it_likes() -> None:
    members = {"message_type": 1, "members": 2, "ping": 3, "self": 4}
    ping = messages.decode(json.dumps({"type": "ping", **members}))
    assert json.loads(messages.pong_message(ping, 99)) == {"type": "pong", **members, "clock_ms": 99}


def test_format_is_read_back() -> None:
    audio_format = AudioFormat(rate=44_100, channels=2)
    assert messages.read_format(messages.describe_format(audio_format)) == audio_format
    assert messages.read_format(messages.describe_format(None)) is None
    unknown: list[Any] = [{}, [], "pcm", {"codec": "opus", "rate": 48_000, "channels": 1}, {"codec": "pcm_s16le"}]
    for strange in unknown:
        with pytest.raises(PolicyError, match="not one that"):
            messages.read_format(strange)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 4000, "not JSON"),
        ("1", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", '"type"'),
        ('{"type":1}', '"type"'),
        ('{"type":"ping","id":1e999}', "the number 1e999, which is not finite"),
        ('{"type":"ping","id":[-Infinity]}', "the number -Infinity"),
        ('{"type":"ping","id":NaN}', "the number NaN"),
        ('{"type":"ping","id":1' + "0" * 400 + "}", "not finite"),
        ('{"type":"ping","x":' + "[" * 32 + "]" * 32 + "}", "deeper than 32"),
        ('{"type":"ping","x":' + '{"":' * 700 + "1" + "}" * 700 + "}", "deeper than 32"),
        ('{"type":"ping","x":"' + "é" * 2048 + '"}', "over the limit of 4096"),
    ],
)
def test_what_is_no_control_message_is_a_policy_error(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        messages.decode(text)
    assert caught.value.close_code is CloseCode.POLICY


@given(st.text())
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        message = messages.decode(text)
    except PolicyError:
        return
    assert isinstance(message["type"], str)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


@given(JSON_VALUES, st.integers(0, 1800), st.sampled_from(("[]", '{"":}')), st.integers(0, 4000))
def test_a_ping_that_can_be_read_can_be_repeated(value: object, depth: int, kind: str, digits: int) -> None:
    """Nesting, numbers and characters (also a half of a surrogate pair) that the reader takes, the writer takes."""
    nested = kind[:-1] * depth + "1" + kind[-1] * depth
    for member in (json.dumps(value), nested, "9" * max(1, digits), '"\\ud800"'):
        try:
            ping = messages.decode(f'{{"type":"ping","id":7,"x":{member}}}')
        except PolicyError:
            continue
        pong = messages.pong_message(ping, 99)
        assert json.loads(pong) == {"type": "pong", "id": 7, "x": json.loads(member), "clock_ms": 99}
        assert len(pong.encode()) <= MAX_RELAY_TEXT_BYTES


@pytest.mark.parametrize("on", [None, 1, "true"])
def test_a_mute_that_does_not_say_whether_it_begins_is_a_bad_request(on: object) -> None:
    assert messages.is_muting({"type": "mute", "on": True}) is True
    assert messages.is_muting({"type": "mute", "on": False}) is False
    with pytest.raises(BadRequestError, match="says whether it begins"):
        messages.is_muting({"type": "mute", "on": on})
