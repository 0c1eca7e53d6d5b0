"""All timers of one connection and the actions at its end, in one table, so that nothing fires after the end.

Invariant: an action for the end runs exactly once, whether it is added before or after the end.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto


class Timer(Enum):
    """What a connection waits for."""

    HTTP = auto()
    """The next request, the rest of this one, or the peer's reading of a response."""
    HANDSHAKE = auto()
    """The end of a TLS handshake."""
    CLOSING = auto()
    """The peer's close frame."""
    OVER_A_LIMIT = auto()
    """The end of a connection whose peer is over a limit."""
    AUDIO_RATE = auto()
    ADDRESS_RATE = auto()
    AHEAD = auto()
    """Real time, because a broadcaster is ahead of it."""
    SWITCH = auto()


class Timers:
    """The timers of one connection, at most one of each kind."""

    __slots__ = ("_at_end", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Timer, asyncio.TimerHandle] = {}
        self._at_end: list[Callable[[], None]] | None = []

    @property
    def have_ended(self) -> bool:
        """Whether the connection has ended."""
        return self._at_end is None

    def __contains__(self, what: Timer) -> bool:
        return what in self._waiting

    def start(self, what: Timer, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` later. This replaces a running timer of the same kind. After the end, it does nothing."""
        self.stop(what)
        if not self.have_ended:
            self._waiting[what] = self._loop.call_later(seconds, action)

    def stop(self, what: Timer) -> None:
        """Stop a timer if it is running."""
        timer = self._waiting.pop(what, None)
        if timer is not None:
            timer.cancel()

    def at_end(self, action: Callable[[], None]) -> None:
        """Call `action` once, at the end of the connection. Call it immediately if the connection has ended."""
        if self._at_end is None:
            action()
        else:
            self._at_end.append(action)

    def end(self) -> None:
        """Stop all timers for good, and run the actions for the end. Idempotent."""
        actions, self._at_end = self._at_end or [], None
        for what in list(self._waiting):
            self.stop(what)
        for action in actions:
            action()
