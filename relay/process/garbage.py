"""Delays full garbage collections, which stop the whole process, until no listener would notice.

CPython's collector runs a full collection when the number of objects has grown by a quarter. It visits every object of
every connection in one go, some 50 ms for each thousand listeners, just when a crowd joins. Departed connections free
their memory without it, except for a few small objects of the event loop. Collections of the young generations take
about a millisecond, so they stay as they are.
"""

import asyncio
import gc
from typing import Protocol, Self

LOOK_SECONDS = 5.0
"""Interval between checks whether a full collection is due."""

MIN_DEPARTURES = 1000
"""Minimum number of departed connections before a full collection while others listen. Each leaves about a kilobyte."""

_NEVER = 1_000_000
"""Collections of the middle generation before Python runs a full one. An hour of broadcasting has about five."""


class Listeners(Protocol):
    """The listeners whom a full collection would interrupt: how many there are, and how many have left."""

    departures: int

    def __len__(self) -> int: ...


class Garbage:
    """Delays full collections; a context manager around a relay, with `run` as a task inside it."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._before = gc.get_threshold()
        self._departures = listeners.departures

    def __enter__(self) -> Self:
        """Collect, exempt all present objects from later collections, and leave full collections to `run`."""
        gc.collect()
        gc.freeze()
        young, middle, _ = self._before
        gc.set_threshold(young, middle, _NEVER)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore Python's own thresholds."""
        gc.unfreeze()
        gc.set_threshold(*self._before)

    async def run(self) -> None:
        """Collect whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> bool:
        """Collect if nobody listens or enough listeners have left to make it worthwhile; return whether it did."""
        listeners, left = len(self._listeners), self._listeners.departures - self._departures
        if not left or (listeners and left < max(MIN_DEPARTURES, 2 * listeners)):
            return False
        self._departures = self._listeners.departures
        gc.collect()
        return True
