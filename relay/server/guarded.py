"""What every accepted connection has, from its first byte to its last: limits, timers, and an end in time.

Invariants: timers and whatever else a connection has taken end with it, once; a connection that was cut off leaves
nothing behind in the kernel.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from relay.limits.in_force import LimitsInForce
from relay.server.kernel import discard_unsent
from relay.server.timers import Timers

CLOSE_SECONDS = 5.0
"""How long a peer may take to close, after an answer or a close frame, before the connection is cut off."""

LAST_WORDS_SECONDS = 1.0
"""How long a peer that is over a limit may take to read the answer or the close frame that says so."""


class GuardedConnection(asyncio.Protocol):
    """A connection that can be cut off, and whose end can be waited for.

    Attributes:
        transport: Of its socket, or of TLS.
        limits: What the peer may.
        timers: What it waits for.
        cut_off_because: Why the relay cut it off: a sentence, or what failed; None while it did not.
    """

    transport: asyncio.Transport

    def __init__(self, limits: LimitsInForce) -> None:
        """Make a connection that waits for nothing yet."""
        self.limits = limits
        self.timers = Timers(asyncio.get_running_loop())
        self.cut_off_because: str | OSError | None = None

    def at_end(self, action: Callable[[], None]) -> None:
        """Do something once, when the connection is lost; at once when it is."""
        self.timers.at_end(action)

    @property
    def is_over_tls(self) -> bool:
        """Whether the relay itself speaks TLS here."""
        return self.transport.get_extra_info("ssl_object") is not None

    def cut_off(self, because: str | OSError = "It did not end in time.") -> None:
        """End the connection at once; what was not sent is thrown away, by the kernel, too."""
        if not self.timers.have_ended:
            self.cut_off_because = self.cut_off_because or because
            discard_unsent(self.transport.get_extra_info("socket"))
            self.transport.abort()

    def end_writing(self) -> None:
        """Say to the peer that nothing more comes; under TLS, which knows no half of a connection, close it."""
        if self.transport.can_write_eof():
            with suppress(OSError, RuntimeError):  # uvloop raises the latter
                self.transport.write_eof()
        else:
            self.transport.close()
