"""What every accepted connection has, from its first byte to its last: limits, timers, and an end in time.

Invariants: timers and all other resources of a connection end with it, exactly once. An action for the end runs exactly
once, whether it is added before or after the end. A connection that was cut off leaves no data in the kernel.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

from relay.limits.in_force import LimitsInForce
from relay.server.kernel import discard_unsent

CLOSE_SECONDS = 5.0
"""After a response or a close frame, a peer has this long to close before it is cut off."""

LAST_WORDS_SECONDS = 1.0
"""A peer that is over a limit has this long to read the response or close frame that says so."""


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
    GATE = auto()
    """The channel, because the cluster has to bring it here."""


class Timers:
    """The timers of one connection, at most one of each kind, and the actions at its end."""

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


class GuardedConnection(asyncio.Protocol):
    """A connection that can be cut off and that reports its end.

    Attributes:
        transport: The transport of its socket or of TLS.
        limits: The limits that the peer must keep.
        timers: Its timers.
        cut_off_because: Why the relay cut it off: a sentence or an error. None if it did not.
    """

    transport: asyncio.Transport

    def __init__(self, limits: LimitsInForce) -> None:
        self.limits = limits
        self.timers = Timers(asyncio.get_running_loop())
        self.cut_off_because: str | OSError | None = None

    def at_end(self, action: Callable[[], None]) -> None:
        """Call `action` once, when the connection is lost. Call it immediately if it is lost already."""
        self.timers.at_end(action)

    @property
    def is_over_tls(self) -> bool:
        """Whether the relay itself terminates TLS on this connection."""
        return self.transport.get_extra_info("ssl_object") is not None

    def cut_off(self, because: str | OSError = "The client did not close the connection in time.") -> None:
        """End the connection at once. Discard unsent data, including the kernel's."""
        if not self.timers.have_ended:
            self.cut_off_because = self.cut_off_because or because
            discard_unsent(self.transport.get_extra_info("socket"))
            self.transport.abort()

    def end_writing(self) -> None:
        """Signal the end of the data to the peer. TLS has no half-closed state, so close the connection there."""
        if self.transport.can_write_eof():
            with suppress(OSError, RuntimeError):  # uvloop raises RuntimeError
                self.transport.write_eof()
        else:
            self.transport.close()
