"""How connections ended: the HTTP status, or the close code with its reason and the side that closed. No I/O.

Invariant: the counters have a bounded number of keys, whatever codes peers send.

Source of the codes: RFC 6455 section 7.4, IANA's registry of WebSocket close codes, docs/protocol.md.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import CloseCode

NO_CODE = 1005
"""The close frame had no code, which is a browser's default."""

FIRST_OF_THE_RELAY = 4000
"""Codes from here on answer a client that asked for something it cannot have. Lower codes mean that something is
wrong."""

_KNOWN_CODES = frozenset(CloseCode) | frozenset(range(1000, 1016))
_OTHER = "other"


class By(StrEnum):
    """The side that ended a connection."""

    PEER = "peer"
    RELAY = "relay"
    NETWORK = "network"


_ORDINARY = {
    By.PEER: frozenset({CloseCode.SESSION_ENDED, CloseCode.GOING_AWAY, NO_CODE}),
    By.RELAY: frozenset({CloseCode.SESSION_ENDED, CloseCode.RESTARTING}),
}


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of one WebSocket, or of an HTTP stream, which has the same codes.

    Attributes:
        code: The code of the first close frame. 1006 if there was none.
        reason: The reason in that frame, or what happened to the connection.
        by: The side that ended it.
    """

    code: int
    reason: str
    by: By

    @property
    def is_ordinary(self) -> bool:
        """Whether operators can ignore it: the peer left, or the log has already said that all clients are leaving."""
        return self.code in _ORDINARY.get(self.by, ())

    @property
    def is_fault(self) -> bool:
        """Whether the relay closed it because of a fault, of the peer's or its own."""
        return self.by is By.RELAY and not self.is_ordinary and self.code < FIRST_OF_THE_RELAY


def describe_loss(loss: Exception | None) -> str:
    """Describe the loss of a connection that the peer did not close. Omit the number of a system error."""
    if loss is None:
        return "The connection ended without a close frame."
    return getattr(loss, "strerror", None) or str(loss) or type(loss).__name__


class Endings:
    """Counters of how requests and connections ended.

    Attributes:
        answers: HTTP responses to readable requests, by status.
        closings: Ended WebSockets and HTTP streams, by code and role.
    """

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.closings: Counter[tuple[str, str]] = Counter()

    def note_answer(self, status: int) -> None:
        """Count an HTTP response."""
        self.answers[status] += 1

    def note_closing(self, closing: Closing, role: str) -> None:
        """Count the end of a connection."""
        self.closings[str(int(closing.code)) if closing.code in _KNOWN_CODES else _OTHER, role] += 1
