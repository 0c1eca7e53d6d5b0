"""Levels of several nodes in CloudWatch: each node has its own series, and one node sends those of the cluster.

Nodes whose data go into the same series mix their samples. That is right for counters, whose Sum adds up, and for
times, whose percentiles are those of all listeners. Of a level, such as the number of listeners, the Average would be
that of one node. So in a cluster, each node's levels have the dimension `Node`, and those without it are the cluster's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import mul
from typing import Any

from relay.metrics.metrics import MetricDatum
from relay.metrics.table import METRICS, Kind

NODE_DIMENSION = "Node"
"""The dimension that names a node of a cluster."""

Levels = Mapping[str, float]
"""Levels by the name of their metric."""

_LEVELS = {
    metric.cloudwatch: metric
    for metric in METRICS
    if metric.kind is Kind.GAUGE and metric.cloudwatch is not None and not metric.is_time
}
_BUFFERS = "ActiveBuffers"
_AVERAGE = "AverageBufferUtilization"
_HIGHEST = frozenset({"MaxBufferUtilization", "Sessions"})
"""Levels whose highest value counts. Each node knows all sessions of the cluster."""


class NodeLevels:
    """Passes metric data on, and keeps a node's levels apart.

    Args:
        put: CloudWatch's `put_metric_data`, or one like it.
        node: The node's name.
    """

    def __init__(self, put: Callable[..., object], node: str) -> None:
        self._put = put
        self._dimension = {"Name": NODE_DIMENSION, "Value": node}
        self._levels: dict[str, float] = {}

    def put_metric_data(self, *, Namespace: str, MetricData: Iterable[Mapping[str, Any]]) -> None:  # noqa: N803 - the names are CloudWatch's
        """Pass data on. Add the dimension of the node to levels, and remember those of the whole node."""
        self._put(Namespace=Namespace, MetricData=[self._place(datum) for datum in MetricData])

    def _place(self, datum: Mapping[str, Any]) -> Mapping[str, Any]:
        name, dimensions = datum["MetricName"], datum.get("Dimensions", ())
        if name not in _LEVELS:
            return datum
        if not dimensions:
            self._levels[name] = datum["Value"]
        return {**datum, "Dimensions": [*dimensions, self._dimension]}

    def take(self) -> Levels:
        """Return the node's levels since the last call."""
        levels, self._levels = self._levels, {}
        return levels


def add_up(of_nodes: Iterable[Levels]) -> Iterator[MetricDatum]:
    """Yield the levels of a cluster. A level that no node has is left out."""
    nodes = list(of_nodes)
    for name, metric in _LEVELS.items():
        values = [levels[name] for levels in nodes if name in levels]
        if not values:
            continue
        if name == _AVERAGE:
            weights = [levels.get(_BUFFERS, 0) for levels in nodes if name in levels]
            value = sum(map(mul, values, weights)) / (sum(weights) or 1)
        else:
            value = max(values) if name in _HIGHEST else sum(values)
        yield {"MetricName": name, "Value": value, "Unit": metric.unit}
