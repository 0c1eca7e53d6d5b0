"""A relay's part in a cluster: the bus, and the objects that use it. Only a relay with `cluster.url` imports this."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from relay.cluster.cluster import Cluster
from relay.cluster.figures import ClusterLevels, GroupMetrics
from relay.cluster.nats_bus import NatsBus, open_bus
from relay.cluster.operators import ClusterOperations
from relay.cluster.seats import SharedSeats
from relay.hub.hub import Hub
from relay.hub.operations import Operations
from relay.limits.seats import Seats
from relay.metrics.levels import NodeLevels
from relay.metrics.prometheus import PrometheusMetrics
from relay.process.logs import add_log_fields
from relay.process.tasks import TaskRegistry
from relay.settings.settings import Settings
from relay.vocabulary.clock import relay_clock, wall_clock


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """The parts that make a relay a node of a cluster.

    Attributes:
        bus: Connects this node with the others.
        cluster: The channels of this node.
        seats: The seats of all nodes.
        operations: Does on all nodes what an operator wants.
        tasks: The tasks of all these.
    """

    bus: NatsBus
    cluster: Cluster
    seats: SharedSeats
    operations: ClusterOperations
    tasks: TaskRegistry

    @property
    def holders(self) -> tuple[object, ...]:
        """The objects with metrics."""
        return self.cluster.tally, self.bus.outbox, self.bus.shares, self.seats

    async def share_page(self, metrics: PrometheusMetrics, stack: contextlib.AsyncExitStack) -> GroupMetrics:
        """Return the metrics of all workers of this supervisor. They are shared until `stack` closes."""
        group = f"{socket.gethostname()} {os.getppid()}"
        return await stack.enter_async_context(GroupMetrics(self.bus, metrics, group))

    async def share_levels(
        self, levels: NodeLevels, put: Callable[..., object], namespace: str, stack: contextlib.AsyncExitStack
    ) -> ClusterLevels:
        """Return the sender of the cluster's levels to CloudWatch. Levels are shared until `stack` closes."""
        return await stack.enter_async_context(ClusterLevels(self.bus, levels, put, namespace))


@contextlib.asynccontextmanager
async def cluster_node(
    settings: Settings, hub: Hub, seats: Seats, operations: Operations
) -> AsyncIterator[ClusterNode]:
    """Be a node of the cluster within the context.

    Raises:
        ConfigurationError: The bus can't be used. The text says why, and what to do.
    """
    tasks = TaskRegistry()
    bus = open_bus(settings)
    cluster = Cluster(
        bus,
        hub,
        tasks,
        clock=relay_clock,
        wall_clock=wall_clock,
        history_seconds=settings.listener.history_seconds,
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(bus)
        add_log_fields(node=bus.node_id)
        stack.push_async_callback(tasks.close)
        await cluster.open()
        shared = await stack.enter_async_context(SharedSeats(bus, seats))
        over_all = await stack.enter_async_context(ClusterOperations(bus, operations))
        tasks.start(cluster.run(), "cluster", is_vital=True)
        tasks.start(shared.run(), "seats of the cluster")
        yield ClusterNode(bus, cluster, shared, over_all, tasks)
