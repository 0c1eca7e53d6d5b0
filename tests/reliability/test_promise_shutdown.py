"""Promise 6: shutdown always ends, here under every network fault."""

from contextlib import AsyncExitStack

import pytest

from tests.reliability.conftest import Figure
from tests.support.fault_proxy import FAULTS, fault_proxy
from tests.support.live_session import broadcasting, greeted, on_both_loops
from tests.support.processes import RelayProcess
from tests.support.tries import best_of_three, check_in_time

pytestmark = pytest.mark.timed

DEADLINE_SECONDS = 3.0
LATE_SECONDS = 1.0
"""How late the deadline may come on a busy machine."""


@best_of_three
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
            assert await relay.terminate() == 0
            took.append(await relay.stopping_seconds())
        assert "Traceback" not in relay.text
        assert relay.log[-1]["event"] == "relay stopped"

    await on_both_loops(scenario, RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS=str(DEADLINE_SECONDS))
    check_in_time(max(took) * 1000, (DEADLINE_SECONDS + LATE_SECONDS) * 1000, "to stop")
    figure(f"{', '.join(FAULTS)}: exit 0 after {max(took):.1f} s with a deadline of {DEADLINE_SECONDS:g} s")
