"""The control messages of `relay.v1`: each is a frozen dataclass that reads and writes itself.

The tables at the end list which side sends what. `python -m scripts.generate` makes `/asyncapi.json` from these tables
and from the docstrings.

Invariants: this module does no I/O. It ignores messages of an unknown type instead of rejecting them, so that old and
new versions work together.

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
"""Limit on how long a relay may ask a client to stay away. Longer times are reduced to this."""

MAX_REPORTED_MS = 600_000.0
"""Limit on the times in a player's report. Longer times are reduced to this, ten minutes."""

MAX_DELIVERY_MS = 10_000
"""Limit on the times in a request for another delivery. Longer times are reduced to this; the relay grants less."""

MAX_REPORTED_COUNT = 10**15
"""A report with a larger number is rejected. Numbers in a browser are exact up to slightly more."""


@cache
def _write_format(audio_format: AudioFormat) -> str:
    return write_json(describe_format(audio_format))


def describe_format(audio_format: AudioFormat | None) -> dict[str, object] | None:
    """Return a format as the wire writes it. None if no broadcaster has connected yet."""
    if audio_format is None:
        return None
    return {
        "codec": audio_format.codec.value,
        "rate": audio_format.rate,
        "channels": audio_format.channels,
        "clock_rate": audio_format.clock_rate,
    }


def read_format(described: Any) -> AudioFormat:  # noqa: ANN401 - any JSON value
    """Read a format that `describe_format` wrote.

    Raises:
        PolicyError: The members do not describe a format that this implementation knows.
    """
    if described is None:
        raise PolicyError('A message lacks its "format".')
    try:
        return AudioFormat(Codec(described["codec"]), described["rate"], described["channels"])
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"The format {described!r} is unknown to this version.") from error


_FORMAT = on_wire("format", read=read_format, write=_write_format)


