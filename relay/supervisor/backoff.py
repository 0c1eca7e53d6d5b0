"""How long to wait before a process that ended is started again. Time is an argument, in seconds."""

FIRST_SECONDS = 1.0
"""The least time between two starts. A process that lived longer is started again at once."""

MAX_SECONDS = 30.0
"""The most time between two starts."""

RESET_SECONDS = 60.0
"""If a process lived this long, its start had succeeded, so the next series begins with `FIRST_SECONDS`."""


class Backoff:
    """Spaces the starts of one process: each early end doubles the least time between two starts."""

    def __init__(self) -> None:
        self._apart_seconds = FIRST_SECONDS

    def wait_seconds(self, lived_seconds: float) -> float:
        """Return how long to wait after the process ended, having lived this long."""
        if lived_seconds >= RESET_SECONDS:
            self._apart_seconds = FIRST_SECONDS
        wait = max(0.0, self._apart_seconds - lived_seconds)
        self._apart_seconds = min(2 * self._apart_seconds, MAX_SECONDS)
        return wait
