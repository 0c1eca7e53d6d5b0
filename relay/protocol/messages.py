"""The control messages of `relay.v1`: one frozen dataclass for each, which both writes and reads it.

The tables at the end say which side sends what. `/asyncapi.json` is made from them and from the docstrings
(`python -m scripts.generate`).

Invariants: nothing here does I/O. A type that nobody here knows is no message and no error, so that old and new
versions understand each other.

Source: docs/protocol.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Self, get_args

from relay.protocol.json_messages import (
    ControlMessage,
    Message,
    Record,
    RecordList,
    UnusableError,
    decode,
    encode,
    on_wire,
    read_exactly,
    write_json,
)
from relay.protocol.wire import (
    HEADER_BYTES,
    MAX_BROADCAST_BYTES,
    MAX_RELAY_TEXT_BYTES,
    MAX_TEXT_BYTES,
    SUBPROTOCOL,
    WORD_MASK,
    Audio,
    Header,
)
from relay.vocabulary.audio import AudioFormat, Codec, Pace, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import PolicyError
from relay.vocabulary.names import DEFAULT_CHANNEL

LONGEST_ASKED_SECONDS = 3600
"""A relay that asks a client to stay away for longer counts as asking for this."""

MAX_REPORTED_MS = 600_000.0
"""A player that reports more than ten minutes counts as reporting this."""

MAX_REPORTED_COUNT = 10**15
"""A player can't report more; a browser's numbers are exact up to a little more."""


@cache
def _write_format(audio_format: AudioFormat) -> str:
    return write_json(describe_format(audio_format))


def describe_format(audio_format: AudioFormat | None) -> dict[str, object] | None:
    """Give a format as the wire writes it; None while no broadcaster has said."""
    if audio_format is None:
        return None
    return {
        "codec": audio_format.codec.value,
        "rate": audio_format.rate,
        "channels": audio_format.channels,
        "clock_rate": audio_format.clock_rate,
    }


def read_format(described: Any) -> AudioFormat:  # noqa: ANN401 - whatever JSON held
    """Read what `describe_format` wrote.

    Raises:
        PolicyError: The members do not describe a format that this implementation knows.
    """
    if described is None:
        raise PolicyError("A format message names no format.")
    try:
        return AudioFormat(Codec(described["codec"]), described["rate"], described["channels"])
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"The format {described!r} is not one that this implementation knows.") from error


_FORMAT = on_wire("format", read=read_format, write=_write_format)


# What both sides are told, and lists of channels.


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """A question for the relay's clock. It may have any members, and the answer repeats them.

    Attributes:
        content: All but `type`. The clients of this package give one, `id`.
    """

    TYPE = "ping"

    content: Mapping[str, object]

    def text(self) -> str:
        """Write it as JSON."""
        return encode(self.TYPE, **self.content)

    @classmethod
    def read(cls, control: ControlMessage) -> Self:
        """Read it; any members are right."""
        return cls({name: value for name, value in control.items() if name != "type"})

    def answer(self, clock_ms: int) -> str:
        """Write the `pong`: every member of this message, plus the relay's clock."""
        return encode(Pong.TYPE, **{**self.content, "clock_ms": clock_ms})


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The answer to a `ping`; it repeats every member of it.

    Attributes:
        ping_id: What the ping gave as its `id`.
        clock_ms: The relay's clock at the answer, in milliseconds, 32 bits.
    """

    TYPE = "pong"

    ping_id: int = field(metadata=on_wire("id"))
    clock_ms: int


def _read_delay(value: object) -> int:
    return int(min(max(0, read_exactly(int, value)), LONGEST_ASKED_SECONDS * 1000))


@dataclass(frozen=True, slots=True)
class Goaway(Message):
    """The relay is about to close the connection with 1012.

    Attributes:
        reconnect_after_ms: How long it asks its client to stay away after the close; at most an hour counts.
    """

    TYPE = "goaway"

    reconnect_after_ms: int = field(metadata=on_wire(read=_read_delay))


@dataclass(frozen=True, slots=True)
class ErrorNotice(Message):
    """Something that the relay objects to; a close follows or does not.

    Attributes:
        code: The close code it goes with.
        message: One sentence for a person.
    """

    TYPE = "error"

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Clear(Message):
    """A broadcaster has interrupted itself: throw away the audio that was received and not played yet."""

    TYPE = "clear"


@dataclass(frozen=True, slots=True)
class ChannelEntry(Record):
    """A channel in the list of its session.

    Attributes:
        id: Its id.
        name: What people call it; the id when nobody said.
        lang: BCP 47 tag; None when nobody said.
        state: Where it is in its life.
    """

    id: str
    name: str = ""
    lang: str | None = None
    state: str = ChannelState.WAITING.value

    def __post_init__(self) -> None:
        """Call it by its id when it has no name."""
        object.__setattr__(self, "name", self.name or self.id)


ChannelList = RecordList[ChannelEntry]
"""The channels of a session."""


# What a listener is told.


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The greeting of a listener, always the first message, and once more after a switch of channels.

    Attributes:
        connection_id: The relay's name of this connection.
        state: Of the channel.
        audio_format: What the audio is; None while no broadcaster has said.
        epoch: Which run of numbers the next frame belongs to, 16 bits.
        next_seq: The first frame that this connection accounts for, 32 bits.
        channel: Its id.
        channels: All channels of the session; empty when the relay does not say.
        pace: What the broadcaster produces; in `SPEECH`, audio comes before it is due.
        clock_ms: The relay's clock, in milliseconds, 32 bits.
        buffer_ms: The bound on the age of what is sent, as the relay grants it.
        coalesce_ms: How long frames wait for each other, likewise.
        resumed: Whether it goes on where the client asked.
        silence: Why there is nothing to hear; None when there is, or when nobody said.
        session: The session's id.
        session_name: What people call the session; None when nobody said.
    """

    TYPE = "hello"
    ALWAYS = MappingProxyType({"protocol": SUBPROTOCOL, "limits": {"text_bytes": MAX_TEXT_BYTES}})

    connection_id: str
    state: ChannelState
    audio_format: AudioFormat | None = field(metadata=_FORMAT)
    epoch: int
    next_seq: int
    channel: str = DEFAULT_CHANNEL
    channels: tuple[ChannelEntry, ...] = ()
    pace: Pace = Pace.LIVE
    clock_ms: int = 0
    buffer_ms: int = 0
    coalesce_ms: int = 0
    resumed: bool = False
    silence: Silence | None = None
    session: str = ""
    session_name: str | None = None


