"""What every accepted connection has, from its first byte to its last: limits, timers, and an end in time.

Invariants: timers and all other resources of a connection end with it, exactly once. A connection that was cut off
leaves no data in the kernel.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from relay.limits.in_force import LimitsInForce
from relay.server.kernel import discard_unsent
from relay.server.timers import Timers

CLOSE_SECONDS = 5.0
"""After a response or a close frame, a peer has this long to close before it is cut off."""

LAST_WORDS_SECONDS = 1.0
"""A peer that is over a limit has this long to read the response or close frame that says so."""


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