# Messages to both sides, and lists of channels.


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """A request for the relay's clock. It may have any members, and the answer repeats them.

    Attributes:
        content: All members except `type`. The clients in this package send one, `id`.
    """

    TYPE = "ping"

    content: Mapping[str, object]

    def text(self) -> str:
        """Write the message as JSON."""
        return encode(self.TYPE, **self.content)

    @classmethod
    def read(cls, control: ControlMessage) -> Self:
        """Read the message. All members are valid."""
        return cls({name: value for name, value in control.items() if name != "type"})

    def answer(self, clock_ms: int) -> str:
        """Write the `pong`: every member of this message, plus the relay's clock."""
        return encode(Pong.TYPE, **{**self.content, "clock_ms": clock_ms})


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The answer to a `ping`. It repeats every member of the ping.

    Attributes:
        ping_id: The ping's `id`.
        clock_ms: The relay's clock at the time of the answer, in milliseconds, 32 bits.
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
        reconnect_after_ms: How long the client should wait after the close before it reconnects, at most an hour.
    """

    TYPE = "goaway"

    reconnect_after_ms: int = field(metadata=on_wire(read=_read_delay))


@dataclass(frozen=True, slots=True)
class ErrorNotice(Message):
    """The relay rejects something. It may close the connection after this message.

    Attributes:
        code: The corresponding close code.
        message: One sentence for a person.
    """

    TYPE = "error"

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Clear(Message):
    """The broadcaster interrupted itself. Discard the audio that was received but not played yet."""

    TYPE = "clear"


@dataclass(frozen=True, slots=True)
class ChannelEntry(Record):
    """A channel in the list of its session.

    Attributes:
        id: The channel's id.
        name: The channel's display name. The id if it has none.
        lang: BCP 47 tag. None if unknown.
        state: The channel's state.
    """

    id: str
    name: str = ""
    lang: str | None = None
    state: str = ChannelState.WAITING.value

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.id)


ChannelList = RecordList[ChannelEntry]
"""The channels of a session."""


# Messages to a listener.


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The greeting of a listener: the first message, sent again after each switch of channels.

    Attributes:
        connection_id: The id of this connection.
        state: The channel's state.
        audio_format: The format of the audio. None if no broadcaster has connected yet.
        epoch: The epoch of the next frame, 16 bits. Sequence numbers restart with each epoch.
        next_seq: The sequence number of the first frame that this connection accounts for, 32 bits.
        channel: The channel's id.
        channels: All channels of the session. Empty if the relay does not list them.
        pace: The broadcaster's pace. In `SPEECH`, audio arrives before it is due.
        clock_ms: The relay's clock, in milliseconds, 32 bits.
        clock_id: The id of that clock. Two greetings with the same id have times of the same clock. None if unknown.
        buffer_ms: The maximum age of the audio that the relay sends, as granted.
        coalesce_ms: The interval over which the relay joins frames into one write, as granted.
        packet_ms: How much audio frames may have that share one message, as granted. 0 if each has its own.
        resumed: Whether delivery resumes where the client asked.
        silence: Why the channel is silent. None if it is not, or if the reason is unknown.
        session: The session's id.
        session_name: The session's display name. None if it has none.
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
    clock_id: str | None = None
    buffer_ms: int = 0
    coalesce_ms: int = 0
    packet_ms: int = 0
    resumed: bool = False
    silence: Silence | None = None
    session: str = ""
    session_name: str | None = None


@dataclass(frozen=True, slots=True)
class Channels(Message):
    """The session's list of channels or its name has changed.

    Attributes:
        channels: The session's channels, at most 64.
        session_name: The session's display name. None if it has none.
    """

    TYPE = "channels"

    channels: tuple[ChannelEntry, ...]
    session_name: str | None = None


@dataclass(frozen=True, slots=True)
class FormatChange(Message):
    """The following audio has this format and belongs to a new epoch, numbered from 0.

    Attributes:
        audio_format: The format of the audio.
        epoch: The new epoch, 16 bits.
    """

    TYPE = "format"

    audio_format: AudioFormat = field(metadata=_FORMAT)
    epoch: int


@dataclass(frozen=True, slots=True)
class StateChange(Message):
    """The channel's state has changed, or the reason for its silence. The members are the same as in `hello`.

    Attributes:
        state: The channel's state.
        pace: The broadcaster's pace.
        silence: Why the channel is silent. None if it is not, or if the reason is unknown.
    """

    TYPE = "state"

    state: ChannelState
    pace: Pace = Pace.LIVE
    silence: Silence | None = None


@dataclass(frozen=True, slots=True)
class Gap(Message):
    """A range of frames that this listener does not receive.

    Attributes:
        epoch: The epoch of the frames, 16 bits.
        from_seq: The first frame, 32 bits.
        to_seq: The last frame, 32 bits.
        duration_ms: The duration of their audio.
        reason: `overflow`, `stale`, `resume`, `clear` or `missing`.
    """

    TYPE = "gap"

    epoch: int
    from_seq: int
    to_seq: int
    duration_ms: float
    reason: str

    @classmethod
    def between(cls, lost_from: Place, lost_to: Place, clock_rate: int, reason: str) -> Self:
        """Return the gap from `lost_from` up to, but not including, `lost_to`.

        Both places are in the same epoch, whose media time has `clock_rate` ticks per second.
        """
        return cls(
            lost_from.epoch,
            lost_from.seq & WORD_MASK,
            (lost_to.seq - 1) & WORD_MASK,
            round((lost_to.media_time - lost_from.media_time) * 1000 / clock_rate),
            reason,
        )


# Messages to a broadcaster.


@dataclass(frozen=True, slots=True)
class BroadcasterHello(Message):
    """The greeting of a broadcaster, always the first message.

    Attributes:
        connection_id: The id of this connection. A later connection can name it in `resume`.
        accepted: How much audio the relay accepted on the connection that `resume` named, in ticks of the format's
            clock rate. None if unknown.
        session: The session's id.
        channel: The channel's id.
        pace: The pace that the broadcaster announced.
        audio_format: The format that the broadcaster announced.
        epoch: The epoch of its first frame, 16 bits.
        next_seq: The sequence number of its first frame, 32 bits.
        clock_ms: The relay's clock, in milliseconds, 32 bits.
        clock_id: The id of that clock. Two greetings with the same id have times of the same clock. None if unknown.
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
    clock_id: str | None = None


