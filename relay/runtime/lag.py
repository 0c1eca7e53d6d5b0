"""How late the relay is: what a new listener would make worse for everybody inside."""

import asyncio

from relay.core.distribution import Distribution
from relay.core.limits.rates import Smoothed
from relay.vocabulary.clock import Clock

SAMPLE_SECONDS = 0.05
"""How often the event loop is looked at."""

SMOOTHING_SECONDS = 2.0
"""A hiccup of less than this is not a state."""


class LagMeter:
    """Measures how late the event loop wakes a task; everything else on it is as late.

    Attributes:
        every_ms: How late each wake-up was, in milliseconds.
    """

    def __init__(self, clock: Clock) -> None:
        """Make it; `run` is its task."""
        self._clock = clock
        self._lag = Smoothed(SMOOTHING_SECONDS)
        self.every_ms = Distribution()

    @property
    def lag_ms(self) -> float:
        """How late things are now, smoothed."""
        return self._lag.value * 1000

    async def run(self) -> None:
        """Measure for ever."""
        before = self._clock()
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            now = self._clock()
            late_seconds = max(0.0, now - before - SAMPLE_SECONDS)
            self._lag.take(late_seconds, now - before)
            self.every_ms.note(late_seconds * 1000)
            before = now