@dataclass(frozen=True, slots=True)
class Channels(Message):
    """The list of the session's channels, or the session's name, is another now.

    Attributes:
        channels: What the session offers now, at most 64.
        session_name: What people call the session; None when nobody said.
    """

    TYPE = "channels"

    channels: tuple[ChannelEntry, ...]
    session_name: str | None = None


@dataclass(frozen=True, slots=True)
class FormatChange(Message):
    """The audio that follows has this format, and `epoch` numbers it, from 0 on.

    Attributes:
        audio_format: What the audio is.
        epoch: The new run of numbers, 16 bits.
    """

    TYPE = "format"

    audio_format: AudioFormat = field(metadata=_FORMAT)
    epoch: int


@dataclass(frozen=True, slots=True)
class StateChange(Message):
    """The channel is in another state, or silent for another reason; the members are those of the hello.

    Attributes:
        state: Of the channel.
        pace: What the broadcaster produces.
        silence: Why there is nothing to hear; None when there is, or when nobody said.
    """

    TYPE = "state"

    state: ChannelState
    pace: Pace = Pace.LIVE
    silence: Silence | None = None


@dataclass(frozen=True, slots=True)
class Gap(Message):
    """Frames that this listener does not get.

    Attributes:
        epoch: Of the frames, 16 bits.
        from_seq: The first of them, 32 bits.
        to_seq: The last of them, 32 bits.
        duration_ms: How much audio they held.
        reason: One word of the protocol: `overflow`, `stale`, `resume` or `clear`.
    """

    TYPE = "gap"

    epoch: int
    from_seq: int
    to_seq: int
    duration_ms: float
    reason: str

    @classmethod
    def between(cls, lost_from: Place, lost_to: Place, clock_rate: int, reason: str) -> Self:
        """Make the gap from `lost_from` up to, not including, `lost_to`.

        Both places are of one epoch, whose media time has `clock_rate` ticks a second.
        """
        return cls(
            lost_from.epoch,
            lost_from.seq & WORD_MASK,
            (lost_to.seq - 1) & WORD_MASK,
            round((lost_to.media_time - lost_from.media_time) * 1000 / clock_rate),
            reason,
        )


