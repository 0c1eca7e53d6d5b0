"""The control messages of `relay.v1`: JSON objects in text messages, `type` first.

Source: docs/protocol.md. Building and reading are pure; sending is the business of the floors above.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core.wire import MAX_BROADCAST_BYTES, MAX_TEXT_BYTES, SUBPROTOCOL, WORD_MASK
from relay.vocabulary.audio import AudioFormat, Codec, Pace, Place
from relay.vocabulary.errors import BadRequestError, PolicyError
from relay.vocabulary.names import ChannelAddress

ControlMessage = Mapping[str, Any]

MAX_NESTING = 32
"""Arrays and objects within each other in a control message. Python's reader takes more of them than its writer, which
has to repeat a `ping`; no message of the protocol has more than 3."""


def encode(message_type: str, /, **members: object) -> str:
    """Give the text of a control message; `type` stands first, the members follow in the order given."""
    return json.dumps({"type": message_type, **members}, separators=(",", ":"))


def decode(text: str, max_bytes: int = MAX_TEXT_BYTES) -> ControlMessage:
    """Read a control message.

    Raises:
        PolicyError: The text is over `max_bytes`, is not JSON, is not an object, its `type` is not a string, a number
            in it is beyond the range of a double, or it is nested deeper than `MAX_NESTING`.
    """
    size = len(text.encode())
    if size > max_bytes:
        raise PolicyError(f"A control message of {size} bytes is over the limit of {max_bytes}.")
    try:
        message = json.loads(text, parse_float=_finite, parse_int=_finite_integer, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise PolicyError("A control message is not JSON.") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise PolicyError('A control message is not a JSON object with a string "type".')
    if text.count("[") + text.count("{") > MAX_NESTING and _is_nested_deeper(message, MAX_NESTING):
        raise PolicyError(f"A control message is nested deeper than {MAX_NESTING} arrays and objects.")
    return message


def _is_nested_deeper(value: object, levels: int) -> bool:
    """Tell whether a value has more levels of arrays and objects; it looks one level further than that at most."""
    if not isinstance(value, dict | list):
        return False
    members = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested_deeper(member, levels - 1) for member in members)


def _finite_integer(number: str) -> int:
    _finite(number)
    return int(number)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        # Python would write it again as no JSON is written.
        raise PolicyError(f"A control message has the number {number:.20}, which is not finite.")
    return value


def describe_format(audio_format: AudioFormat | None) -> dict[str, object] | None:
    """Give a format as the wire names it; None while no broadcaster has said."""
    if audio_format is None:
        return None
    return {
        "codec": audio_format.codec.value,
        "rate": audio_format.rate,
        "channels": audio_format.channels,
        "clock_rate": audio_format.clock_rate,
    }


def read_format(described: Any) -> AudioFormat | None:  # noqa: ANN401 - whatever JSON held
    """Read what `describe_format` wrote; a client's side of it.

    Raises:
        PolicyError: The members do not describe a format that this implementation knows.
    """
    if described is None:
        return None
    try:
        return AudioFormat(Codec(described["codec"]), described["rate"], described["channels"])
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"The format {described!r} is not one that this implementation knows.") from error


def error_message(code: int, sentence: str) -> str:
    """Give the text of an `error`: the close code it goes with, and the sentence for a person."""
    return encode("error", code=code, message=sentence)


def pong_message(ping: ControlMessage, clock_ms: int) -> str:
    """Answer a `ping` with every member it had, plus the relay's clock."""
    members = {name: value for name, value in ping.items() if name not in ("type", "clock_ms")}
    return encode("pong", **members, clock_ms=clock_ms)


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """A channel in the list of its session.

    Attributes:
        id: Its id.
        name: What people call it; the id when nobody said.
        lang: BCP 47 tag; None when nobody said.
        state: Where it is in its life.
    """

    id: str
    name: str
    lang: str | None
    state: str

    def members(self) -> dict[str, str | None]:
        """Give it as the wire writes it."""
        return {"id": self.id, "name": self.name, "lang": self.lang, "state": self.state}


def describe_channels(channels: Sequence[ChannelEntry]) -> str:
    """Give the list of a session's channels as JSON, which stands as it is in each message that has it."""
    return json.dumps([entry.members() for entry in channels], separators=(",", ":"))


def _with_channels(text: str, channels: str) -> str:
    """Give a message with the list of channels as its last member."""
    return f'{text[:-1]},"channels":{channels}}}'


