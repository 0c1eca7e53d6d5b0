"""Ids of sessions and channels, and the addresses made of them.

Source: the wire protocol. An id is 1–64 of `A–Z a–z 0–9 . _ ~ -`, not dots alone, and is never percent-decoded.
"""

import re
from dataclasses import dataclass

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.text import quoted

DEFAULT_CHANNEL = "main"
"""The channel when none is named."""

_PATTERN = re.compile(r"[A-Za-z0-9._~*-]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)


def check_name(kind: str, name: str) -> str:
    """Return `name` if it is a valid id of a session or a channel.

    Args:
        kind: "session" or "channel", for the text of the error.
        name: The raw path segment.

    Raises:
        BadRequestError: The name is empty or too long, has a forbidden character, or is dots alone.
    """
    if _NAME.fullmatch(name) is None or not name.strip("."):
        raise BadRequestError(
            f"The {kind} id {quoted(name)} must have 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -, and not only dots."
        )
    return name


def is_pattern(text: str) -> bool:
    """Return whether the text is a valid pattern of ids, in which `*` stands for any characters."""
    return _PATTERN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ChannelAddress:
    """One channel of one session: the unit of fan-out. As text it is `session/channel`."""

    session: str
    channel: str = DEFAULT_CHANNEL

    def __post_init__(self) -> None:
        """Check both ids.

        Raises:
            BadRequestError: One of them is not valid.
        """
        check_name("session", self.session)
        check_name("channel", self.channel)

    def __str__(self) -> str:
        return f"{self.session}/{self.channel}"
