"""Rates: how often a peer does something in relation to what its limit allows. Time is an argument, in seconds.

Invariants: a budget that nobody spends for its burst period is full, and it never holds more. Events older than a
window do not count. At most `max_addresses` are remembered, however many clients attack.
"""

import math

_ROUNDING_SECONDS = 1e-6
"""Tolerance for rounding errors in sums of fractions."""


class Budget:
    """A token bucket: a rate, and a burst of what that rate yields in some seconds.

    Its only state is the time until which the spent units last at the rate (the "generic cell rate algorithm" of ITU-T
    I.371, annex A). So the rate may change at any time.
    """

    __slots__ = ("_spent_until",)

    def __init__(self) -> None:
        self._spent_until = -math.inf

    def spend(self, now: float, per_second: float | None, burst_seconds: float) -> float:
        """Spend one unit, even if the budget is empty.

        Args:
            now: The current time.
            per_second: Units gained per second. None means no limit.
            burst_seconds: The budget holds at most what it gains in this period.

        Returns:
            Seconds until the budget is no longer overdrawn. 0 if it is not.
        """
        if per_second is None:
            return 0.0
        self._spent_until = max(self._spent_until, now) + 1 / per_second
        return self.overdrawn_seconds(now, burst_seconds)

    def has(self, now: float, per_second: float | None, burst_seconds: float) -> bool:
        """Whether one unit can be spent without overdrawing the budget. The arguments are those of `spend`."""
        if per_second is None:
            return True
        return max(self._spent_until, now) + 1 / per_second - now - burst_seconds <= _ROUNDING_SECONDS

    def overdrawn_seconds(self, now: float, burst_seconds: float) -> float:
        """Return the seconds until the budget is no longer overdrawn. 0 if it is not."""
        over_seconds = self._spent_until - now - burst_seconds
        return over_seconds if over_seconds > _ROUNDING_SECONDS else 0.0


class AddressBudgets:
    """A budget for each of at most `max_addresses` addresses.

    Beyond that, the address that spent longest ago is forgotten, so its budget is full again.
    """

    def __init__(self, max_addresses: int) -> None:
        self._max_addresses = max_addresses
        self._budgets: dict[str, Budget] = {}

    def __len__(self) -> int:
        return len(self._budgets)

    def of(self, address: str) -> Budget:
        """Return the budget of an address that is about to spend."""
        # Reinserting it keeps the dictionary in order of last use.
        budget = self._budgets.pop(address) if address in self._budgets else Budget()
        self._budgets[address] = budget
        if len(self._budgets) > self._max_addresses:
            del self._budgets[next(iter(self._budgets))]
        return budget


class SlidingCounts:
    """How often each address did something within a sliding window.

    Time is divided into periods as long as the window. Each address has two counts: one of the current period, and one
    of the previous period, weighted by the share of it that the window still covers.

    At most `max_addresses` are remembered. Beyond that, the address that was seen longest ago is forgotten.
    """

    def __init__(self, window_seconds: float, max_addresses: int) -> None:
        self._window_seconds = window_seconds
        self._max_addresses = max_addresses
        self._counts: dict[str, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, address: str, now: float) -> float:
        """Count one more, and return the count within the window."""
        part = math.floor(now / self._window_seconds)
        before, present = self._in_part(address, part)
        # Reinserting it keeps the dictionary in order of last use.
        self._counts.pop(address, None)
        self._counts[address] = (part, before, present + 1)
        if len(self._counts) > self._max_addresses:
            del self._counts[next(iter(self._counts))]
        return self.count(address, now)

    def count(self, address: str, now: float) -> float:
        """Return the count within the window."""
        part, passed = divmod(now / self._window_seconds, 1)
        before, present = self._in_part(address, math.floor(part))
        return before * (1 - passed) + present

    def _in_part(self, address: str, part: int) -> tuple[int, int]:
        """Return the counts of the period before `part` and of `part` itself."""
        then, before, present = self._counts.get(address, (part, 0, 0))
        if then == part:
            return before, present
        return (present, 0) if then == part - 1 else (0, 0)


class Smoothed:
    """An exponentially smoothed measurement. It starts at 0, and a brief spike hardly changes it.

    After a step of the measurement, `value` covers two thirds of the way in `seconds`.
    """

    __slots__ = ("_seconds", "value")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.value = 0.0

    def take(self, measured: float, lasted_seconds: float) -> float:
        """Add a measurement that covers the last `lasted_seconds`, and return the new value."""
        self.value += (measured - self.value) * (1 - math.exp(-lasted_seconds / self._seconds))
        return self.value
