"""Rates: how much of something a peer does in a time, against what it may. Time is an argument, in seconds.

Invariants: a budget that was left alone for its burst is full again, and never fuller; what is older than a window
does not count; no more than `max_addresses` are remembered, whatever the number of attackers.
"""

import math

_ROUNDING_SECONDS = 1e-6
"""What sums of fractions may be off by."""


class Budget:
    """A token bucket: a rate, and a burst of what that rate gives in some seconds.

    It is kept as the moment until which what was spent lasts at the rate (the "generic cell rate algorithm" of ITU-T
    I.371, annex A), so it is one number, and the rate may change at any time.
    """

    __slots__ = ("_spent_until",)

    def __init__(self) -> None:
        """Make a full one."""
        self._spent_until = -math.inf

    def spend(self, now: float, per_second: float | None, burst_seconds: float) -> float:
        """Spend one unit, whether or not there is one.

        Args:
            now: The present time.
            per_second: Units that it gains in a second; None for without limit.
            burst_seconds: It holds as much as it gains in this time.

        Returns:
            Seconds until the budget is no longer overdrawn; 0 when it is not.
        """
        if per_second is None:
            return 0.0
        self._spent_until = max(self._spent_until, now) + 1 / per_second
        return self.overdrawn_seconds(now, burst_seconds)

    def has(self, now: float, per_second: float | None, burst_seconds: float) -> bool:
        """Tell whether one unit could be spent without overdrawing it; the arguments are those of `spend`."""
        if per_second is None:
            return True
        return max(self._spent_until, now) + 1 / per_second - now - burst_seconds <= _ROUNDING_SECONDS

    def overdrawn_seconds(self, now: float, burst_seconds: float) -> float:
        """Give the seconds until the budget is no longer overdrawn; 0 when it is not."""
        over_seconds = self._spent_until - now - burst_seconds
        return over_seconds if over_seconds > _ROUNDING_SECONDS else 0.0


class AddressBudgets:
    """A budget for each address. When too many are remembered, the ones that spent longest ago are full again."""

    def __init__(self, max_addresses: int) -> None:
        """Make it; `max_addresses` is how many are remembered."""
        self._max_addresses = max_addresses
        self._budgets: dict[str, Budget] = {}

    def __len__(self) -> int:
        """Give how many addresses are remembered."""
        return len(self._budgets)

    def of(self, address: str) -> Budget:
        """Give the budget of an address that is about to spend."""
        # Written anew, so the dictionary is in the order in which the addresses spent last.
        budget = self._budgets.pop(address) if address in self._budgets else Budget()
        self._budgets[address] = budget
        if len(self._budgets) > self._max_addresses:
            del self._budgets[next(iter(self._budgets))]
        return budget


class SlidingCounts:
    """How often each address did something within a window that ends now.

    Two counts for each address, of the present part of the clock and of the one before, which counts by as much of it
    as the window still covers. When too many addresses are remembered, the ones that were seen longest ago go.
    """

    def __init__(self, window_seconds: float, max_addresses: int) -> None:
        """Make it.

        Args:
            window_seconds: Length of the window.
            max_addresses: How many addresses are remembered.
        """
        self._window_seconds = window_seconds
        self._max_addresses = max_addresses
        self._counts: dict[str, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        """Give how many addresses are remembered."""
        return len(self._counts)

    def add(self, address: str, now: float) -> float:
        """Count one more, and give how many there are in the window."""
        part = math.floor(now / self._window_seconds)
        before, present = self._in_part(address, part)
        # Written anew, so the dictionary is in the order in which the addresses were seen last.
        self._counts.pop(address, None)
        self._counts[address] = (part, before, present + 1)
        if len(self._counts) > self._max_addresses:
            del self._counts[next(iter(self._counts))]
        return self.count(address, now)

    def count(self, address: str, now: float) -> float:
        """Give how many there are in the window."""
        part, passed = divmod(now / self._window_seconds, 1)
        before, present = self._in_part(address, math.floor(part))
        return before * (1 - passed) + present

    def _in_part(self, address: str, part: int) -> tuple[int, int]:
        """Give the counts of the part before `part`, and of `part` itself."""
        then, before, present = self._counts.get(address, (part, 0, 0))
        if then == part:
            return before, present
        return (present, 0) if then == part - 1 else (0, 0)


class Smoothed:
    """A value that follows what is measured with a delay, so that a hiccup is not taken for a state.

    Attributes:
        value: What it is now.
    """

    __slots__ = ("_seconds", "value")

    def __init__(self, seconds: float) -> None:
        """Make one at 0.

        Args:
            seconds: After a step of what is measured, it has gone two thirds of the way in this time.
        """
        self._seconds = seconds
        self.value = 0.0

    def take(self, measured: float, lasted_seconds: float) -> float:
        """Take a measurement of the last `lasted_seconds`, and give the new value."""
        self.value += (measured - self.value) * (1 - math.exp(-lasted_seconds / self._seconds))
        return self.value
