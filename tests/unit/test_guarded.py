"""What every connection has, before and after it becomes a WebSocket."""

import asyncio
from typing import cast

from relay.limits.in_force import LimitsInForce
from relay.server.guarded import GuardedConnection
from relay.settings.settings import LimitSettings
from relay.vocabulary.clock import relay_clock


class LostTlsTransport:
    """Stands in for asyncio's TLS transport after it lost the connection and before its protocol knows."""

    aborted = False

    def get_extra_info(self, _name: str) -> object:
        return None

    def abort(self) -> None:
        self.aborted = True


async def test_a_connection_that_is_lost_over_tls_can_be_cut_off() -> None:
    connection = GuardedConnection(LimitsInForce(LimitSettings(), relay_clock))
    transport = LostTlsTransport()
    connection.transport = cast("asyncio.Transport", transport)
    connection.cut_off("There are too many.")
    assert transport.aborted
    assert connection.cut_off_because == "There are too many."
