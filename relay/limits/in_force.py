"""The limits in force and how often each was applied, told in the log."""

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
"""How often the log tells what was applied: one line, however many clients were concerned."""

MAX_REMEMBERED_ADDRESSES = 10_000
"""Addresses whose budgets are remembered, of each rate: a megabyte or two."""

MAX_COUNTED_ADDRESSES = 1000
"""Addresses that are counted between two summaries; of more, the later ones are only counted under their limit."""

MAX_TOLD_ADDRESSES = 5
"""Addresses that a summary names for each reason: those that were most often concerned."""

_NOT_TOLD = frozenset({TlsFault.TLS_LEFT})
"""What is only counted: load balancers do it every few seconds."""

logger = logging.getLogger(__name__)


class LimitsInForce:
    """What everybody who applies a limit shares.

    Attributes:
        settings: The limits; may be replaced at any time, and then hold for those inside, too.
        counters: How often each was applied since the relay started.
        unreadable: How many requests were refused because they can't be read, by what is wrong with them, likewise.
        failed_handshakes: How many connections ended before TLS was agreed on, by the reason, likewise.
    """

    def __init__(self, settings: LimitSettings, clock: Clock = relay_clock) -> None:
        """Make them, with nothing counted and nothing spent; `clock` gives seconds."""
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
        """Give what a limit is set to; None is without limit."""
        value: int | None = getattr(self.settings, limit)
        return value

    def applied(self, limit: Limit, address: str = "") -> None:
        """Count that a limit was applied once; where it is known, to an address or the group that counts as one."""
        self.counters[limit] += 1
        self._count_address(limit, address)

    def could_not_read(self, fault: Fault, address: str) -> None:
        """Count that a request of an address was refused because it can't be read."""
        self.unreadable[fault] += 1
        self._count_address(fault, address)

    def could_not_agree(self, fault: TlsFault, address: str) -> None:
        """Count that a connection of an address ended before TLS was agreed on."""
        self.failed_handshakes[fault] += 1
        if fault not in _NOT_TOLD:
            self._count_address(fault, address)

    def _count_address(self, reason: str, address: str) -> None:
        counted = (str(reason), address)
        if address and (counted in self._addresses or len(self._addresses) < MAX_COUNTED_ADDRESSES):
            self._addresses[counted] += 1

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
                self.applied(limit, group or "" if limit is rate.per_address else "")
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
        """Tell what was applied since the last time, and to which addresses most often."""
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