# What a broadcaster is told.


@dataclass(frozen=True, slots=True)
class BroadcasterHello(Message):
    """The greeting of a broadcaster, always the first message.

    Attributes:
        connection_id: The relay's name of this connection, for a later one to ask what became of this one.
        accepted: How much was taken of the connection that `resume` named, in ticks of the format's clock rate; None
            when that is not known.
        session: The session's id.
        channel: The channel's id.
        pace: What the broadcaster said that it produces.
        audio_format: What the broadcaster said that its audio is.
        epoch: Which run of numbers its first frame belongs to, 16 bits.
        next_seq: The number of its first frame, 32 bits.
        clock_ms: The relay's clock, in milliseconds, 32 bits.
    """

    TYPE = "hello"
    ALWAYS = MappingProxyType(
        {"protocol": SUBPROTOCOL, "limits": {"message_bytes": MAX_BROADCAST_BYTES, "text_bytes": MAX_TEXT_BYTES}}
    )

    connection_id: str
    accepted: int | None = None
    session: str = ""
    channel: str = DEFAULT_CHANNEL
    pace: Pace = Pace.LIVE
    audio_format: AudioFormat | None = field(default=None, metadata=_FORMAT)
    epoch: int = 0
    next_seq: int = 0
    clock_ms: int = 0


@dataclass(frozen=True, slots=True)
class Audience(Message):
    """What became of the audio, as the relay counts it.

    Attributes:
        listeners: How many listen to the channel now.
        dropped_frames: What those of them lost.
        lead_ms: How far the audio that was sent is ahead of real time.
        queued_ms: How much of it the relay holds until it is due.
        accepted: How much was taken of what came on this connection, in ticks of the format's clock rate.
        arrival_rate: How many times as fast as real time the audio has come for ten seconds, when that is off by more
            than 5 % (its format was announced wrongly, or the network is too slow); else None.
    """

    TYPE = "stats"

    listeners: int
    dropped_frames: int = 0
    lead_ms: float = 0.0
    queued_ms: float = 0.0
    accepted: int = field(default=0, metadata=on_wire(is_required=True))
    arrival_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Backpressure(Message):
    """The relay holds enough and wants no more audio for now, or wants it again.

    Attributes:
        on: Whether to stop sending.
    """

    TYPE = "backpressure"

    on: bool


# What a listener says.


