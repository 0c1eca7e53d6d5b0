"""What one connection waits for, its end among it, in one table, so that nothing fires after it has ended.

Invariant: what is to be done at the end is done once, whether it was asked for before or after.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto


class Timer(Enum):
    """What a connection waits for."""

    HTTP = auto()
    """The next request, the end of this one, or the peer's taking of an answer."""
    HANDSHAKE = auto()
    """The end of a TLS handshake."""
    CLOSING = auto()
    """The peer's close frame."""
    OVER_A_LIMIT = auto()
    """The end of a connection whose peer is over a limit."""
    AUDIO_RATE = auto()
    ADDRESS_RATE = auto()
    AHEAD = auto()
    """Real time, which a broadcaster is ahead of."""
    SWITCH = auto()


class Timers:
    """The timers of one connection; of each kind, one at a time."""

    __slots__ = ("_at_end", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with none."""
        self._loop = loop
        self._waiting: dict[Timer, asyncio.TimerHandle] = {}
        self._at_end: list[Callable[[], None]] | None = []

    @property
    def have_ended(self) -> bool:
        """Whether the connection has."""
        return self._at_end is None

    def __contains__(self, what: Timer) -> bool:
        """Whether such a timer was started, and not stopped since."""
        return what in self._waiting

    def start(self, what: Timer, seconds: float, action: Callable[[], None]) -> None:
        """Do something later, in place of what such a timer was to do before; nothing after the end."""
        self.stop(what)
        if not self.have_ended:
            self._waiting[what] = self._loop.call_later(seconds, action)

    def stop(self, what: Timer) -> None:
        """Stop such a timer, if there is one."""
        timer = self._waiting.pop(what, None)
        if timer is not None:
            timer.cancel()

    def at_end(self, action: Callable[[], None]) -> None:
        """Do something once, at the end; at once when it has come."""
        if self._at_end is None:
            action()
        else:
            self._at_end.append(action)

    def end(self) -> None:
        """Stop all, start none any more, and do what is to be done at the end; nothing when it has come."""
        actions, self._at_end = self._at_end or [], None
        for what in list(self._waiting):
            self.stop(what)
        for action in actions:
            action()
