"""Disconnect all clients when the relay stops: each gets `goaway`, then 1012, at its own time.

Invariant: this module waits for no client. The caller cuts off those that do not close.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence

from relay.protocol.messages import Goaway
from relay.protocol.requests import Role
from relay.server.served import ServedConnection
from relay.server.shutdown import plan_departures
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode

RESTARTING = (CloseCode.RESTARTING, "The relay is restarting.")

STEP_SECONDS = 0.01
"""Departures due within this time happen at once."""


async def see_off(connections: Iterable[ServedConnection], window_seconds: float) -> None:
    """Disconnect all clients over a window: listeners in random order, then broadcasters.

    After a cancellation, the remaining clients receive no `goaway`.
    """
    leaving = _in_order(connections)
    departures = plan_departures(len(leaving), window_seconds, random.random)
    began = relay_clock()
    for connection, departure in zip(leaving, departures, strict=True):
        wait_seconds = began + departure.at_seconds - relay_clock()
        if wait_seconds > STEP_SECONDS:
            await asyncio.sleep(wait_seconds)
        _send_away(connection, departure.reconnect_after_ms)


def _in_order(connections: Iterable[ServedConnection]) -> Sequence[ServedConnection]:
    everybody = list(connections)
    random.shuffle(everybody)
    return sorted(everybody, key=_broadcasts)


def _broadcasts(connection: ServedConnection) -> bool:
    return connection.role is Role.BROADCASTER


def _send_away(connection: ServedConnection, reconnect_after_ms: int) -> None:
    connection.send_text(Goaway(reconnect_after_ms).text())
    connection.close(*RESTARTING)
