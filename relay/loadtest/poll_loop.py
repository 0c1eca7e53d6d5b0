"""An event loop of epoll and timers, and nothing else: asyncio's other work costs more time than a frame may.

Invariants: at most `MAX_EVENTS` files are served before timers get their turn; the loop records the longest wait.

Naps: each write to a socket wakes a process that sleeps in epoll. On one machine the writer's CPU does that work. A
process that naps between two looks avoids it: the kernel only puts the socket on a list.
"""

import heapq
import itertools
import select
import time
from collections.abc import Callable, Sequence

from relay.vocabulary.clock import Clock

MAX_EVENTS = 256
"""Files served between two looks at the timers, which takes about a millisecond."""

MAX_WAIT_SECONDS = 1.0
"""How long a loop without timers sleeps."""

Events = Sequence[tuple[int, int]]
"""Pairs of a file descriptor and its epoll events."""


class PollLoop:
    """Calls functions when files are ready, or at a set time.

    Attributes:
        running: Whether `run` continues. Set it to False to stop.
    """

    def __init__(self, clock: Clock, nap_seconds: float = 0.0) -> None:
        """Create a loop without files or timers.

        Args:
            clock: Returns seconds.
            nap_seconds: How long to sleep before each look at the files, during which no file wakes the loop. With 0 it
                sleeps until a file is ready.
        """
        self._clock = clock
        self._nap_seconds = nap_seconds
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lag_seconds = 0.0
        self.running = True

    def run(self, serve: Callable[[Events], None]) -> None:
        """Run until `running` is False. `serve` gets the events of all files, watched ones included."""
        clock, poll, nap_seconds = self._clock, self._epoll.poll, self._nap_seconds
        events: Events = ()
        while self.running:
            if nap_seconds and len(events) < MAX_EVENTS:
                time.sleep(nap_seconds)
            asked = clock()
            wait = self._wait_seconds(asked)
            events = poll(wait, MAX_EVENTS)
            woken = clock()
            if events:
                serve(events)
            else:
                self._lag_seconds = max(self._lag_seconds, woken - asked - wait)
            now = clock()
            self._run_timers(now)
            self._lag_seconds = max(self._lag_seconds, now - woken)

    def take_lag_ms(self) -> float:
        """Return the longest time that a ready file or a timer may have waited since the last call."""
        lag_seconds, self._lag_seconds = self._lag_seconds, 0.0
        return lag_seconds * 1000

    def at(self, seconds: float, function: Callable[[], None]) -> None:
        """Call `function` once, at that time or a little later. Functions of the same time run in order."""
        heapq.heappush(self._timers, (seconds, next(self._numbers), function))

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        """Call `function` once, after this many seconds."""
        self.at(self._clock() + seconds, function)

    def add(self, fileno: int, interest: int) -> None:
        """Wait for the epoll events in `interest`. Closing the file removes it."""
        self._epoll.register(fileno, interest)

    def change(self, fileno: int, interest: int) -> None:
        """Replace the events to wait for."""
        self._epoll.modify(fileno, interest)

    def watch(self, fileno: int, readable: Callable[[], None]) -> None:
        """Call `readable` when `serve` passes this file to `call_watcher`, each time it can be read."""
        self._watched[fileno] = readable
        self._epoll.register(fileno, select.EPOLLIN)

    def call_watcher(self, fileno: int) -> None:
        """Call the function of a watched file. `serve` does this for files that it does not know.

        Such a file may also be one that was closed after its event had been read. Its event has no effect.
        """
        watcher = self._watched.get(fileno)
        if watcher is not None:
            watcher()

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _wait_seconds(self, now: float) -> float:
        if not self._timers:
            return MAX_WAIT_SECONDS
        return min(MAX_WAIT_SECONDS, max(0.0, self._timers[0][0] - now))

    def _run_timers(self, now: float) -> None:
        """Call due functions. Those that they add run the next time."""
        due: list[Callable[[], None]] = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for function in due:
            function()
