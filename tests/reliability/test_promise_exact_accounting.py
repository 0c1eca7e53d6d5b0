"""Promise 4: for every listener, delivered + announced gaps = published, whatever the network does.

Every other test of a fault checks the same rule with `WireListener.account`.
"""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from relay.protocol.json_messages import decode
from tests.reliability.conftest import Figure
from tests.reliability.loads import Load
from tests.reliability.storms import misbehave
from tests.support.fault_proxy import fault_proxy
from tests.support.live_session import Broadcaster, on_both_loops
from tests.support.processes import RelayProcess
from tests.support.wire_listener import SMALL_BUFFER_BYTES, WireListener, closing, open_listener

pytestmark = pytest.mark.timed

STEREO = "?rate=48000&channels=2"
STEREO_BYTES = 3840

NETWORKS = 6

LINE_BYTES = 16_384
"""Small, so that the relay soon has to hold what a network does not take."""


class Journey:
    """A person who listens over a network and reconnects whenever it fails.

    Attributes:
        visits: The connections in order; each continues where the previous one ended.
    """

    def __init__(self, url: str, choice: random.Random) -> None:
        self._url = url
        self._choice = choice
        self.visits: list[WireListener] = []

    async def travel(self) -> None:
        """Listen until the session ends."""
        while True:
            listener = await self._join()
            await listener.until_ended(300)
            if listener.close_code == 1000:
                return

    async def _join(self) -> WireListener:
        query = f"buffer_ms={self._choice.choice((200, 300, 10_000))}"
        if self.visits:
            epoch, accounted = self.place()
            query += f"&epoch={epoch}&after={(accounted - 1) % (1 << 32)}"
        while True:
            try:
                listener = await open_listener(self._url, f"/v1/listen/ev1?{query}", receive_buffer=SMALL_BUFFER_BYTES)
            except (AssertionError, ConnectionError, TimeoutError):
                # The network failed during the handshake.
                await asyncio.sleep(0.05)
            else:
                self.visits.append(listener)
                return listener

    def place(self) -> tuple[int, int]:
        """Check the account of the last visit; return its epoch and the number that its account reaches."""
        last = self.visits[-1]
        (accounted,) = last.account()
        return last.hello["epoch"], accounted

    def check(self, published: int) -> None:
        """Check that over all visits each frame arrived or was named by a gap, exactly once."""
        for before, after in zip(self.visits, self.visits[1:], strict=False):
            assert after.hello["resumed"], "the relay does not know its own number"
            assert after.hello["next_seq"] == before.account()[-1]
        assert self.place()[1] == published

    @property
    def lost_frames(self) -> int:
        return sum(gap["to_seq"] - gap["from_seq"] + 1 for visit in self.visits for gap in visit.gaps)


async def test_every_account_is_exact_through_a_storm_of_faults(load: Load, figure: Figure) -> None:
    figures = []

    async def scenario(relay: RelayProcess) -> None:
        until = asyncio.get_running_loop().time() + load.storm_seconds
        async with AsyncExitStack() as stack:
            networks = [await stack.enter_async_context(fault_proxy(relay.url)) for _ in range(NETWORKS)]
            for network in networks:
                network.down.line_bytes = LINE_BYTES
            uplink = await stack.enter_async_context(fault_proxy(relay.url))
            url = f"{uplink.url.replace('http', 'ws')}/v1/broadcast/ev1{STEREO}"
            source = await stack.enter_async_context(
                # The relay's messages are not read. They must not hold up the pongs behind them.
                connect(url, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None, max_queue=None)
            )
            hello = decode(str(await source.recv()))
            broadcaster = Broadcaster(source, hello["connection_id"], STEREO_BYTES, [0])
            journeys = [
                Journey(network.url, random.Random(number))  # noqa: S311 - repeatable, not a secret
                for number, network in enumerate(networks)
            ]
            async with asyncio.TaskGroup() as group:
                for journey in journeys:
                    group.create_task(journey.travel())
                for number, network in enumerate(networks):
                    group.create_task(misbehave(network, random.Random(number), until))  # noqa: S311 - repeatable, not a secret
                uplink.up.latency_seconds, uplink.up.jitter_seconds = 0.05, 0.1
                await broadcaster.play(load.storm_seconds + 1)
                await broadcaster.end()
            with closing(visit for journey in journeys for visit in journey.visits):
                for journey in journeys:
                    journey.check(broadcaster.published[-1])
        visits = sum(len(journey.visits) for journey in journeys)
        lost = sum(journey.lost_frames for journey in journeys)
        assert visits > len(journeys), "no connection failed"
        figures.append((visits, lost))

    # A client in a black hole retries after 1, 3, 7 and 15 s, and its place must still exist then.
    await on_both_loops(scenario, RELAY_LISTENER_HISTORY_SECONDS="60")
    visits, lost = map(sum, zip(*figures, strict=True))
    assert lost > 0, "nothing was ever too slow"
    figure(
        f"{2 * NETWORKS} listeners through {load.storm_seconds:g} s of faults: {visits} connections, "
        f"{lost} frames named by gaps, 0 unaccounted"
    )
