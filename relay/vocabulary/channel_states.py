"""The states of a channel, as listeners know them."""

from enum import StrEnum


class ChannelState(StrEnum):
    """What listeners are told about the source of a channel."""

    WAITING = "waiting"
    LIVE = "live"
    SOURCE_LOST = "source_lost"
    ENDED = "ended"


class Silence(StrEnum):
    """Why there is nothing to hear, where the broadcaster said so.

    Attributes:
        MUTED: It is there, and sends silence.
        PAUSED: It left, and means to come back.
    """

    MUTED = "muted"
    PAUSED = "paused"
