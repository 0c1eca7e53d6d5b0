"""How connections ended: the HTTP status, or the close code with its reason and the side that closed.

Invariants: each end is counted once and logged once, whatever the reason. The counters have a bounded number of keys,
whatever codes peers send. A client that simply leaves is logged at level debug. The log summarizes repeated lines.

Source of the codes: RFC 6455 section 7.4, IANA's registry of WebSocket close codes, docs/protocol.md.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from relay.server.connection import RelayConnection
from relay.vocabulary.errors import CloseCode

NO_CODE = 1005
"""The close frame had no code, which is a browser's default."""

FIRST_OF_THE_RELAY = 4000
"""Codes from here on answer a client that asked for something it cannot have. Lower codes mean that something is
wrong."""

_KNOWN_CODES = frozenset(CloseCode) | frozenset(range(1000, 1016))
_OTHER = "other"

logger = logging.getLogger(__name__)


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
    """The end of one WebSocket.

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


class Endings:
    """Counters of how requests and connections ended.

    Attributes:
        answers: HTTP responses to readable requests, by status.
        closings: Ended WebSockets, by code and role.
    """

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.closings: Counter[tuple[str, str]] = Counter()

    def note_answer(self, status: int) -> None:
        """Count an HTTP response."""
        self.answers[status] += 1

    def note_closing(self, closing: Closing, role: str) -> None:
        """Count the end of a WebSocket."""
        self.closings[str(int(closing.code)) if closing.code in _KNOWN_CODES else _OTHER, role] += 1


def tell_closing(endings: Endings, connection: RelayConnection, loss: Exception | None) -> None:
    """Count and log the end of a connection. `loss` is the transport's error, if there was one."""
    closing = _read(connection, loss)
    endings.note_closing(closing, connection.role)
    level = logging.WARNING if closing.is_fault else logging.DEBUG if closing.is_ordinary else logging.INFO
    if not logger.isEnabledFor(level):
        return
    address = connection.address
    logger.log(
        level,
        "connection closed",
        extra={
            "connection": connection.id,
            "client": connection.client_address,
            "role": connection.role,
            "session": address and address.session,
            "channel": address and address.channel,
            "code": int(closing.code),
            "reason": closing.reason,
            "by": closing.by,
            "may_repeat": f"{closing.code} {connection.role} by {closing.by}",
        },
    )


def _read(connection: RelayConnection, loss: Exception | None) -> Closing:
    """Determine how a connection ended. The first close frame decides."""
    protocol = connection.protocol
    sent, received = protocol.close_sent, protocol.close_rcvd
    if received is not None and (sent is None or protocol.close_rcvd_then_sent):
        return Closing(received.code, received.reason, By.PEER)
    if sent is not None:
        return Closing(sent.code, sent.reason, By.RELAY)
    because = connection.cut_off_because
    if isinstance(because, str):
        return Closing(CloseCode.CONNECTION_BROKE, because, By.RELAY)
    return Closing(CloseCode.CONNECTION_BROKE, _sentence(because or loss), By.NETWORK)


def _sentence(loss: Exception | None) -> str:
    """Describe the loss of a connection that the peer did not close. Omit the number of a system error."""
    if loss is None:
        return "The connection ended without a close frame."
    return getattr(loss, "strerror", None) or str(loss) or type(loss).__name__
