"""The limits in force and how often each was applied, told in the log."""

import asyncio
import logging

from relay.core.limits.names import Limit, LimitCounters
from relay.vocabulary.settings import LimitSettings

SUMMARY_SECONDS = 10.0
"""How often the log tells what was applied: one line, however many clients were concerned."""

logger = logging.getLogger(__name__)


class LimitsInForce:
    """What everybody who applies a limit shares.

    Attributes:
        settings: The limits; may be replaced at any time, and then hold for those inside, too.
        counters: How often each was applied since the relay started.
    """

    def __init__(self, settings: LimitSettings) -> None:
        """Make them, with nothing counted."""
        self.settings = settings
        self.counters = LimitCounters()
        self._told = LimitCounters()

    def most(self, limit: Limit) -> int | None:
        """Give what a limit is set to; None is without limit."""
        value: int | None = getattr(self.settings, limit)
        return value

    def applied(self, limit: Limit) -> None:
        """Count that a limit was applied once."""
        self.counters[limit] += 1

    async def run(self) -> None:
        """Tell for ever, at intervals, what was applied since the last time; nothing when nothing was."""
        while True:
            await asyncio.sleep(SUMMARY_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Tell what was applied since the last time."""
        news = self.counters - self._told
        if news:
            logger.warning("limits were applied", extra={limit.value: count for limit, count in news.items()})
            self._told = self.counters.copy()
