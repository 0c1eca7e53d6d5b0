"""The limits in force and how often each was applied, told in the log."""

import asyncio
import logging
from collections import Counter

from relay.core.limits.names import Limit, LimitCounters, LimitReachedError, Rate
from relay.core.limits.rates import AddressBudgets, Budget
from relay.vocabulary.clock import Clock, relay_clock
from relay.vocabulary.settings import LimitSettings

SUMMARY_SECONDS = 10.0
"""How often the log tells what was applied: one line, however many clients were concerned."""

MAX_REMEMBERED_ADDRESSES = 10_000
"""Addresses whose budgets are remembered, of each rate: a megabyte or two."""

NAMED_ADDRESSES = 5
"""Addresses that the summary names: those that reached a limit of their own most often."""

logger = logging.getLogger(__name__)


class LimitsInForce:
    """What everybody who applies a limit shares.

    Attributes:
        settings: The limits; may be replaced at any time, and then hold for those inside, too.
        counters: How often each was applied since the relay started.
    """

    def __init__(self, settings: LimitSettings, clock: Clock = relay_clock) -> None:
        """Make them, with nothing counted and nothing spent; `clock` gives seconds."""
        self.settings = settings
        self.counters = LimitCounters()
        self._clock = clock
        self._told = LimitCounters()
        self._limited = Counter[str]()
        self._of_addresses: dict[Limit, AddressBudgets] = {}
        self._of_all: dict[Limit, Budget] = {}

    def most(self, limit: Limit) -> int | None:
        """Give what a limit is set to; None is without limit."""
        value: int | None = getattr(self.settings, limit)
        return value

    def applied(self, limit: Limit, address: str | None = None) -> None:
        """Count that a limit was applied once, where it is known, to an address (or the group that counts as one)."""
        self.counters[limit] += 1
        if address is not None and (address in self._limited or len(self._limited) < MAX_REMEMBERED_ADDRESSES):
            self._limited[address] += 1

    def charge(self, rate: Rate, group: str | None) -> None:
        """Let something happen once, if the rate allows it.

        Args:
            rate: Of what.
            group: Of the client's address; None when it is not known.

        Raises:
            LimitReachedError: It does not; nothing was spent, and the limit is counted.
        """
        now = self._clock()
        charged: list[tuple[Limit, Budget]] = []
        if group is not None:
            charged.append((rate.per_address, self._budget(rate, group)))
        if rate.in_all is not None:
            charged.append((rate.in_all, self._of_all.setdefault(rate.in_all, Budget())))
        for limit, budget in charged:
            if not budget.has(now, self.most(limit), rate.burst_seconds):
                self.applied(limit, group if limit is rate.per_address else None)
                raise LimitReachedError(limit)
        for limit, budget in charged:
            budget.spend(now, self.most(limit), rate.burst_seconds)

    def overdraw(self, rate: Rate, group: str | None) -> float:
        """Note that something happened that can not be refused; gives how many seconds its peer has to wait now.

        Nobody waits as long as the address keeps to its rate. The limit is counted when somebody has to.
        """
        if group is None:
            return 0.0
        budget, most = self._budget(rate, group), self.most(rate.per_address)
        wait_seconds = budget.spend(self._clock(), most, rate.burst_seconds)
        if wait_seconds:
            self.applied(rate.per_address, group)
        return wait_seconds

    async def run(self) -> None:
        """Tell for ever, at intervals, what was applied since the last time; nothing when nothing was."""
        while True:
            await asyncio.sleep(SUMMARY_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Tell what was applied since the last time, and to which addresses most."""
        news = self.counters - self._told
        if news:
            counts: dict[str, object] = {limit.value: count for limit, count in news.items()}
            if self._limited:
                counts["addresses"] = [address for address, _ in self._limited.most_common(NAMED_ADDRESSES)]
            logger.warning("limits were applied", extra=counts)
            self._told = self.counters.copy()
        self._limited.clear()

    def _budget(self, rate: Rate, group: str) -> Budget:
        budgets = self._of_addresses.get(rate.per_address)
        if budgets is None:
            budgets = self._of_addresses[rate.per_address] = AddressBudgets(MAX_REMEMBERED_ADDRESSES)
        return budgets.of(group)