def _read_reported(most: float, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_REPORTED_COUNT:
        raise UnusableError
    return min(float(value), most)


_REPORTED_MS = on_wire(read=partial(_read_reported, MAX_REPORTED_MS))
_REPORTED_COUNT = on_wire(read=lambda value: int(_read_reported(MAX_REPORTED_COUNT, value)))


@dataclass(frozen=True, slots=True)
class ListenerReport(Message):
    """What a player says of what is heard, every 5 s while it plays.

    Attributes:
        buffer_ms: Audio that waits in the player.
        playout_ms: From a frame's due time until it is heard.
        underruns: How often it ran dry since it began.
        jumps: How often it skipped or repeated audio since it began.
    """

    TYPE = "stats"

    buffer_ms: float = field(metadata=_REPORTED_MS)
    playout_ms: float = field(metadata=_REPORTED_MS)
    underruns: int = field(metadata=_REPORTED_COUNT)
    jumps: int = field(metadata=_REPORTED_COUNT)


@dataclass(frozen=True, slots=True)
class Switch(Message):
    """A listener wants another channel of its session; the answer is a new `hello`, or an `error` with 4504.

    Attributes:
        channel: The channel's id.
    """

    TYPE = "switch"
    USAGE = 'A switch names its channel: {"type": "switch", "channel": "de"}.'

    channel: str


# What a broadcaster says.


@dataclass(frozen=True, slots=True)
class Mute(Message):
    """A broadcaster sends silence on purpose from now on, or no longer does.

    Attributes:
        on: Whether silence begins.
    """

    TYPE = "mute"
    USAGE = 'A mute says whether it begins: {"type": "mute", "on": true}.'

    on: bool


@dataclass(frozen=True, slots=True)
class Pause(Message):
    """A broadcaster leaves and means to come back; listeners are told, and stay."""

    TYPE = "pause"


@dataclass(frozen=True, slots=True)
class End(Message):
    """A broadcaster ends the session's channel; listeners get what they are owed and are closed with 1000."""

    TYPE = "end"


# Who sends what.

ListenerMessage = Hello | Channels | FormatChange | StateChange | Gap | Clear | Pong | Goaway | ErrorNotice
ListenerEvent = ListenerMessage | Audio
"""What a relay tells a listener."""

BroadcasterEvent = Audience | Backpressure | Goaway | Pong | ErrorNotice
"""What a relay tells a broadcaster after its greeting."""

TO_LISTENER: tuple[type[ListenerMessage], ...] = get_args(ListenerMessage)
TO_BROADCASTER: tuple[type[BroadcasterHello | BroadcasterEvent], ...] = (BroadcasterHello, *get_args(BroadcasterEvent))
FROM_LISTENER: tuple[type[Message], ...] = (Ping, ListenerReport, Switch)
FROM_BROADCASTER: tuple[type[Message], ...] = (Ping, Clear, Mute, Pause, End)

_TO_LISTENER = {kind.TYPE: kind for kind in TO_LISTENER}
_TO_BROADCASTER: dict[str, type[BroadcasterEvent]] = {kind.TYPE: kind for kind in get_args(BroadcasterEvent)}


def read_listener_event(message: str | bytes) -> ListenerEvent | None:
    """Read what a relay sent to a listener; None for a type that this implementation does not know.

    Raises:
        PolicyError: The message is not of the protocol; the text says what is wrong with it.
    """
    if isinstance(message, bytes):
        return Audio(Header.unpack(message), message[HEADER_BYTES:])
    control = decode(message, MAX_RELAY_TEXT_BYTES)
    kind = _TO_LISTENER.get(control["type"])
    return None if kind is None else kind.read(control)


def check_protocol(hello: ControlMessage) -> None:
    """Refuse the greeting of a relay that speaks another protocol.

    Raises:
        PolicyError: `protocol` is not the one that this implementation speaks.
    """
    spoken = hello.get("protocol")
    if spoken != SUBPROTOCOL:
        raise PolicyError(f"The relay speaks {spoken!r}, and this client speaks {SUBPROTOCOL}.")


def read_broadcaster_event(message: str | bytes) -> BroadcasterEvent | None:
    """Read what a relay sent to a broadcaster after its greeting, likewise."""
    if isinstance(message, bytes):
        return None
    control = decode(message, MAX_RELAY_TEXT_BYTES)
    kind = _TO_BROADCASTER.get(control["type"])
    return None if kind is None else kind.read(control)
