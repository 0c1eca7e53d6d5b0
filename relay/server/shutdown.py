"""How the relay leaves: how long each part of stopping may take, and when whom is told to go. Time is an argument.

Invariants: the parts together are no longer than what the operator allows; listeners leave in random order, spread
over the window, and broadcasters after them, so that nobody who is still there hears silence; those who were told to
come back do not come back together.
"""

from collections.abc import Callable
from dataclasses import dataclass

CUT_OFF_SHARE = 0.1
"""Of the whole time, for what is left of those who did not close: it takes a few turns of the event loop."""

MAX_CUT_OFF_SECONDS = 1.0
"""The most of it, however long the whole is: cutting off waits for nobody."""

FLUSH_SHARE = 0.3
"""Of the whole time, for the last metrics: a few requests to a service that answers."""

MAX_FLUSH_SECONDS = 5.0
"""The most of it: a service that has not answered by then will not."""

CLOSES_PER_SECOND = 500
"""So many close without delaying those who still listen; fewer connections leave in less than the window."""

RETURNS_PER_SECOND = 500
"""So many a relay that has just started lets in without effort."""

START_SECONDS = 1.0
"""After the last has gone, a relay needs so long to be there again."""


@dataclass(frozen=True, slots=True)
class ShutdownPlan:
    """What stopping may take, in seconds.

    Attributes:
        window: Over which all are told to go.
        closing: In which they may close; the window is at its beginning.
        cut_off: For what is left of those who did not.
        flush: For the last metrics.
    """

    window: float
    closing: float
    cut_off: float
    flush: float

    @classmethod
    def within(cls, timeout_seconds: float, window_seconds: float) -> "ShutdownPlan":
        """Divide the time that stopping may take in all."""
        cut_off = min(MAX_CUT_OFF_SECONDS, CUT_OFF_SHARE * timeout_seconds)
        flush = min(MAX_FLUSH_SECONDS, FLUSH_SHARE * timeout_seconds)
        closing = timeout_seconds - cut_off - flush
        return cls(min(window_seconds, closing / 2), closing, cut_off, flush)


@dataclass(frozen=True, slots=True)
class Departure:
    """When one connection is told to go.

    Attributes:
        at_seconds: After the beginning of the window.
        reconnect_after_ms: How long it should stay away.
    """

    at_seconds: float
    reconnect_after_ms: int


def plan_departures(count: int, window_seconds: float, draw: Callable[[], float]) -> list[Departure]:
    """Plan the departures of `count` connections, in their order.

    Args:
        count: How many there are.
        window_seconds: The longest that it may take.
        draw: Gives a random number from 0 up to 1.
    """
    window = min(window_seconds, count / CLOSES_PER_SECOND)
    spread = max(START_SECONDS, count / RETURNS_PER_SECOND)
    departures = []
    for number in range(count):
        at = window * (number + draw()) / count
        away = window - at + START_SECONDS + spread * draw()
        departures.append(Departure(at, round(away * 1000)))
    return departures
