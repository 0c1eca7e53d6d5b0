"""The only module that reads a clock. All other code takes the time as an argument, or a `Clock` to call.

Invariant: the relay's clock is monotonic, counts seconds and starts at an arbitrary value. It is never compared with
the wall clock, which may jump and serves only to compare with times of day that other machines wrote down.
"""

from collections.abc import Callable
from time import monotonic, time  # noqa: TID251 - only this module reads the clock

Clock = Callable[[], float]
"""Returns the current time in seconds."""

relay_clock: Clock = monotonic
"""The clock of this process. Due times of the wire protocol are its milliseconds modulo 2**32.

Other processes may share it; `relay.process.clock_id` says which.
"""

wall_clock: Clock = time
"""The time of day: seconds since 1970 in UTC, as in tokens."""

_MILLISECONDS_WRAP = 1 << 32


def wire_milliseconds(seconds: float) -> int:
    """Return `seconds` of the relay's clock as the wire carries them: whole milliseconds modulo 2**32."""
    return int(seconds * 1000) % _MILLISECONDS_WRAP