def broadcaster_hello(
    *,
    connection_id: str,
    address: ChannelAddress,
    audio_format: AudioFormat,
    pace: Pace,
    place: Place,
    accepted: int | None,
    clock_ms: int,
) -> str:
    """Greet a broadcaster whose claim on the channel was accepted.

    `place` is where its first frame goes; `accepted` how much was taken of the connection that it named, in ticks, or
    None when that is not known.
    """
    return encode(
        "hello",
        protocol=SUBPROTOCOL,
        connection_id=connection_id,
        session=address.session,
        channel=address.channel,
        pace=pace,
        format=describe_format(audio_format),
        epoch=place.epoch,
        next_seq=place.seq & WORD_MASK,
        accepted=accepted,
        clock_ms=clock_ms,
        limits={"message_bytes": MAX_BROADCAST_BYTES, "text_bytes": MAX_TEXT_BYTES},
    )


def listener_hello(
    *,
    connection_id: str,
    address: ChannelAddress,
    channels: str,
    state: str,
    silence: str | None,
    pace: Pace,
    audio_format: AudioFormat | None,
    place: Place,
    clock_ms: int,
    buffer_ms: int,
    coalesce_ms: int,
    resumed: bool,
    session_name: str | None = None,
) -> str:
    """Greet a listener; `place` is the first frame of its account, `channels` is from `describe_channels`."""
    text = encode(
        "hello",
        protocol=SUBPROTOCOL,
        connection_id=connection_id,
        session=address.session,
        session_name=session_name,
        channel=address.channel,
        state=state,
        silence=silence,
        pace=pace,
        format=describe_format(audio_format),
        epoch=place.epoch,
        next_seq=place.seq & WORD_MASK,
        clock_ms=clock_ms,
        buffer_ms=buffer_ms,
        coalesce_ms=coalesce_ms,
        resumed=resumed,
        limits={"text_bytes": MAX_TEXT_BYTES},
    )
    return _with_channels(text, channels)


def channels_message(channels: str, session_name: str | None = None) -> str:
    """Tell a listener that the list of its session's channels, from `describe_channels`, or its name is another now."""
    return _with_channels(encode("channels", session_name=session_name), channels)


def goaway_message(reconnect_after_ms: int) -> str:
    """Build the message that the relay is about to close, and how long the client should stay away then."""
    return encode("goaway", reconnect_after_ms=reconnect_after_ms)


def clear_message() -> str:
    """Tell a listener to throw away what it has not played."""
    return encode("clear")


def broadcaster_stats(
    *,
    listeners: int,
    dropped_frames: int,
    lead_ms: int,
    queued_ms: int,
    accepted: int,
    arrival_rate: float | None = None,
) -> str:
    """Tell a broadcaster who hears it, how far ahead of real time it is, and how many ticks of its audio were taken.

    `arrival_rate` is how many times as fast as real time its audio comes, when that is wrong.
    """
    return encode(
        "stats",
        listeners=listeners,
        dropped_frames=dropped_frames,
        lead_ms=lead_ms,
        queued_ms=queued_ms,
        arrival_rate=arrival_rate,
        accepted=accepted,
    )


def backpressure_message(*, on: bool) -> str:
    """Tell a broadcaster to stop sending, or to go on."""
    return encode("backpressure", on=on)


def state_message(state: str, pace: Pace, silence: str | None = None) -> str:
    """Tell a listener what became of its channel's source, in which pace it sends, and why it sends nothing to hear."""
    return encode("state", state=state, pace=pace, silence=silence)


def format_message(audio_format: AudioFormat, epoch: int) -> str:
    """Tell a listener that a new epoch begins, and what its audio is."""
    return encode("format", format=describe_format(audio_format), epoch=epoch)


def gap_message(lost_from: Place, lost_to: Place, clock_rate: int, reason: str) -> str:
    """Tell a listener which frames it will not get: from `lost_from` up to, not including, `lost_to`.

    Both places are of one epoch, whose media time has `clock_rate` ticks a second.
    """
    return encode(
        "gap",
        epoch=lost_from.epoch,
        from_seq=lost_from.seq & WORD_MASK,
        to_seq=(lost_to.seq - 1) & WORD_MASK,
        duration_ms=round((lost_to.media_time - lost_from.media_time) * 1000 / clock_rate),
        reason=reason,
    )


def is_muting(mute: ControlMessage) -> bool:
    """Read whether a `mute` begins or ends it.

    Raises:
        BadRequestError: It does not say.
    """
    on = mute.get("on")
    if not isinstance(on, bool):
        raise BadRequestError('A mute says whether it begins: {"type": "mute", "on": true}.')
    return on


def wanted_channel(switch: ControlMessage) -> str:
    """Read the channel that a `switch` names.

    Raises:
        BadRequestError: It names none.
    """
    channel = switch.get("channel")
    if not isinstance(channel, str):
        raise BadRequestError('A switch names its channel: {"type": "switch", "channel": "de"}.')
    return channel
