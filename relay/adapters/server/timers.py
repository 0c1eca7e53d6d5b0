"""What one connection waits for, in one table, so that nothing fires after the connection has ended."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto


class Timer(Enum):
    """What a connection waits for."""

    HANDSHAKE = auto()
    CLOSING = auto()
    LAST_WORDS = auto()
    AUDIO_RATE = auto()
    ADDRESS_RATE = auto()


class Timers:
    """The timers of one connection; of each kind, one at a time."""

    __slots__ = ("_has_ended", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with none."""
        self._loop = loop
        self._waiting: dict[Timer, asyncio.TimerHandle] = {}
        self._has_ended = False

    def __contains__(self, what: Timer) -> bool:
        """Whether such a timer was started, and not stopped since."""
        return what in self._waiting

    def start(self, what: Timer, seconds: float, action: Callable[[], None]) -> None:
        """Do something later, in place of what such a timer was to do before; nothing after the end."""
        self.stop(what)
        if not self._has_ended:
            self._waiting[what] = self._loop.call_later(seconds, action)

    def stop(self, what: Timer) -> None:
        """Stop such a timer, if there is one."""
        timer = self._waiting.pop(what, None)
        if timer is not None:
            timer.cancel()

    def end(self) -> None:
        """Stop all, and start none any more."""
        self._has_ended = True
        for what in list(self._waiting):
            self.stop(what)
