"""What a relay tells a listener, read into typed events.

Invariant: reading is pure, and a message of an unknown type is no event and no error, so that an older client
understands a newer relay.

Source: docs/protocol.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

from relay.core.channel import ChannelState, Silence
from relay.core.messages import ChannelEntry, ControlMessage, read_format
from relay.core.shared_events import (
    ErrorNotice,
    Goaway,
    Pong,
    read_control,
    read_error,
    read_goaway,
    read_member,
    read_optional,
    read_pong,
)
from relay.core.wire import HEADER_BYTES, Header
from relay.vocabulary.audio import AudioFormat, Pace
from relay.vocabulary.errors import PolicyError
from relay.vocabulary.names import DEFAULT_CHANNEL


@dataclass(frozen=True, slots=True)
class Hello:
    """The greeting, always the first event, and once more after a switch of channels.

    Attributes:
        connection_id: The relay's name of this connection.
        state: Of the channel.
        audio_format: What the audio is; None while no broadcaster has said.
        epoch: Which run of numbers the next frame belongs to.
        next_seq: The first frame that this connection accounts for.
        channel: Its id.
        channels: All channels of the session; empty when the relay does not say.
        pace: What the broadcaster produces; in `SPEECH`, audio comes before it is due.
        clock_ms: The relay's clock, in milliseconds, 32 bits.
        buffer_ms: The bound on the age of what is sent, as the relay grants it.
        coalesce_ms: How long frames wait for each other, likewise.
        resumed: Whether it goes on where the client asked.
        silence: Why there is nothing to hear; None when there is, or when nobody said.
    """

    connection_id: str
    state: ChannelState
    audio_format: AudioFormat | None
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


@dataclass(frozen=True, slots=True)
class StateChange:
    """The channel is in another state, or silent for another reason; the members are those of the hello."""

    state: ChannelState
    pace: Pace = Pace.LIVE
    silence: Silence | None = None


@dataclass(frozen=True, slots=True)
class FormatChange:
    """The audio that follows has this format, and `epoch` numbers it, from 0 on."""

    audio_format: AudioFormat
    epoch: int


@dataclass(frozen=True, slots=True)
class Channels:
    """The list of the session's channels is another now."""

    channels: tuple[ChannelEntry, ...]


@dataclass(frozen=True, slots=True)
class Clear:
    """What was received and not played yet is to be thrown away."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames that this listener does not get.

    Attributes:
        epoch: Of the frames.
        from_seq: The first of them.
        to_seq: The last of them.
        duration_ms: How much audio they held.
        reason: One word of the protocol, for example `overflow`.
    """

    epoch: int
    from_seq: int
    to_seq: int
    duration_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class Audio:
    """One frame: its header and its payload."""

    header: Header
    payload: bytes


@dataclass(frozen=True, slots=True)
class UnknownLoss:
    """Frames may be missing here, and nobody can tell how many.

    Attributes:
        reason: `restart`: the relay does not know what this listener had, since it was restarted or has forgotten
            the channel; `untold`: the numbers have a hole that the relay did not tell.
    """

    reason: str


ListenerEvent = Hello | StateChange | FormatChange | Gap | Audio | Channels | Clear | Goaway | Pong | ErrorNotice
"""What a relay tells."""


def read_listener_event(message: str | bytes) -> ListenerEvent | None:
    """Read one WebSocket message from a relay; None for a type that this implementation does not know.

    Raises:
        PolicyError: The message is not of the protocol; the text says what is wrong with it.
    """
    if isinstance(message, bytes):
        return Audio(Header.unpack(message), message[HEADER_BYTES:])
    control = read_control(message)
    reader = _READERS.get(control["type"])
    return None if reader is None else reader(control)


def read_hello(message: ControlMessage) -> Hello:
    """Read the greeting of a listener.

    Raises:
        PolicyError: A member is missing or of another type.
    """
    state = _read_state(message)
    return Hello(
        read_member(message, "connection_id", str),
        state.state,
        read_format(message.get("format")),
        read_member(message, "epoch", int),
        read_member(message, "next_seq", int),
        read_optional(message, "channel", DEFAULT_CHANNEL),
        _read_channel_list(message),
        state.pace,
        read_optional(message, "clock_ms", 0),
        read_optional(message, "buffer_ms", 0),
        read_optional(message, "coalesce_ms", 0),
        read_optional(message, "resumed", default=False),
        state.silence,
    )


def _read_state(message: ControlMessage) -> StateChange:
    state = read_member(message, "state", str)
    try:
        return StateChange(ChannelState(state), _read_pace(message), _read_silence(message))
    except ValueError as error:
        raise PolicyError(f"The state {state!r} is not one that this implementation knows.") from error


def _read_silence(message: ControlMessage) -> Silence | None:
    """Read why there is nothing to hear; a reason that a newer relay may know is none."""
    reason = message.get("silence")
    return Silence(reason) if reason in list(Silence) else None


def _read_pace(message: ControlMessage) -> Pace:
    pace = read_optional(message, "pace", Pace.LIVE.value)
    try:
        return Pace(pace)
    except ValueError as error:
        raise PolicyError(f"The pace {pace!r} is not one that this implementation knows.") from error


def _read_format_change(message: ControlMessage) -> FormatChange:
    audio_format = read_format(message.get("format"))
    if audio_format is None:
        raise PolicyError("A format message names no format.")
    return FormatChange(audio_format, read_member(message, "epoch", int))


def _read_gap(message: ControlMessage) -> Gap:
    return Gap(
        read_member(message, "epoch", int),
        read_member(message, "from_seq", int),
        read_member(message, "to_seq", int),
        _read_duration(message),
        read_member(message, "reason", str),
    )


def _read_duration(message: ControlMessage) -> float:
    value = message.get("duration_ms")
    return float(value) if isinstance(value, int) else read_member(message, "duration_ms", float)


def _read_channels(message: ControlMessage) -> Channels:
    return Channels(_read_channel_list(message))


def _read_channel_list(message: ControlMessage) -> tuple[ChannelEntry, ...]:
    entries = read_optional(message, "channels", list[object]())
    return tuple(
        _read_channel_entry({"type": message["type"], **entry}) for entry in entries if isinstance(entry, dict)
    )


def _read_channel_entry(entry: ControlMessage) -> ChannelEntry:
    channel_id = read_member(entry, "id", str)
    return ChannelEntry(
        channel_id,
        read_optional(entry, "name", channel_id),
        None if entry.get("lang") is None else read_member(entry, "lang", str),
        read_optional(entry, "state", ChannelState.WAITING.value),
    )


def _read_clear(_message: ControlMessage) -> Clear:
    return Clear()


_READERS: dict[str, Callable[[ControlMessage], ListenerEvent]] = {
    "hello": read_hello,
    "state": _read_state,
    "format": _read_format_change,
    "gap": _read_gap,
    "channels": _read_channels,
    "clear": _read_clear,
    "goaway": read_goaway,
    "pong": read_pong,
    "error": read_error,
}
