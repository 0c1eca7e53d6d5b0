"""What a relay tells listeners and broadcasters alike, read into typed events, and how a message's members are read.

Invariant: reading is pure.

Source: docs/protocol.md.
"""

from dataclasses import dataclass
from typing import TypeVar

from relay.protocol.messages import ControlMessage, decode
from relay.protocol.wire import SUBPROTOCOL
from relay.vocabulary.errors import PolicyError

T = TypeVar("T")

LONGEST_ASKED_SECONDS = 3600
"""A relay that asks a client to stay away for longer counts as asking for this."""

MAX_RELAY_TEXT_BYTES = 64 * 1024
"""The longest control message that a client reads: a greeting lists all channels of its session."""


@dataclass(frozen=True, slots=True)
class ErrorNotice:
    """Something that the relay objects to; a close follows or does not.

    Attributes:
        code: The close code it goes with.
        message: One sentence for a person.
    """

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Goaway:
    """The relay is about to close the connection.

    Attributes:
        reconnect_after_ms: How long it asks its client to stay away after the close.
    """

    reconnect_after_ms: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a `ping`.

    Attributes:
        ping_id: What the ping gave as its `id`.
        clock_ms: The relay's clock at the answer, in milliseconds, 32 bits.
    """

    ping_id: int
    clock_ms: int


def read_control(text: str) -> ControlMessage:
    """Read a control message from a relay.

    Raises:
        PolicyError: It is over 64 KiB, or not an object with a `type`.
    """
    return decode(text, MAX_RELAY_TEXT_BYTES)


def check_protocol(hello: ControlMessage) -> None:
    """Refuse the greeting of a relay that speaks something else.

    Raises:
        PolicyError: `protocol` is not the one that this implementation speaks.
    """
    spoken = hello.get("protocol")
    if spoken != SUBPROTOCOL:
        raise PolicyError(f"The relay speaks {spoken!r}, and this client speaks {SUBPROTOCOL}.")


def read_error(message: ControlMessage) -> ErrorNotice:
    """Read an `error`.

    Raises:
        PolicyError: A member is missing or of another type.
    """
    return ErrorNotice(read_member(message, "code", int), read_member(message, "message", str))


def read_goaway(message: ControlMessage) -> Goaway:
    """Read a `goaway`; a delay below 0 is none, and none is over an hour.

    Raises:
        PolicyError: A member is missing or of another type.
    """
    return Goaway(min(max(0, read_member(message, "reconnect_after_ms", int)), LONGEST_ASKED_SECONDS * 1000))


def read_pong(message: ControlMessage) -> Pong:
    """Read a `pong`.

    Raises:
        PolicyError: A member is missing or of another type.
    """
    return Pong(read_member(message, "id", int), read_member(message, "clock_ms", int))


def read_member(message: ControlMessage, name: str, kind: type[T]) -> T:
    """Give a member of a message that must be there.

    Raises:
        PolicyError: It is not, or it is of another type.
    """
    value = message.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise PolicyError(f"The {message['type']} message has no usable {name!r}.")
    return value


def read_optional(message: ControlMessage, name: str, default: T) -> T:
    """Give a member that older relays do not send.

    Raises:
        PolicyError: It is there, and of another type than the default.
    """
    return default if message.get(name) is None else read_member(message, name, type(default))
