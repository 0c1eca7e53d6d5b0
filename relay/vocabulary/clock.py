"""The one home of the clock: everything else gets time as an argument, or a `Clock` to ask.

Invariant: the relay's clock is monotonic, counts seconds, and starts anywhere; nobody compares it with the wall
clock, which may jump and is only for what other machines wrote down as a time of day.
"""

from collections.abc import Callable
from time import monotonic, time  # noqa: TID251 - the one home of the clock

Clock = Callable[[], float]
"""Gives the present time in seconds."""

relay_clock: Clock = monotonic
"""The clock of this process. Its milliseconds, modulo 2**32, are the due times of the wire protocol."""

wall_clock: Clock = time
"""The time of day: seconds since 1970 in UTC, as tokens have it."""

_MILLISECONDS_WRAP = 1 << 32


def wire_milliseconds(seconds: float) -> int:
    """Give `seconds` of the relay's clock as the wire writes them: whole milliseconds, 32 bits, wrapping."""
    return int(seconds * 1000) % _MILLISECONDS_WRAP
