"""Promise 6: shutdown always ends, here under every network fault."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.reliability.conftest import Figure
from tests.support.fault_proxy import FAULTS, fault_proxy
from tests.support.live_session import broadcasting, greeted, on_both_loops
from tests.support.processes import RelayProcess

pytestmark = pytest.mark.timed

DEADLINE_SECONDS = 3.0
PROCESS_SECONDS = 2.0
"""How long the exit of the process itself may take on a busy machine."""


async def test_it_ends_in_time_whatever_the_network_does(figure: Figure) -> None:
    took: list[float] = []

    async def scenario(relay: RelayProcess) -> None:
        async with AsyncExitStack() as stack:
            broadcaster = await stack.enter_async_context(broadcasting(relay, "ev1"))
            networks = {fault: await stack.enter_async_context(fault_proxy(relay.url)) for fault in FAULTS}
            for number, network in enumerate(networks.values()):
                for target in ("/v1/listen/ev1", "/v1/listen/quiet", f"/v1/broadcast/other{number}"):
                    await stack.enter_async_context(greeted(network.url, target, None))
            await broadcaster.play(0.4)
            for fault, network in networks.items():
                FAULTS[fault](network)
            await broadcaster.play(1.5)
            began = asyncio.get_running_loop().time()
            assert await relay.terminate(DEADLINE_SECONDS + PROCESS_SECONDS) == 0
            took.append(asyncio.get_running_loop().time() - began)
        assert "Traceback" not in relay.text
        assert relay.log[-1]["event"] == "relay stopped"

    await on_both_loops(scenario, RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS=str(DEADLINE_SECONDS))
    figure(f"{', '.join(FAULTS)}: exit 0 after {max(took):.1f} s with a deadline of {DEADLINE_SECONDS:g} s")
