"""The metrics of several nodes: one page for Prometheus, and the levels of the cluster for CloudWatch.

Invariants: If some nodes do not answer, the figures of the others are published. Nothing here delays audio.

Source: docs/metrics.md, "Several nodes".
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from relay.cluster.bus import Bus
from relay.metrics.levels import Levels, NodeLevels, add_up
from relay.metrics.prometheus import MetricsPage, PrometheusMetrics, merge_pages

ANSWER_SECONDS = 1.0
"""How long a node may take to make its page. It takes about 10 ms."""

_PAGES = "metrics"
_LEVELS = "levels"


class GroupMetrics:
    """Merges the metrics of all workers of one machine into one page.

    It is an async context manager. Within it, this worker answers the others. Workers share a port, so a request
    reaches any of them. `group` is the same for all workers of one supervisor.
    """

    def __init__(self, bus: Bus, metrics: PrometheusMetrics, group: str) -> None:
        self._bus = bus
        self._metrics = metrics
        self._group = group.encode()
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        subscription = await self._bus.answer(_PAGES, self._reply)
        self._stack.callback(subscription.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()

    async def page(self) -> MetricsPage:
        """Return the page of all workers that answer."""
        pages = await self._bus.ask(_PAGES, self._group, ANSWER_SECONDS)
        if self._bus.node_id not in pages:  # the bus is down
            pages[self._bus.node_id] = self._metrics.page().body
        return merge_pages(page for _, page in sorted(pages.items()))

    async def _reply(self, group: bytes) -> bytes:
        """Return this worker's page, or nothing to a worker of another machine."""
        return self._metrics.page().body if group == self._group else b""


class ClusterLevels:
    """Sends the levels of the cluster to CloudWatch.

    It is an async context manager. Within it, this node receives the levels of the others. Of the nodes that are alive,
    the one with the lowest id sends. While nodes disagree about which one that is, two may send, or none.

    Args:
        bus: The bus.
        levels: This node's levels.
        put: CloudWatch's `put_metric_data`.
        namespace: The namespace of the metrics.
    """

    def __init__(self, bus: Bus, levels: NodeLevels, put: Callable[..., object], namespace: str) -> None:
        self._bus = bus
        self._levels = levels
        self._put = put
        self._namespace = namespace
        self._of_nodes: dict[str, Levels] = {}
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        subscription = await self._bus.hear(_LEVELS, self._take)
        self._stack.callback(subscription.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()

    def sample(self) -> None:
        """Report the levels of this node since the last call. Send those of the cluster if that is this node's task.

        The levels of other nodes are at most one sampling interval old.
        """
        here = self._levels.take()
        self._bus.say(_LEVELS, json.dumps([self._bus.node_id, here]).encode())
        alive = self._bus.nodes.keys() | {self._bus.node_id}
        self._of_nodes = {node: levels for node, levels in self._of_nodes.items() if node in alive}
        self._of_nodes[self._bus.node_id] = here
        if self._bus.node_id == min(alive):
            self._put(Namespace=self._namespace, MetricData=list(add_up(self._of_nodes.values())))

    def _take(self, payload: bytes) -> None:
        node, levels = json.loads(payload)
        if node in self._bus.nodes:
            self._of_nodes[node] = levels
