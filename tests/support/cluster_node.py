"""A node of a cluster within the test's process: a hub with its drain, on a bus in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.cluster.cluster import Cluster
from relay.hub.channel import Broadcaster
from relay.protocol.requests import Delivery, Offer
from relay.vocabulary.clock import relay_clock, wall_clock
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress
from tests.support.hub_bench import ADDRESS, FRAME, Bench, FakePort, FakeSourcePort
from tests.support.memory_bus import MemoryBus, MemoryCluster

SECONDS = 30.0
"""How long a test waits for what takes milliseconds, unless the machine is busy."""


class ClusterNode:
    """One node.

    Attributes:
        bench: Its hub.
        bus: Its side of the bus.
        cluster: Its part in the cluster.
    """

    def __init__(
        self, cluster: MemoryCluster, name: str, *, skew_seconds: float = 0.0, wall_skew_seconds: float = 0.0
    ) -> None:
        def clock() -> float:
            return relay_clock() + skew_seconds + self._passed_seconds

        def wall() -> float:
            return wall_clock() + wall_skew_seconds + self._passed_seconds

        self.name = name
        self._passed_seconds = 0.0
        self.bench = Bench(bound_seconds=10.0, clock=clock, renditions=None)
        self.bus: MemoryBus = cluster.bus(name)
        self.cluster = Cluster(
            self.bus, self.bench.hub, self.bench.tasks, clock=clock, wall_clock=wall, history_seconds=10.0
        )
        self._sources = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ClusterNode"]:
        async with self.bus:
            await self.cluster.open()
            self.bench.tasks.start(self.cluster.run(), "cluster")
            self.bench.tasks.start(self.bench.hub.run(), "housekeeping")
            try:
                yield self
            finally:
                await self.bench.tasks.close()
                self.bench.hub.broadcasting.close()

    def let_pass(self, seconds: float) -> None:
        """Move its clock and its time of day, as if this time had passed in between."""
        self._passed_seconds += seconds

    async def die(self) -> None:
        """End as a process that is killed: nothing is said, and nothing leaves any more."""
        self.bus.cut()
        await self.bench.tasks.close()
        self.bench.hub.broadcasting.close()

    async def claim(
        self, offer: Offer | None = None, *, connection_id: str | None = None, address: ChannelAddress = ADDRESS
    ) -> tuple[Broadcaster, FakeSourcePort]:
        """Claim a channel as a broadcaster does."""
        self._sources += 1
        name = connection_id or f"source {self._sources} of {self.name}"
        offer = offer or Offer()
        ready = asyncio.get_running_loop().create_future()

        def then(error: RelayError | None) -> None:
            if error is None:
                # In the same step, as the server does it.
                port = FakeSourcePort()
                ready.set_result((self.bench.hub.broadcasting.claim(address, offer, name, port), port))
            else:
                ready.set_exception(error)

        assert not self.bench.hub.gate.before_claim(address, offer, name, then)
        async with asyncio.timeout(SECONDS):
            source: tuple[Broadcaster, FakeSourcePort] = await ready
            return source

    async def join(
        self, name: str = "listener", delivery: Delivery | None = None, *, address: ChannelAddress = ADDRESS
    ) -> FakePort:
        """Join a channel as a listener does."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.bench.hub.gate.before_join(address, delivery or Delivery(), lambda _: ready.set_result(None)):
            async with asyncio.timeout(SECONDS):
                await ready
        return self.bench.join(name, delivery=delivery, session=address.session, channel=address.channel)

    def publish(self, source: Broadcaster, frames: int = 1, audio: bytes = FRAME) -> None:
        """Send audio as a broadcaster does."""
        self.bench.publish(source, frames, audio)
