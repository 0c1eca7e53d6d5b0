"""The plan for stopping: how long each part may take, and when each client is asked to leave. Time is an argument.

Invariants: all parts together take no longer than the operator allows. Listeners leave in random order, spread over the
window, and broadcasters after them, so no remaining listener hears silence. Clients do not all reconnect at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

CUT_OFF_SHARE = 0.1
"""Share of the total time for cutting off the remaining clients. It takes a few turns of the event loop."""

MAX_CUT_OFF_SECONDS = 1.0
"""Upper bound of that share. Cutting off waits for no client."""

ENDING_SHARE = 0.2
"""Share of the total time in which listeners of a session that has just ended get its last audio and the reason."""

MAX_ENDING_SECONDS = 2.0
"""Upper bound of that share. Half of it is enough to encode a minute of speech. A listener that needs longer is slow,
and is asked to come back like all others."""

FLUSH_SHARE = 0.3
"""Share of the total time for the last metrics: a few requests to a service that responds."""

MAX_FLUSH_SECONDS = 5.0
"""Upper bound of that share. A service that has not responded by then will not."""

CLOSES_PER_SECOND = 500
"""Rate of closes that does not delay the remaining listeners. A few connections leave faster than the window."""

RETURNS_PER_SECOND = 500
"""Rate of reconnections that a relay handles easily after its start."""

START_SECONDS = 1.0
"""Time that a relay needs to restart after the last client has left."""


@dataclass(frozen=True, slots=True)
class ShutdownPlan:
    """How long the parts of stopping may take, in seconds.

    Attributes:
        ending: Sessions that have just ended may take this long to say so.
        window: All clients are asked to leave within this time.
        closing: Clients may take this long to close. It includes the ending and the window.
        cut_off: Time for cutting off the remaining clients.
        flush: Time for the last metrics.
    """

    ending: float
    window: float
    closing: float
    cut_off: float
    flush: float

    @classmethod
    def within(cls, timeout_seconds: float, window_seconds: float) -> "ShutdownPlan":
        """Divide the total time for stopping into its parts."""
        cut_off = min(MAX_CUT_OFF_SECONDS, CUT_OFF_SHARE * timeout_seconds)
        flush = min(MAX_FLUSH_SECONDS, FLUSH_SHARE * timeout_seconds)
        closing = timeout_seconds - cut_off - flush
        ending = min(MAX_ENDING_SECONDS, ENDING_SHARE * timeout_seconds)
        return cls(ending, min(window_seconds, closing / 2), closing, cut_off, flush)


@dataclass(frozen=True, slots=True)
class Departure:
    """When one client is asked to leave.

    Attributes:
        at_seconds: Time since the beginning of the window.
        reconnect_after_ms: How long the client should wait before it reconnects.
    """

    at_seconds: float
    reconnect_after_ms: int


def plan_departures(
    count: int, window_seconds: float, draw: Callable[[], float], *, others_serve: bool = False
) -> list[Departure]:
    """Plan the departures of `count` connections, in their order, within the window.

    `draw` returns a random number from 0 up to but not including 1. If other relays serve the same channels, clients
    reconnect at once.
    """
    window = min(window_seconds, count / CLOSES_PER_SECOND)
    spread = max(START_SECONDS, count / RETURNS_PER_SECOND)
    departures = []
    for number in range(count):
        at = window * (number + draw()) / count
        away = 0.0 if others_serve else window - at + START_SECONDS + spread * draw()
        departures.append(Departure(at, round(away * 1000)))
    return departures
