"""What a relay tells a listener, read into typed events.

Invariant: reading is pure, and a message of an unknown type is no event and no error, so that an older client
understands a newer relay.

Source: docs/protocol.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from relay.core.channel import ChannelState
from relay.core.messages import ControlMessage, decode, read_format
from relay.core.wire import HEADER_BYTES, SUBPROTOCOL, Header
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import PolicyError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hello:
    """The greeting, always the first event.

    Attributes:
        connection_id: The relay's name of this connection.
        state: Of the channel.
        audio_format: What the audio is; None while no broadcaster has said.
        epoch: Which run of numbers the next frame belongs to.
        next_seq: The first frame that this connection accounts for.
    """

    connection_id: str
    state: ChannelState
    audio_format: AudioFormat | None
    epoch: int
    next_seq: int


@dataclass(frozen=True, slots=True)
class StateChange:
    """The channel is in another state."""

    state: ChannelState


@dataclass(frozen=True, slots=True)
class FormatChange:
    """The audio that follows has this format."""

    audio_format: AudioFormat


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
class ErrorNotice:
    """Something that the relay objects to; a close follows or does not.

    Attributes:
        code: The close code it goes with.
        message: One sentence for a person.
    """

    code: int
    message: str


ListenerEvent = Hello | StateChange | FormatChange | Gap | Audio | ErrorNotice


def read_listener_event(message: str | bytes) -> ListenerEvent | None:
    """Read one WebSocket message from a relay; None for a type that this implementation does not know.

    Raises:
        PolicyError: The message is not of the protocol; the text says what is wrong with it.
    """
    if isinstance(message, bytes):
        return Audio(Header.unpack(message), message[HEADER_BYTES:])
    control = decode(message)
    reader = _READERS.get(control["type"])
    return None if reader is None else reader(control)


def check_protocol(hello: ControlMessage) -> None:
    """Refuse the greeting of a relay that speaks something else.

    Raises:
        PolicyError: `protocol` is not the one that this implementation speaks.
    """
    spoken = hello.get("protocol")
    if spoken != SUBPROTOCOL:
        raise PolicyError(f"The relay speaks {spoken!r}, and this client speaks {SUBPROTOCOL}.")


def read_error(message: ControlMessage) -> ErrorNotice:
    """Read an `error`, which broadcasters get as well.

    Raises:
        PolicyError: A member is missing or of another type.
    """
    return ErrorNotice(_member(message, "code", int), _member(message, "message", str))


def read_hello(message: ControlMessage) -> Hello:
    """Read the greeting of a listener.

    Raises:
        PolicyError: A member is missing or of another type.
    """
    return Hello(
        _member(message, "connection_id", str),
        _read_state(message).state,
        read_format(message.get("format")),
        _member(message, "epoch", int),
        _member(message, "next_seq", int),
    )


def _read_state(message: ControlMessage) -> StateChange:
    state = _member(message, "state", str)
    try:
        return StateChange(ChannelState(state))
    except ValueError as error:
        raise PolicyError(f"The state {state!r} is not one that this implementation knows.") from error


def _read_format_change(message: ControlMessage) -> FormatChange:
    audio_format = read_format(message.get("format"))
    if audio_format is None:  # pragma: no cover - only an absent description gives None
        raise PolicyError("A format message names no format.")
    return FormatChange(audio_format)


def _read_gap(message: ControlMessage) -> Gap:
    return Gap(
        _member(message, "epoch", int),
        _member(message, "from_seq", int),
        _member(message, "to_seq", int),
        _read_duration(message),
        _member(message, "reason", str),
    )


def _read_duration(message: ControlMessage) -> float:
    value = message.get("duration_ms")
    return float(value) if isinstance(value, int) else _member(message, "duration_ms", float)


def _member(message: ControlMessage, name: str, kind: type[T]) -> T:
    value = message.get(name)
    if not isinstance(value, kind):
        raise PolicyError(f"The {message['type']} message has no usable {name!r}.")
    return value


_READERS: dict[str, Callable[[ControlMessage], ListenerEvent]] = {
    "hello": read_hello,
    "state": _read_state,
    "format": _read_format_change,
    "gap": _read_gap,
    "error": read_error,
}
