"""Pass a peer's data from the transport to the protocol: in small pieces, and only while the connection wants it.

An event loop reads up to 256 KiB at once. The protocol would answer all pings in it and deliver all messages before any
other connection has a turn. So no piece here is larger than `PIECE_BYTES`, and no turn longer than `TURN_SECONDS`.

Invariants: order is kept. While data waits here, nothing is read from the socket. So at most one read of the event loop
waits, and TCP slows the peer down. While the intake is held, it passes nothing on.
"""

import asyncio
from collections.abc import Callable
from enum import Enum

from relay.vocabulary.clock import relay_clock

PIECE_BYTES = 1024
"""The data passed on between two checks of the budgets: 170 pings of the smallest kind."""

TURN_SECONDS = 0.002
"""How long one peer may occupy the event loop."""

_NO_HOLDERS: frozenset[Enum] = frozenset()
"""Shared by all connections, because each empty set takes 200 bytes."""


class Intake:
    """The intake of one connection.

    `feed` receives each piece. It receives an empty piece when the last holder lets go.

    Attributes:
        heard_at: When the peer last showed a sign of life, by the relay's clock. Letting go of the intake counts as
            one, because a held peer could not be heard.
    """

    __slots__ = ("_feed", "_holders", "_is_reading", "_loop", "_taken", "_transport", "_waiting", "heard_at")

    def __init__(self, transport: asyncio.Transport, feed: Callable[[bytes], None]) -> None:
        self._transport = transport
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self._taken = 0
        self._holders = _NO_HOLDERS
        self._is_reading = True
        self.heard_at = relay_clock()

    @property
    def is_held(self) -> bool:
        """Whether the intake is held."""
        return bool(self._holders)

    def receive(self, data: bytes) -> None:
        """Take data that the transport read."""
        self.heard_at = relay_clock()
        if not self._waiting and not self._holders and len(data) <= PIECE_BYTES:
            self._feed(data)
            return
        self._waiting = self._waiting[self._taken :] + data
        self._taken = 0
        self._work()

    def note_life(self) -> None:
        """Record that the peer is alive although it sent nothing: it reads."""
        self.heard_at = relay_clock()

    def hold(self, holder: Enum) -> None:
        """Pass nothing on until `holder` lets go. Idempotent for each holder."""
        self._holders |= {holder}

    def let_go(self, holder: Enum) -> None:
        """Release a hold. Data flows again once no holder is left."""
        if holder in self._holders:
            self._holders = self._holders - {holder} or _NO_HOLDERS
            if not self._holders:
                self.heard_at = relay_clock()
                self._loop.call_soon(self._go_on)

    def drop(self) -> None:
        """Discard the waiting data."""
        self._waiting, self._taken = b"", 0

    def end(self) -> None:
        """Stop for good: discard the waiting data and all holds, and drop the reference to the connection."""
        self.drop()
        self._holders = _NO_HOLDERS
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
        """Read from the socket only while no data waits."""
        wanted = not self._waiting
        if wanted is not self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _leave(piece: bytes) -> None:
    """Stand in for a connection that is gone."""
