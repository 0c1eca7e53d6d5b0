"""Log lines about channels: each says which, and how many listen."""

import logging

from relay.hub.live_channel import LiveChannel

logger = logging.getLogger(__name__)


def log_event(live: LiveChannel, event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log what happened to a channel."""
    if logger.isEnabledFor(level):
        logger.log(
            level,
            event,
            extra={
                "session": live.address.session,
                "channel": live.address.channel,
                "listeners": live.listener_count,
                **fields,
            },
        )
