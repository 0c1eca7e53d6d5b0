"""An event loop of epoll and timers, and nothing else: what asyncio does beside that costs more than a frame may.

Invariants: at most `MAX_EVENTS` files are served before timers get their turn; how long anything waited is kept.

Naps: a process that sleeps in epoll is woken by each write to one of its sockets, and on one machine the writer's CPU
does that work. One that naps between two looks is not: the kernel puts the socket on a list, and that is all.
"""

import heapq
import itertools
import select
import time
from collections.abc import Callable, Sequence

from relay.vocabulary.clock import Clock

MAX_EVENTS = 256
"""Files served between two looks at the timers: about a millisecond."""

MAX_WAIT_SECONDS = 1.0
"""How long a loop without timers sleeps."""

Events = Sequence[tuple[int, int]]
"""Pairs of a file descriptor and what epoll says of it."""


class PollLoop:
    """Calls functions when files are ready, or at a time.

    Attributes:
        running: Whether `run` goes on; set it to False to stop.
    """

    def __init__(self, clock: Clock, nap_seconds: float = 0.0) -> None:
        """Make a loop that waits for nothing.

        Args:
            clock: Gives seconds.
            nap_seconds: How long to sleep before each look at the files, during which none wakes it; with 0 it sleeps
                until one does.
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
        """Wait and call until `running` is False; `serve` gets what happened to all files but watched ones."""
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
        """Return the longest that a ready file or a timer may have waited since the last call."""
        lag_seconds, self._lag_seconds = self._lag_seconds, 0.0
        return lag_seconds * 1000

    def at(self, seconds: float, function: Callable[[], None]) -> None:
        """Have `function` called at that time or a little later, once; those of the same time in order."""
        heapq.heappush(self._timers, (seconds, next(self._numbers), function))

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        """Have `function` called this much later, once."""
        self.at(self._clock() + seconds, function)

    def add(self, fileno: int, interest: int) -> None:
        """Wait for what `interest` says, in the terms of epoll; a file that is closed is forgotten."""
        self._epoll.register(fileno, interest)

    def change(self, fileno: int, interest: int) -> None:
        """Wait for something else."""
        self._epoll.modify(fileno, interest)

    def watch(self, fileno: int, readable: Callable[[], None]) -> None:
        """Have `readable` called whenever that file can be read."""
        self._watched[fileno] = readable
        self._epoll.register(fileno, select.EPOLLIN)

    def call_watcher(self, fileno: int) -> None:
        """Call the function of a watched file; `serve` does so with files that it does not know."""
        self._watched[fileno]()

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _wait_seconds(self, now: float) -> float:
        if not self._timers:
            return MAX_WAIT_SECONDS
        return min(MAX_WAIT_SECONDS, max(0.0, self._timers[0][0] - now))

    def _run_timers(self, now: float) -> None:
        """Call what is due; what that adds is called the next time."""
        due: list[Callable[[], None]] = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for function in due:
            function()
