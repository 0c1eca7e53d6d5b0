"""Control messages: the relay writes them as the protocol says, and does not trust those that it reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.json_messages import Message, decode, encode
from relay.protocol.messages import (
    FROM_BROADCASTER,
    FROM_LISTENER,
    MAX_DELIVERY_MS,
    TO_BROADCASTER,
    TO_LISTENER,
    Audience,
    Backpressure,
    BroadcasterHello,
    ChannelEntry,
    Channels,
    Clear,
    DeliveryChange,
    End,
    ErrorNotice,
    FormatChange,
    Gap,
    Goaway,
    Hello,
    ListenerReport,
    Mute,
    Pause,
    Ping,
    Pong,
    StateChange,
    Switch,
    check_protocol,
    read_broadcaster_event,
    read_listener_event,
)
from relay.protocol.wire import MAX_RELAY_TEXT_BYTES, Audio, Header
from relay.vocabulary.audio import AudioFormat, Pace, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import BadRequestError, CloseCode, PolicyError

REPOSITORY = Path(__file__).parents[2]


def test_type_stands_first() -> None:
    assert encode("state", state="live") == '{"type":"state","state":"live"}'


def test_a_listener_is_greeted_with_these_members() -> None:
    channels = (ChannelEntry("de", "Deutsch", "de", "live"), ChannelEntry("x"))
    hello = Hello(
        "c1",
        ChannelState.LIVE,
        AudioFormat(rate=48_000, channels=2),
        5,
        17,
        channel="de",
        channels=channels,
        pace=Pace.SPEECH,
        clock_ms=1234,
        clock_id="00ff",
        buffer_ms=10_000,
        coalesce_ms=40,
        packet_ms=60,
        resumed=True,
        silence=Silence.MUTED,
        session="ev1",
        session_name="Town hall",
    )
    text = hello.text()
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
        "clock_id": "00ff",
        "buffer_ms": 10_000,
        "coalesce_ms": 40,
        "packet_ms": 60,
        "resumed": True,
        "limits": {"text_bytes": 4096},
    }
    assert read_listener_event(text) == hello


def test_gap_names_both_ends_inclusive_and_the_sum_of_durations() -> None:
    lost_from, lost_to = Place(10, 3, 2**32 - 1, 16_000), Place(12, 3, 2**32 + 1, 16_640)
    assert json.loads(Gap.between(lost_from, lost_to, 16_000, "overflow").text()) == {
        "type": "gap",
        "epoch": 3,
        "from_seq": 2**32 - 1,
        "to_seq": 0,
        "duration_ms": 40,
        "reason": "overflow",
    }


def test_pong_repeats_the_ping_and_adds_the_clock() -> None:
    ping = Ping.read(decode('{"type":"ping","id":7,"t":[1,2],"clock_ms":"a lie"}'))
    assert json.loads(ping.answer(99)) == {"type": "pong", "id": 7, "t": [1, 2], "clock_ms": 99}


def test_a_ping_may_name_its_members_as_it_likes() -> None:
    members = {"message_type": 1, "members": 2, "ping": 3, "self": 4}
    ping = Ping.read(decode(json.dumps({"type": "ping", **members})))
    assert json.loads(ping.answer(99)) == {"type": "pong", **members, "clock_ms": 99}


@pytest.mark.parametrize(
    "strange", [{}, [], "pcm", {"codec": "opus", "rate": 44_100, "channels": 1}, {"codec": "pcm_s16le"}]
)
def test_a_format_that_nobody_here_knows_is_refused(strange: object) -> None:
    with pytest.raises(PolicyError, match="unknown to this version"):
        read_listener_event(json.dumps({"type": "format", "format": strange, "epoch": 1}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 4000, "not valid JSON"),
        ("1", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("{}", '"type"'),
        ('{"type":1}', '"type"'),
        ('{"type":"ping","id":1e999}', "the number 1e999, which is not finite"),
        ('{"type":"ping","id":[-Infinity]}', "the number -Infinity"),
        ('{"type":"ping","id":NaN}', "the number NaN"),
        ('{"type":"ping","id":1' + "0" * 400 + "}", "not finite"),
        ('{"type":"ping","x":' + "[" * 32 + "]" * 32 + "}", "more than 32 levels"),
        ('{"type":"ping","x":' + '{"":' * 700 + "1" + "}" * 700 + "}", "more than 32 levels"),
        ('{"type":"ping","x":"' + "é" * 2048 + '"}', "more than the limit of 4096"),
    ],
)
def test_what_is_no_control_message_is_a_policy_error(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        decode(text)
    assert caught.value.close_code is CloseCode.POLICY


@given(st.text())
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        message = decode(text)
    except PolicyError:
        return
    assert isinstance(message["type"], str)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
)


@given(JSON_VALUES, st.integers(0, 1800), st.sampled_from(("[]", '{"":}')), st.integers(0, 4000))
def test_a_ping_that_can_be_read_can_be_repeated(value: object, depth: int, kind: str, digits: int) -> None:
    """The writer accepts any nesting, number and character that the reader accepts, even half a surrogate pair."""
    nested = kind[:-1] * depth + "1" + kind[-1] * depth
    for member in (json.dumps(value), nested, "9" * max(1, digits), '"\\ud800"'):
        try:
            ping = Ping.read(decode(f'{{"type":"ping","id":7,"x":{member}}}'))
        except PolicyError:
            continue
        pong = ping.answer(99)
        assert json.loads(pong) == {"type": "pong", "id": 7, "x": json.loads(member), "clock_ms": 99}
        assert len(pong.encode()) <= MAX_RELAY_TEXT_BYTES


@pytest.mark.parametrize("on", [None, 1, "true"])
def test_a_mute_that_does_not_say_whether_it_begins_is_a_bad_request(on: object) -> None:
    assert Mute.read({"type": "mute", "on": True}) == Mute(on=True)
    assert Mute.read({"type": "mute", "on": False}) == Mute(on=False)
    with pytest.raises(BadRequestError, match="must say whether it is on"):
        Mute.read({"type": "mute", "on": on})


@pytest.mark.parametrize("member", ["channel", "codec"])
@pytest.mark.parametrize("value", [1, ["de"]])
def test_a_switch_that_names_no_channel_or_codec_is_a_bad_request(member: str, value: object) -> None:
    assert Switch.read({"type": "switch", "channel": "de"}) == Switch("de")
    assert Switch.read({"type": "switch", "codec": "opus"}) == Switch(None, "opus")
    with pytest.raises(BadRequestError, match="must name a channel, codecs, or both"):
        Switch.read({"type": "switch", member: value})


@pytest.mark.parametrize("member", ["coalesce_ms", "packet_ms"])
@pytest.mark.parametrize("value", [-1, 1.5, "60", True])
def test_a_delivery_without_whole_milliseconds_is_a_bad_request(member: str, value: object) -> None:
    assert DeliveryChange.read({"type": "delivery", "packet_ms": 60}) == DeliveryChange(None, 60)
    assert DeliveryChange.read({"type": "delivery", "coalesce_ms": 10**9}) == DeliveryChange(MAX_DELIVERY_MS)
    with pytest.raises(BadRequestError, match="whole milliseconds"):
        DeliveryChange.read({"type": "delivery", member: value})


STEREO = AudioFormat(rate=48_000, channels=2)

A_MESSAGE_OF_EACH_KIND: list[tuple[Sequence[type[Message]], Message]] = [
    (TO_LISTENER, Hello("c1", ChannelState.WAITING, None, 7, 41, session="s")),
    (TO_LISTENER, Channels((ChannelEntry("main", "Main", "en", "live"), ChannelEntry("de")), "Town hall")),
    (TO_LISTENER, FormatChange(STEREO, 8)),
    (TO_LISTENER, StateChange(ChannelState.SOURCE_LOST, Pace.SPEECH, Silence.PAUSED)),
    (TO_LISTENER, Gap(7, 41, 42, 20.0, "overflow")),
    (TO_LISTENER, Clear()),
    (TO_LISTENER, DeliveryChange(40, 60)),
    (TO_LISTENER, Pong(4, 99)),
    (TO_LISTENER, Goaway(1500)),
    (TO_LISTENER, ErrorNotice(4503, "Busy.")),
    (TO_BROADCASTER, BroadcasterHello("c1", 320, "s", "de", Pace.SPEECH, STEREO, 7, 41, 5)),
    (TO_BROADCASTER, Audience(3, 7, 1200.0, 40.0, 4711)),
    (TO_BROADCASTER, Audience(3, 7, 0.0, 0.0, 9, 1.5)),
    (TO_BROADCASTER, Backpressure(on=True)),
    (TO_BROADCASTER, Pong(4, 99)),
    (TO_BROADCASTER, Goaway(1500)),
    (TO_BROADCASTER, ErrorNotice(1008, "Half a sample.")),
    (FROM_LISTENER, Ping({"id": 4, "sent": 1.5})),
    (FROM_LISTENER, ListenerReport(240.0, 310.5, 2, 1)),
    (FROM_LISTENER, Switch("de")),
    (FROM_LISTENER, Switch(None, "opus,pcm_s16le")),
    (FROM_LISTENER, DeliveryChange(packet_ms=60)),
    (FROM_BROADCASTER, Ping({})),
    (FROM_BROADCASTER, Clear()),
    (FROM_BROADCASTER, Mute(on=False)),
    (FROM_BROADCASTER, Pause()),
    (FROM_BROADCASTER, End()),
]


@pytest.mark.parametrize(("table", "message"), A_MESSAGE_OF_EACH_KIND)
def test_what_one_side_writes_is_what_the_other_reads(table: Sequence[type[Message]], message: Message) -> None:
    kind = {each.TYPE: each for each in table}[message.TYPE]
    assert kind.read(decode(message.text())) == message


def test_every_message_is_tried() -> None:
    for table in (TO_LISTENER, TO_BROADCASTER, FROM_LISTENER, FROM_BROADCASTER):
        assert {type(message) for of, message in A_MESSAGE_OF_EACH_KIND if of is table} == set(table)


@pytest.mark.parametrize(("table", "message"), A_MESSAGE_OF_EACH_KIND)
def test_each_message_is_as_asyncapi_describes_it(table: Sequence[type[Message]], message: Message) -> None:
    document = json.loads((REPOSITORY / "relay/pages/asyncapi.json").read_text(encoding="utf-8"))
    role = "listen" if table in (TO_LISTENER, FROM_LISTENER) else "broadcast"
    action = "send" if table in (TO_LISTENER, TO_BROADCASTER) else "receive"
    name = type(message).__name__
    assert {"$ref": f"#/channels/{role}/messages/{name}"} in document["operations"][f"{action}_{role}"]["messages"]
    payload = document["components"]["messages"][name]["payload"]
    # This also finds a member that the document lacks or misspells.
    described = {**payload, "components": document["components"], "additionalProperties": isinstance(message, Ping)}
    jsonschema_rs.validator_for(described).validate(json.loads(message.text()))


def test_audio_has_a_header() -> None:
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
        ({"type": "state"}, "The state message lacks a valid 'state'."),
        ({"type": "state", "state": "asleep"}, "The state 'asleep' is unknown to this version."),
        ({"type": "format"}, 'A message lacks its "format".'),
        ({"type": "format", "format": {"codec": "mp3", "rate": 8000, "channels": 1}}, "is unknown to this version"),
        ({"type": "gap", "epoch": 1, "from_seq": 0, "to_seq": 1}, "lacks a valid 'duration_ms'"),
        ({"type": "gap", "epoch": 1, "from_seq": "0"}, "lacks a valid 'from_seq'"),
        ({"type": "hello", "state": "live"}, "The hello message lacks a valid 'connection_id'."),
        ({"type": "error", "code": 1}, "The error message lacks a valid 'message'."),
        ({"type": "state", "state": "live", "pace": "allegro"}, "The pace 'allegro' is unknown to"),
        (
            {"type": "format", "format": {"codec": "pcm_s16le", "rate": 16_000, "channels": 1}},
            "The format message lacks a valid 'epoch'.",
        ),
        ({"type": "channels", "channels": 3}, "The channels message lacks a valid 'channels'."),
        ({"type": "channels", "channels": [{"name": "Deutsch"}]}, "The channels message lacks a valid 'id'."),
    ],
)
def test_what_no_relay_says_to_a_listener_is_refused_with_its_name(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        read_listener_event(json.dumps(message))
    assert problem in str(refusal.value)


@pytest.mark.parametrize("message", [b"", b"\1" * 15, b"\2" * 16, "{", "[]"])
def test_garbage_is_refused(message: str | bytes) -> None:
    with pytest.raises(PolicyError):
        read_listener_event(message)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"The relay speaks 'relay.v9', but this client speaks relay.v1"):
        check_protocol({"type": "hello", "protocol": "relay.v9"})


@pytest.mark.parametrize("read", [read_broadcaster_event, read_listener_event])
def test_both_roles_read_what_is_for_both(read: Any) -> None:
    pong = Ping({"id": 4, "sent": 1.5}).answer(99)
    assert read(pong) == Pong(4, 99)
    assert read('{"type":"goaway","reconnect_after_ms":1500}') == Goaway(1500)
    assert read('{"type":"goaway","reconnect_after_ms":-3}') == Goaway(0)
    assert read('{"type":"applause"}') is None


def test_audio_for_a_broadcaster_is_ignored() -> None:
    assert read_broadcaster_event(b"\0\0") is None


def test_a_list_of_many_channels_is_longer_than_what_a_relay_reads() -> None:
    entries = [ChannelEntry(f"channel-{number}", "Ä" * 64, "de", "live") for number in range(64)]
    text = Channels(tuple(entries)).text()
    assert len(text.encode()) > 10_000
    assert read_listener_event(text) == Channels(tuple(entries))


def test_what_is_longer_than_any_message_is_refused() -> None:
    with pytest.raises(PolicyError, match="more than the limit of 65536"):
        read_broadcaster_event(json.dumps({"type": "stats", "listeners": "9" * MAX_RELAY_TEXT_BYTES}))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"type": "stats"}, "The stats message lacks a valid 'listeners'."),
        ({"type": "stats", "listeners": True}, "The stats message lacks a valid 'listeners'."),
        ({"type": "stats", "listeners": 1}, "The stats message lacks a valid 'accepted'."),
        ({"type": "stats", "listeners": 1, "lead_ms": "2"}, "The stats message lacks a valid 'lead_ms'."),
        (
            {"type": "stats", "listeners": 1, "accepted": 1, "arrival_rate": True},
            "The stats message lacks a valid 'arrival_rate'.",
        ),
        ({"type": "backpressure", "on": 1}, "The backpressure message lacks a valid 'on'."),
        ({"type": "goaway"}, "The goaway message lacks a valid 'reconnect_after_ms'."),
        ({"type": "pong", "id": 1}, "The pong message lacks a valid 'clock_ms'."),
    ],
)
def test_what_no_relay_says_to_a_broadcaster_is_refused_with_its_name(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        read_broadcaster_event(json.dumps(message))
    assert str(refusal.value) == problem
