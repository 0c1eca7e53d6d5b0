"""Detect dead peers: ping those that are quiet, and cut them off if no answer arrives.

One task watches all connections. It also cuts off a peer that cannot be written to. It waits longer for a broadcaster
whose answer is queued behind audio that the relay does not want yet.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from relay.limits.names import Limit
from relay.server.connection import RelayConnection
from relay.server.intake import TURN_SECONDS
from relay.vocabulary.clock import relay_clock

ASK_AFTER_SECONDS = 4.0
"""A peer that was quiet for this long is pinged. With the stall limit, a dead peer is gone within 20 s."""

ROUND_SECONDS = 0.5
"""Interval between checks of all connections."""


async def keep_alive(connections: Callable[[], Collection[RelayConnection]], stall_limit_seconds: float | None) -> None:
    """Watch all connections forever.

    Args:
        connections: Returns the open connections.
        stall_limit_seconds: How long an answer may take. Time in which the relay does not read from the peer does not
            count. None waits forever.
    """
    while True:
        await asyncio.sleep(ROUND_SECONDS)
        await _look_after_all(list(connections()), stall_limit_seconds)


async def _look_after_all(connections: Sequence[RelayConnection], stall_limit_seconds: float | None) -> None:
    """Check all connections once. A separate function keeps no reference to a lost connection between rounds."""
    turn_end = relay_clock() + TURN_SECONDS
    for connection in connections:
        if (now := relay_clock()) > turn_end:
            await asyncio.sleep(0)
            turn_end = relay_clock() + TURN_SECONDS
        if not connection.intake.is_held:
            _look_after(connection, now, stall_limit_seconds)


def _look_after(connection: RelayConnection, now: float, stall_limit_seconds: float | None) -> None:
    heard_at = connection.intake.heard_at
    if now - heard_at < ASK_AFTER_SECONDS:
        return
    if connection.asked_at <= heard_at:
        connection.ask()
    elif stall_limit_seconds is not None and now - connection.asked_at >= stall_limit_seconds:
        connection.limits.applied(Limit.SILENCE)
        connection.cut_off(f"The client sent nothing for {now - heard_at:.0f} s and did not answer a ping.")
