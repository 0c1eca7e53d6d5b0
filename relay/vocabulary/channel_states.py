"""The states of a channel, as listeners see them."""

from enum import StrEnum


class ChannelState(StrEnum):
    """The state of a channel's source, as the relay reports it to listeners."""

    WAITING = "waiting"
    LIVE = "live"
    SOURCE_LOST = "source_lost"
    ENDED = "ended"


class Silence(StrEnum):
    """Why a channel is silent, if its broadcaster said so.

    Attributes:
        MUTED: The broadcaster is connected and sends silence.
        PAUSED: The broadcaster left and intends to return.
    """

    MUTED = "muted"
    PAUSED = "paused"
