"""The limits in force and how often each was applied, told in the log."""

import asyncio
import logging
from collections import Counter

from relay.core.limits.names import Limit, LimitCounters
from relay.core.request_head import Fault
from relay.vocabulary.settings import LimitSettings

SUMMARY_SECONDS = 10.0
"""How often the log tells what was applied: one line, however many clients were concerned."""

MAX_COUNTED_ADDRESSES = 1000
"""Addresses that are counted between two summaries; of more, the later ones are only counted under their limit."""

MAX_TOLD_ADDRESSES = 5
"""Addresses that a summary names for each reason: those that were most often concerned."""

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
        self._unreadable: Counter[str] = Counter()
        self._addresses: Counter[tuple[str, str]] = Counter()

    def most(self, limit: Limit) -> int | None:
        """Give what a limit is set to; None is without limit."""
        value: int | None = getattr(self.settings, limit)
        return value

    def applied(self, limit: Limit, address: str = "") -> None:
        """Count that a limit was applied once, to an address if that is known."""
        self.counters[limit] += 1
        self._count_address(limit, address)

    def could_not_read(self, fault: Fault, address: str) -> None:
        """Count that a request of an address was refused because it can't be read."""
        self._unreadable[fault.value] += 1
        self._count_address(fault, address)

    def _count_address(self, reason: str, address: str) -> None:
        counted = (str(reason), address)
        if address and (counted in self._addresses or len(self._addresses) < MAX_COUNTED_ADDRESSES):
            self._addresses[counted] += 1

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
        if self._unreadable:
            logger.warning("requests could not be read", extra=dict(self._unreadable))
            self._unreadable.clear()
        told: Counter[str] = Counter()
        for (reason, address), count in self._addresses.most_common():
            if told[reason] < MAX_TOLD_ADDRESSES:
                told[reason] += 1
                logger.warning("an address was refused", extra={"client": address, "reason": reason, "count": count})
        self._addresses.clear()
