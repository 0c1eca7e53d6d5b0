"""How late the relay is. More listeners would make this worse for the present ones."""

import asyncio
from collections.abc import Callable

from relay.limits.rates import Smoothed
from relay.metrics.distribution import Distribution
from relay.vocabulary.clock import Clock

SAMPLE_SECONDS = 0.05
"""How often the event loop's lag is measured."""

SMOOTHING_SECONDS = 2.0
"""The time constant of smoothing. A shorter hiccup is not a state."""


class LagMeter:
    """Measures how late the event loop wakes a task, and how long the drain takes to serve a channel's listeners.

    Either is how much longer the last listener of a channel waits than the first. The larger value counts. `run` is its
    task.

    Args:
        clock: Returns seconds.
        busy_seconds: Returns the age of the oldest unfinished turn of the drain; 0 for none.

    Attributes:
        every_ms: The delays of all wake-ups, in milliseconds.
    """

    def __init__(self, clock: Clock, busy_seconds: Callable[[], float]) -> None:
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._lag = Smoothed(SMOOTHING_SECONDS)
        self.every_ms = Distribution()
        self._sampled_at = clock()

    @property
    def lag_ms(self) -> float:
        """The present lag, smoothed."""
        return self._lag.value * 1000

    async def run(self) -> None:
        """Measure forever."""
        self._sampled_at = self._clock()
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.sample()

    def sample(self) -> None:
        """Measure once. If nothing is late, the last time was `SAMPLE_SECONDS` ago."""
        now = self._clock()
        lasted_seconds = now - self._sampled_at
        self._sampled_at = now
        late_seconds = max(0.0, lasted_seconds - SAMPLE_SECONDS)
        self.every_ms.note(late_seconds * 1000)
        self._lag.take(max(late_seconds, self._busy_seconds()), lasted_seconds)