@dataclass(frozen=True, slots=True)
class Audience(Message):
    """What happened to the audio, by the relay's count.

    Attributes:
        listeners: Current number of the channel's listeners.
        dropped_frames: Number of frames that these listeners lost.
        lead_ms: How far the received audio is ahead of real time.
        queued_ms: How much audio the relay holds until it is due.
        accepted: How much audio the relay accepted on this connection, in ticks of the format's clock rate.
        arrival_rate: Speed at which the audio arrived over the last ten seconds, relative to real time. None unless it
            is off by more than 5 %, because the announced format is wrong or the network is too slow.
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
    """The relay's buffer is full and it wants no more audio for now, or it wants audio again.

    Attributes:
        on: Whether to stop sending.
    """

    TYPE = "backpressure"

    on: bool


# Messages from a listener.


def _read_reported(most: float, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_REPORTED_COUNT:
        raise UnusableError
    return min(float(value), most)


_REPORTED_MS = on_wire(read=partial(_read_reported, MAX_REPORTED_MS))
_REPORTED_COUNT = on_wire(read=lambda value: int(_read_reported(MAX_REPORTED_COUNT, value)))


@dataclass(frozen=True, slots=True)
class ListenerReport(Message):
    """A player's report of what its user hears, sent every 5 s during playback.

    Attributes:
        buffer_ms: Audio buffered in the player.
        playout_ms: Delay from a frame's due time until it is heard.
        underruns: How often the buffer ran empty since playback began.
        jumps: How often the player skipped or repeated audio since playback began.
    """

    TYPE = "stats"

    buffer_ms: float = field(metadata=_REPORTED_MS)
    playout_ms: float = field(metadata=_REPORTED_MS)
    underruns: int = field(metadata=_REPORTED_COUNT)
    jumps: int = field(metadata=_REPORTED_COUNT)


@dataclass(frozen=True, slots=True)
class Switch(Message):
    """A listener switches to another channel of its session, to another codec, or both.

    The answer is a new `hello`, or an `error` with 4504.

    Attributes:
        channel: The channel's id. None for the present channel.
        codec: The codecs that the client plays, the best first, separated by commas. None for the same as before.
    """

    TYPE = "switch"
    USAGE = (
        'A switch must name a channel, codecs, or both: {"type": "switch", "channel": "de", "codec": "opus,pcm_s16le"}.'
    )

    channel: str | None = None
    codec: str | None = None


def _read_milliseconds(value: object) -> int:
    if (milliseconds := read_exactly(int, value)) < 0:
        raise UnusableError
    return min(int(milliseconds), MAX_DELIVERY_MS)


_DELIVERY_MS = on_wire(read=_read_milliseconds)


@dataclass(frozen=True, slots=True)
class DeliveryChange(Message):
    """A listener wants its frames joined in another way. The answer is the same message with what the relay grants.

    Attributes:
        coalesce_ms: The interval over which the relay joins frames into one write. None leaves it as it is.
        packet_ms: How much audio frames may have that share one message. None leaves it as it is.
    """

    TYPE = "delivery"
    USAGE = 'A delivery has whole milliseconds from 0: {"type": "delivery", "coalesce_ms": 40, "packet_ms": 60}.'

    coalesce_ms: int | None = field(default=None, metadata=_DELIVERY_MS)
    packet_ms: int | None = field(default=None, metadata=_DELIVERY_MS)


# Messages from a broadcaster.


@dataclass(frozen=True, slots=True)
class Mute(Message):
    """The broadcaster starts or stops sending silence on purpose.

    Attributes:
        on: Whether the silence starts.
    """

    TYPE = "mute"
    USAGE = 'A mute must say whether it is on: {"type": "mute", "on": true}.'

    on: bool


@dataclass(frozen=True, slots=True)
class Pause(Message):
    """The broadcaster leaves and will return. The relay informs the listeners, and they stay connected."""

    TYPE = "pause"


@dataclass(frozen=True, slots=True)
class End(Message):
    """The broadcaster ends the channel. Listeners receive the remaining audio, then the relay closes them with 1000."""

    TYPE = "end"


# Which side sends what.

ListenerMessage = (
    Hello | Channels | FormatChange | StateChange | Gap | Clear | DeliveryChange | Pong | Goaway | ErrorNotice
)
ListenerEvent = ListenerMessage | Audio
"""A message or frame from the relay to a listener."""

BroadcasterEvent = Audience | Backpressure | Goaway | Pong | ErrorNotice
"""A message from the relay to a broadcaster after its hello."""

TO_LISTENER: tuple[type[ListenerMessage], ...] = get_args(ListenerMessage)
TO_BROADCASTER: tuple[type[BroadcasterHello | BroadcasterEvent], ...] = (BroadcasterHello, *get_args(BroadcasterEvent))
FROM_LISTENER: tuple[type[Message], ...] = (Ping, ListenerReport, Switch, DeliveryChange)
FROM_BROADCASTER: tuple[type[Message], ...] = (Ping, Clear, Mute, Pause, End)

_TO_LISTENER = {kind.TYPE: kind for kind in TO_LISTENER}
_TO_BROADCASTER: dict[str, type[BroadcasterEvent]] = {kind.TYPE: kind for kind in get_args(BroadcasterEvent)}


def read_listener_event(message: str | bytes) -> ListenerEvent | None:
    """Read a message or frame from the relay to a listener. Return None if its type is unknown.

    Raises:
        PolicyError: The message violates the protocol. The text says how.
    """
    if isinstance(message, bytes):
        return Audio(Header.unpack(message), message[HEADER_BYTES:])
    control = decode(message, MAX_RELAY_TEXT_BYTES)
    kind = _TO_LISTENER.get(control["type"])
    return None if kind is None else kind.read(control)


def check_protocol(hello: ControlMessage) -> None:
    """Reject the hello of a relay that speaks another protocol.

    Raises:
        PolicyError: `protocol` is not the one that this implementation speaks.
    """
    spoken = hello.get("protocol")
    if spoken != SUBPROTOCOL:
        raise PolicyError(
            f"The relay speaks {spoken!r}, but this client speaks {SUBPROTOCOL}; use versions that match."
        )


def read_broadcaster_event(message: str | bytes) -> BroadcasterEvent | None:
    """Read a message from the relay to a broadcaster after its hello. Return None if its type is unknown.

    Raises:
        PolicyError: The message violates the protocol. The text says how.
    """
    if isinstance(message, bytes):
        return None
    control = decode(message, MAX_RELAY_TEXT_BYTES)
    kind = _TO_BROADCASTER.get(control["type"])
    return None if kind is None else kind.read(control)
