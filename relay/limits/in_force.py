"""The current limits and how often each was applied. The log summarizes both at intervals."""

import asyncio
import logging
from collections import Counter
from enum import StrEnum

from relay.limits.names import Limit, LimitCounters, LimitReachedError, Rate
from relay.limits.rates import AddressBudgets, Budget
from relay.limits.tls_faults import TlsFault
from relay.protocol.http1 import Fault
from relay.settings.settings import LimitSettings
from relay.vocabulary.clock import Clock, relay_clock

SUMMARY_SECONDS = 10.0
"""Interval of the log's summaries. Each reason takes one line, however many clients were affected."""

MAX_REMEMBERED_ADDRESSES = 10_000
"""Number of addresses whose budgets the relay remembers, for each rate. They take a megabyte or two."""

MAX_COUNTED_ADDRESSES = 1000
"""Number of pairs of reason and address counted between two summaries. Later pairs count only under their limit."""

MAX_TOLD_ADDRESSES = 5
"""Number of addresses that a summary names for each reason, most frequent first."""

_NOT_TOLD = frozenset({TlsFault.TLS_LEFT})
"""These reasons are counted but not logged, because load balancers cause them every few seconds."""

logger = logging.getLogger(__name__)


class LimitsInForce:
    """The limits and counters that all parts of the relay share.

    Attributes:
        settings: The limits. Assigning new settings takes effect immediately, also for connected clients.
        counters: How often each limit was applied since the relay started.
        unreadable: Number of unreadable requests since the relay started, by fault.
        failed_handshakes: Number of connections that ended during the TLS handshake since the relay started, by reason.
    """

    def __init__(self, settings: LimitSettings, clock: Clock = relay_clock) -> None:
        self.settings = settings
        self.counters = LimitCounters()
        self._clock = clock
        self.unreadable: Counter[Fault] = Counter()
        self.failed_handshakes: Counter[TlsFault] = Counter()
        self._told: Counter[StrEnum] = Counter()
        self._addresses: Counter[tuple[str, str]] = Counter()
        self._of_addresses: dict[Limit, AddressBudgets] = {}
        self._of_all: dict[Limit, Budget] = {}

    def most(self, limit: Limit) -> int | None:
        """Return the value of a limit. None means no limit."""
        value: int | None = getattr(self.settings, limit)
        return value

    def applied(self, limit: Limit, address: str = "") -> None:
        """Count that a limit was applied, and the address or group that it was applied to, if known."""
        self.counters[limit] += 1
        self._count_address(limit, address)

    def could_not_read(self, fault: Fault, address: str) -> None:
        """Count an unreadable request from an address."""
        self.unreadable[fault] += 1
        self._count_address(fault, address)

    def could_not_agree(self, fault: TlsFault, address: str) -> None:
        """Count a failed TLS handshake from an address."""
        self.failed_handshakes[fault] += 1
        if fault not in _NOT_TOLD:
            self._count_address(fault, address)

    def _count_address(self, reason: str, address: str) -> None:
        counted = (str(reason), address)
        if address and (counted in self._addresses or len(self._addresses) < MAX_COUNTED_ADDRESSES):
            self._addresses[counted] += 1

    def charge(self, rate: Rate, group: str | None) -> None:
        """Charge one action to the budgets of a rate.

        Args:
            rate: The rate that limits the action.
            group: The group of the client's address. None if unknown.

        Raises:
            LimitReachedError: A budget is used up. Nothing was spent, and the limit was counted.
        """
        now = self._clock()
        charged: list[tuple[Limit, Budget]] = []
        if group is not None:
            charged.append((rate.per_address, self._budget(rate, group)))
        if rate.in_all is not None:
            charged.append((rate.in_all, self._of_all.setdefault(rate.in_all, Budget())))
        for limit, budget in charged:
            if not budget.has(now, self.most(limit), rate.burst_seconds):
                self.applied(limit, group or "" if limit is rate.per_address else "")
                raise LimitReachedError(limit)
        for limit, budget in charged:
            budget.spend(now, self.most(limit), rate.burst_seconds)

    def overdraw(self, rate: Rate, group: str | None) -> float:
        """Charge an action that cannot be refused, and return how many seconds its peer has to wait.

        An address that keeps to its rate waits 0 s. The limit is counted only if the peer has to wait.
        """
        if group is None:
            return 0.0
        budget, most = self._budget(rate, group), self.most(rate.per_address)
        wait_seconds = budget.spend(self._clock(), most, rate.burst_seconds)
        if wait_seconds:
            self.applied(rate.per_address, group)
        return wait_seconds

    async def run(self) -> None:
        """Log a summary at intervals, forever. Skip it if no limit was applied."""
        while True:
            await asyncio.sleep(SUMMARY_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Log how often each limit was applied since the last summary, and to which addresses most often."""
        for sentence, counters in (
            ("limits were applied", self.counters),
            ("requests could not be read", self.unreadable),
            ("TLS handshakes failed", self.failed_handshakes),
        ):
            news = {name: count - self._told[name] for name, count in counters.items() if name not in _NOT_TOLD}
            if any(news.values()):
                logger.warning(sentence, extra={name.value: count for name, count in news.items() if count})
            self._told.update(news)
        told: Counter[str] = Counter()
        for (reason, address), count in self._addresses.most_common():
            if told[reason] < MAX_TOLD_ADDRESSES:
                told[reason] += 1
                logger.warning("an address was refused", extra={"client": address, "reason": reason, "count": count})
        self._addresses.clear()

    def _budget(self, rate: Rate, group: str) -> Budget:
        budgets = self._of_addresses.get(rate.per_address)
        if budgets is None:
            budgets = self._of_addresses[rate.per_address] = AddressBudgets(MAX_REMEMBERED_ADDRESSES)
        return budgets.of(group)
