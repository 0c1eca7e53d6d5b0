"""What a relay tells a broadcaster, read into typed events.

Invariant: reading is pure, and a message of an unknown type is no event and no error, so that an older client
understands a newer relay.

Source: docs/protocol.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

from relay.protocol.messages import ControlMessage
from relay.protocol.shared_events import (
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


@dataclass(frozen=True, slots=True)
class Audience:
    """What became of the audio, as the relay counts it (`stats` on the wire).

    Attributes:
        listeners: How many listen to the channel now.
        dropped_frames: What those of them lost.
        lead_ms: How far the audio that was sent is ahead of real time.
        queued_ms: How much of it the relay holds until it is due.
        accepted: How much was taken of what came on this connection, in ticks of the format's clock rate.
        arrival_rate: How many times as fast as real time the audio has come for ten seconds, when that is off by more
            than 5 % (its format was announced wrongly, or the network is too slow); else None.
    """

    listeners: int
    dropped_frames: int = 0
    lead_ms: float = 0.0
    queued_ms: float = 0.0
    accepted: int = 0
    arrival_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Backpressure:
    """The relay holds enough and wants no more audio for now, or wants it again."""

    on: bool


BroadcasterEvent = Audience | Backpressure | Goaway | Pong | ErrorNotice
"""What a relay tells after its greeting."""


def read_broadcaster_event(message: str | bytes) -> BroadcasterEvent | None:
    """Read one WebSocket message from a relay; None for what this implementation does not know.

    Raises:
        PolicyError: The message is not of the protocol; the text says what is wrong with it.
    """
    if isinstance(message, bytes):
        return None
    control = read_control(message)
    reader = _READERS.get(control["type"])
    return None if reader is None else reader(control)


def _read_audience(message: ControlMessage) -> Audience:
    return Audience(
        read_member(message, "listeners", int),
        read_optional(message, "dropped_frames", 0),
        _read_number(message, "lead_ms"),
        _read_number(message, "queued_ms"),
        read_member(message, "accepted", int),
        None if message.get("arrival_rate") is None else _read_number(message, "arrival_rate"),
    )


def _read_number(message: ControlMessage, name: str) -> float:
    value = message.get(name)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else read_optional(message, name, 0.0)


def _read_backpressure(message: ControlMessage) -> Backpressure:
    return Backpressure(read_member(message, "on", bool))


_READERS: dict[str, Callable[[ControlMessage], BroadcasterEvent]] = {
    "stats": _read_audience,
    "backpressure": _read_backpressure,
    "goaway": read_goaway,
    "pong": read_pong,
    "error": read_error,
}
