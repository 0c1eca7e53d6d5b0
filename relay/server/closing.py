"""Count and log the end of each WebSocket and stream: which client it was, and why it ended.

Invariants: each end is counted once and logged once, whatever the reason. A client that simply leaves is logged at
level debug. The log summarizes repeated lines.
"""

import logging

from relay.server.endings import Endings
from relay.server.served import ServedConnection

logger = logging.getLogger(__name__)


def tell_closing(endings: Endings, connection: ServedConnection, loss: Exception | None) -> None:
    """Count and log the end of a connection. `loss` is the transport's error, if there was one."""
    closing = connection.closing(loss)
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
