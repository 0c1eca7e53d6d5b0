"""How connections ended: with which HTTP answer, or with which close code, by whom and why. Pure.

Invariant: the keys of the counters are bounded, whatever codes peers send.

Source of the codes: RFC 6455 section 7.4, IANA's registry of WebSocket close codes, docs/protocol.md.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import CloseCode

GOING_AWAY, NO_CODE, NO_FRAME = 1001, 1005, 1006
"""The person left the page; the close frame had no code, which is a browser's default; there was no close frame."""

FIRST_OF_THE_RELAY = 4000
"""Codes from here on answer a client that asked for what it can't have; those below say that something is wrong."""

_KNOWN_CODES = frozenset(CloseCode) | frozenset(range(1000, 1016))
_OTHER = "other"


class By(StrEnum):
    """Who ended a connection."""

    PEER = "peer"
    RELAY = "relay"
    NETWORK = "network"


_ORDINARY = {
    By.PEER: frozenset({CloseCode.SESSION_ENDED, GOING_AWAY, NO_CODE}),
    By.RELAY: frozenset({CloseCode.SESSION_ENDED, CloseCode.RESTARTING}),
}


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of one WebSocket.

    Attributes:
        code: Of the close frame that came first; `NO_FRAME` when there was none.
        reason: Of that frame, or what happened to the connection.
        by: Who ended it.
    """

    code: int
    reason: str
    by: By

    @property
    def is_ordinary(self) -> bool:
        """Whether no operator need read of it: the peer left, or the log has said already that everybody leaves."""
        return self.code in _ORDINARY.get(self.by, ())

    @property
    def is_fault(self) -> bool:
        """Whether the relay ended it because something was wrong with the peer, or with the relay."""
        return self.by is By.RELAY and not self.is_ordinary and self.code < FIRST_OF_THE_RELAY


class Endings:
    """Counts them.

    Attributes:
        answers: HTTP answers by status, of requests that could be read.
        closings: WebSockets that ended, by code and role.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self.answers: Counter[int] = Counter()
        self.closings: Counter[tuple[str, str]] = Counter()

    def note_answer(self, status: int) -> None:
        """Count an HTTP answer."""
        self.answers[status] += 1

    def note_closing(self, closing: Closing, role: str) -> None:
        """Count the end of a WebSocket."""
        self.closings[str(int(closing.code)) if closing.code in _KNOWN_CODES else _OTHER, role] += 1
