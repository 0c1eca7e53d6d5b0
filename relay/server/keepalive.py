"""Who is still there: quiet peers are asked by a ping of the WebSocket layer, and cut off when nothing comes.

One task looks after all connections. It also gives up a peer that can not be written to, and has patience with a
broadcaster whose answer waits behind audio that the relay does not want yet.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

from relay.limits.names import Limit
from relay.server.connection import RelayConnection
from relay.server.intake import TURN_SECONDS
from relay.vocabulary.clock import relay_clock

ASK_AFTER_SECONDS = 4.0
"""A peer of which nothing was heard for this long is asked; with the stall limit, it is gone within 20 s."""

ROUND_SECONDS = 0.5
"""How often all are looked at."""


async def keep_alive(connections: Callable[[], Collection[RelayConnection]], stall_limit_seconds: float | None) -> None:
    """Look after all connections for ever.

    Args:
        connections: Gives those that are open now.
        stall_limit_seconds: How long an answer may take; while the relay does not read from a peer, it takes none.
            None waits for ever.
    """
    while True:
        await asyncio.sleep(ROUND_SECONDS)
        await _look_after_all(list(connections()), stall_limit_seconds)


async def _look_after_all(connections: Sequence[RelayConnection], stall_limit_seconds: float | None) -> None:
    """Make one round; a function of its own, so that between rounds nothing refers to a connection that is gone."""
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
        connection.cut_off(f"Nothing was heard of it for {now - heard_at:.0f} s, although it was asked.")
