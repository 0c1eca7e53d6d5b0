"""When Python looks for garbage: a full look stops everybody, so it waits until nobody would notice.

CPython's collector looks at every object of every connection when their number has grown by a quarter, in one go: some
50 ms for each thousand listeners, just when a crowd comes in. What leaves here frees itself without it, but for a few
small objects of the event loop. The young generations, whose looks cost a millisecond or so, are left alone.
"""

import asyncio
import gc
from typing import Protocol, Self

LOOK_SECONDS = 5.0
"""How often somebody asks whether it is time."""

MIN_DEPARTURES = 1000
"""Connections that left before a full look while others listen; what they leave behind is about a kilobyte each."""

_NEVER = 1_000_000
"""Looks at the middle generation before a full one by itself; there are some five in an hour of steady broadcasting."""


class Listeners(Protocol):
    """Who would notice."""

    departures: int

    def __len__(self) -> int:
        """Give how many listen."""
        ...


class Garbage:
    """Puts off full collections; a context manager around a relay, and `run` a task in it."""

    def __init__(self, listeners: Listeners) -> None:
        """Make it; nothing changes before the context begins."""
        self._listeners = listeners
        self._before = gc.get_threshold()
        self._departures = listeners.departures

    def __enter__(self) -> Self:
        """Collect, take what is there for permanent, and collect fully only in `run` from now on."""
        gc.collect()
        gc.freeze()
        young, middle, _ = self._before
        gc.set_threshold(young, middle, _NEVER)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it to Python again."""
        gc.unfreeze()
        gc.set_threshold(*self._before)

    async def run(self) -> None:
        """Collect for ever when it is time."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> bool:
        """Collect if nobody listens, or enough have left that it pays; tell whether it did."""
        listeners, left = len(self._listeners), self._listeners.departures - self._departures
        if not left or (listeners and left < max(MIN_DEPARTURES, 2 * listeners)):
            return False
        self._departures = self._listeners.departures
        gc.collect()
        return True
