"""Count and log the end of each WebSocket: which client it was, and why it ended.

Invariants: each end is counted once and logged once, whatever the reason. A client that simply leaves is logged at
level debug. The log summarizes repeated lines.
"""

import logging

from relay.server.connection import RelayConnection
from relay.server.endings import NO_FRAME, By, Closing, Endings

logger = logging.getLogger(__name__)


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
        return Closing(NO_FRAME, because, By.RELAY)
    return Closing(NO_FRAME, _sentence(because or loss), By.NETWORK)


def _sentence(loss: Exception | None) -> str:
    """Describe the loss of a connection that the peer did not close. Omit the number of a system error."""
    if loss is None:
        return "The connection ended without a close frame."
    return getattr(loss, "strerror", None) or str(loss) or type(loss).__name__
