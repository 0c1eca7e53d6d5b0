"""Seeing everybody off when the relay stops: `goaway`, then 1012, each at its own moment.

Invariants: nobody is waited for here; who does not close is cut off by the caller.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence

from relay.protocol.messages import Goaway
from relay.protocol.requests import Role
from relay.server.connection import RelayConnection
from relay.server.shutdown import plan_departures
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode

RESTARTING = (CloseCode.RESTARTING, "The relay is restarting.")

STEP_SECONDS = 0.01
"""What is due within this time is done at once."""


async def see_off(connections: Iterable[RelayConnection], window_seconds: float) -> None:
    """Tell each to go, listeners in random order and broadcasters last; cancelled, the rest is not told."""
    leaving = _in_order(connections)
    departures = plan_departures(len(leaving), window_seconds, random.random)
    began = relay_clock()
    for connection, departure in zip(leaving, departures, strict=True):
        wait_seconds = began + departure.at_seconds - relay_clock()
        if wait_seconds > STEP_SECONDS:
            await asyncio.sleep(wait_seconds)
        _send_away(connection, departure.reconnect_after_ms)


def _in_order(connections: Iterable[RelayConnection]) -> Sequence[RelayConnection]:
    everybody = list(connections)
    random.shuffle(everybody)
    return sorted(everybody, key=_broadcasts)


def _broadcasts(connection: RelayConnection) -> bool:
    return connection.role is Role.BROADCASTER


def _send_away(connection: RelayConnection, reconnect_after_ms: int) -> None:
    connection.send_text(Goaway(reconnect_after_ms).text())
    connection.close(*RESTARTING)
