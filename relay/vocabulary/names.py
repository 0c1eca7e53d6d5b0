"""Names of sessions and channels, and the addresses made of them.

Source: the wire protocol: 1–64 of `A–Z a–z 0–9 . _ ~ -`, not dots alone, never percent-decoded.
"""

import re
from dataclasses import dataclass

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.text import quoted

DEFAULT_CHANNEL = "main"
"""The channel that is meant when none is named."""

_PATTERN = re.compile(r"[A-Za-z0-9._~*-]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)


def check_name(kind: str, name: str) -> str:
    """Give `name` back when it may name a session or a channel.

    Args:
        kind: "session" or "channel", for the sentence of the error.
        name: The raw path segment.

    Raises:
        BadRequestError: It is empty, too long, has a forbidden character, or is dots alone.
    """
    if _NAME.fullmatch(name) is None or not name.strip("."):
        raise BadRequestError(
            f"The {kind} id {quoted(name)} is not 1 to 64 of the characters A-Z a-z 0-9 . _ ~ - (and not dots alone)."
        )
    return name


def is_pattern(text: str) -> bool:
    """Tell whether a text is of the form of a pattern of names: one in which `*` stands for any characters."""
    return _PATTERN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ChannelAddress:
    """One channel of one session, the unit of fan-out."""

    session: str
    channel: str = DEFAULT_CHANNEL

    def __post_init__(self) -> None:
        """Check both names.

        Raises:
            BadRequestError: One of them is not a name.
        """
        check_name("session", self.session)
        check_name("channel", self.channel)

    def __str__(self) -> str:
        """Give `session/channel`."""
        return f"{self.session}/{self.channel}"
