"""What a peer sends, on its way from the transport to the protocol: a little at a time, and only while it is wanted.

An event loop reads up to 256 KiB at once, and the protocol would answer all pings in it, and hand on all messages,
before anybody else has a turn. Here no piece is larger than `PIECE_BYTES`, and no turn longer than `TURN_SECONDS`.

Invariants: order is kept; as long as anything waits here, nothing is read from the socket, so at most one read of the
event loop waits and TCP slows the peer down. While somebody holds the intake, nothing is taken.
"""

import asyncio
from collections.abc import Callable
from enum import Enum

from relay.vocabulary.clock import relay_clock

PIECE_BYTES = 1024
"""What is taken before anybody looks at the budgets: 170 pings of the smallest kind."""

TURN_SECONDS = 0.002
"""How long one peer may keep the event loop from all others."""


class Intake:
    """One connection's.

    Attributes:
        heard_at: When the peer last gave a sign of life, by the relay's clock; while the intake was held, it could not.
    """

    __slots__ = ("_feed", "_holders", "_is_reading", "_loop", "_taken", "_transport", "_waiting", "heard_at")

    def __init__(self, transport: asyncio.Transport, feed: Callable[[bytes], None]) -> None:
        """Make an intake that nobody holds.

        Args:
            transport: Where bytes come from.
            feed: Takes a piece, at once; an empty one, when nobody holds the intake any more.
        """
        self._transport = transport
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self._taken = 0
        self._holders: frozenset[Enum] = frozenset()
        self._is_reading = True
        self.heard_at = relay_clock()

    @property
    def is_held(self) -> bool:
        """Whether somebody wants nothing more for now."""
        return bool(self._holders)

    def receive(self, data: bytes) -> None:
        """Take what was read."""
        self.heard_at = relay_clock()
        if not self._waiting and not self._holders and len(data) <= PIECE_BYTES:
            self._feed(data)
            return
        self._waiting = self._waiting[self._taken :] + data
        self._taken = 0
        self._work()

    def note_life(self) -> None:
        """Note that the peer is there, although it said nothing: it reads."""
        self.heard_at = relay_clock()

    def hold(self, holder: Enum) -> None:
        """Take nothing more until `holder` lets go; done twice by one holder, it changes nothing."""
        self._holders |= {holder}

    def let_go(self, holder: Enum) -> None:
        """Take more, unless somebody else holds it."""
        if holder in self._holders:
            self._holders -= {holder}
            if not self._holders:
                self.heard_at = relay_clock()
                self._loop.call_soon(self._go_on)

    def drop(self) -> None:
        """Forget what waits; the connection is gone."""
        self._waiting, self._taken = b"", 0

    def end(self) -> None:
        """Take nothing more, and let go of who would."""
        self.drop()
        self._holders = frozenset()
        self._feed = _leave

    def _go_on(self) -> None:
        if not self._holders:
            self._feed(b"")
            self._work()

    def _work(self) -> None:
        turn_end = relay_clock() + TURN_SECONDS
        while self._taken < len(self._waiting) and not self._holders:
            if relay_clock() > turn_end:
                self._loop.call_soon(self._work)
                break
            piece = self._waiting[self._taken : self._taken + PIECE_BYTES]
            self._taken += PIECE_BYTES
            self._feed(piece)
        if self._taken >= len(self._waiting):
            self.drop()
        self._settle()

    def _settle(self) -> None:
        """Read from the socket when all that was read is taken, and only then."""
        wanted = not self._waiting
        if wanted is not self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _leave(piece: bytes) -> None:
    """Stand in for a connection that is gone."""
