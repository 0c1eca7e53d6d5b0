"""How late the relay is: what a new listener would make worse for everybody inside."""

import asyncio
from collections.abc import Callable

from relay.limits.rates import Smoothed
from relay.metrics.distribution import Distribution
from relay.vocabulary.clock import Clock

SAMPLE_SECONDS = 0.05
"""How often the event loop is looked at."""

SMOOTHING_SECONDS = 2.0
"""A hiccup of less than this is not a state."""


class LagMeter:
    """Measures how late the event loop wakes a task, and how long frames are under way to a channel's listeners.

    Either is what the last listener of a channel waits longer than the first; the larger counts.

    Attributes:
        every_ms: How late each wake-up was, in milliseconds.
    """

    def __init__(self, clock: Clock, busy_seconds: Callable[[], float]) -> None:
        """Make it; `run` is its task.

        Args:
            clock: Gives seconds.
            busy_seconds: Gives how long the frames that are being written are under way; 0 for none.
        """
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._lag = Smoothed(SMOOTHING_SECONDS)
        self.every_ms = Distribution()
        self._sampled_at = clock()

    @property
    def lag_ms(self) -> float:
        """How late things are now, smoothed."""
        return self._lag.value * 1000

    async def run(self) -> None:
        """Measure for ever."""
        self._sampled_at = self._clock()
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.sample()

    def sample(self) -> None:
        """Measure once, `SAMPLE_SECONDS` after the last time if nothing is late."""
        now = self._clock()
        lasted_seconds = now - self._sampled_at
        self._sampled_at = now
        late_seconds = max(0.0, lasted_seconds - SAMPLE_SECONDS)
        self.every_ms.note(late_seconds * 1000)
        self._lag.take(max(late_seconds, self._busy_seconds()), lasted_seconds)
