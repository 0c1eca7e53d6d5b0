"""The metrics of several nodes add up: on one page for Prometheus, and in the series of CloudWatch."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.cluster import figures
from relay.cluster.figures import ClusterLevels, GroupMetrics
from relay.hub.lag import LagMeter
from relay.hub.vital_signs import VitalSigns
from relay.limits.names import Limit
from relay.metrics.levels import NodeLevels, add_up
from relay.metrics.prometheus import PrometheusMetrics, merge_pages
from relay.metrics.table import METRICS, Kind
from tests.support.hub_bench import Bench
from tests.support.memory_bus import MemoryBus, MemoryCluster

NAMESPACE = "Test"


class Worker:
    """A node with figures."""

    def __init__(self, bus: MemoryBus, group: str = "this machine") -> None:
        self.bus = bus
        self.bench = Bench()
        lag = LagMeter(self.bench.time, lambda: 0.0)
        self.signs = VitalSigns(self.bench.hub, lag, self.bench.time, (self.bench.limits,))
        self.metrics = PrometheusMetrics(self.signs.look, bus.node_id)
        self.group = GroupMetrics(bus, self.metrics, group)
        self.sent: list[Mapping[str, Any]] = []
        self.levels = NodeLevels(self.put, bus.node_id)
        self.cluster_levels = ClusterLevels(bus, self.levels, self.put, NAMESPACE)

    def put(self, *, Namespace: str, MetricData: Sequence[Mapping[str, Any]]) -> None:  # noqa: N803 - CloudWatch's names
        assert Namespace == NAMESPACE
        self.sent += MetricData

    def sample(self) -> None:
        self.signs.emit(self.levels.put_metric_data, NAMESPACE)
        self.cluster_levels.sample()

    def take(self, name: str) -> list[tuple[float, str | None]]:
        """Return what was sent of a metric, each with its node."""
        sent = [each for each in self.sent if each["MetricName"] == name]
        return [(each["Value"], dict(_pairs(each)).get("Node")) for each in sent]


def _pairs(datum: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(each["Name"], each["Value"]) for each in datum.get("Dimensions", ())]


async def join(stack: AsyncExitStack, cluster: MemoryCluster, name: str, group: str = "this machine") -> Worker:
    worker = Worker(await stack.enter_async_context(cluster.bus(name)), group)
    stack.push_async_callback(worker.bench.tasks.close)
    stack.callback(worker.bench.hub.broadcasting.close)
    await stack.enter_async_context(worker.group)
    await stack.enter_async_context(worker.cluster_levels)
    return worker


def read(page: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "le")): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.labels.get("le") in (None, "+Inf")
    }


async def test_the_page_of_any_worker_has_all_workers_of_its_machine() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster()
        one, two = [await join(stack, cluster, name) for name in ("one", "two")]
        other = await join(stack, cluster, "other", "another machine")
        for worker, count in ((one, 1), (two, 2), (other, 5)):
            for number in range(count):
                worker.bench.join(f"{number}")
            worker.bench.limits.counters[Limit.CONNECTIONS] = count
        pages = [(await worker.group.page()).body for worker in (one, two)]
        assert pages[0] == pages[1]
        samples = read(pages[0])
        assert (samples["relay_listeners", "one"], samples["relay_listeners", "two"]) == (1, 2)
        assert samples["relay_limits_applied_total", "max_connections", "two"] == 2
        assert samples["relay_loop_lag_seconds_count", "one"] == 0
        assert not any("other" in labels for labels in samples)
        assert {labels[1] for labels in samples if len(labels) == 2} == {"one", "two"}
        assert pages[0].count(b"# TYPE relay_listeners gauge\n") == 1, "a family appears once"


async def test_a_page_lacks_a_worker_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "ANSWER_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster(expiry_seconds=60)
        one, two = [await join(stack, cluster, name) for name in ("one", "two")]
        two.bus.cut()
        for worker in (one, two):
            name = worker.bus.node_id
            assert {labels[1] for labels in read((await worker.group.page()).body) if len(labels) == 2} == {name}


async def test_without_a_cluster_nothing_has_a_node() -> None:
    bench = Bench()
    page = PrometheusMetrics(VitalSigns(bench.hub, LagMeter(bench.time, lambda: 0.0), bench.time).look).page().body
    assert b"node=" not in page
    assert merge_pages([page]).body == page
    await bench.tasks.close()


async def test_each_node_has_its_levels_and_one_sends_those_of_the_cluster() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster()
        one, two = [await join(stack, cluster, name) for name in ("one", "two")]
        one.bench.join("a")
        two.bench.join("b")
        two.bench.join("c")
        two.bench.claim()
        two.sample()
        await cluster.settle()
        one.sample()
        assert one.take("Listeners") == [(1, "one"), (3, None)]
        assert two.take("Listeners") == [(2, "two")]
        assert one.take("Broadcasters") == [(0, "one"), (1, None)]
        assert one.take("Sessions") == [(1, "one"), (1, None)], "both know the same session"
        assert two.take("IngestLead")[0][1] is None, "times of all nodes mix in one series"
        await two.bus.end()
        await cluster.settle()
        one.sample()
        assert one.take("Listeners")[-1] == (1, None), "a node that is gone counts no more"


async def test_another_node_sends_when_the_first_has_gone() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster()
        one, two = [await join(stack, cluster, name) for name in ("one", "two")]
        two.sample()
        assert [node for _, node in two.take("Listeners")] == ["two"]
        await one.bus.end()
        await cluster.settle()
        two.sample()
        assert [node for _, node in two.take("Listeners")] == ["two", "two", None]


def test_levels_of_a_session_keep_their_session_and_do_not_count_for_the_node() -> None:
    sent: list[Mapping[str, Any]] = []

    def put(*, MetricData: Sequence[Mapping[str, Any]], **_: str) -> None:  # noqa: N803 - CloudWatch's names
        sent.extend(MetricData)

    levels = NodeLevels(put, "one")
    session = {"Name": "SessionId", "Value": "ev1"}
    data = [
        {"MetricName": "ActiveBuffers", "Value": 3.0, "Unit": "Count"},
        {"MetricName": "ActiveBuffers", "Value": 2.0, "Unit": "Count", "Dimensions": [session]},
        {"MetricName": "BufferOverflow", "Value": 1.0, "Unit": "Count", "Dimensions": [session]},
    ]
    levels.put_metric_data(Namespace=NAMESPACE, MetricData=data)
    assert [_pairs(datum) for datum in sent] == [
        [("Node", "one")],
        [("SessionId", "ev1"), ("Node", "one")],
        [("SessionId", "ev1")],
    ]
    assert levels.take() == {"ActiveBuffers": 3.0}
    assert levels.take() == {}, "what was not measured since is not known"


def test_the_average_of_the_buffers_weighs_each_listener_alike() -> None:
    nodes = [
        {"AverageBufferUtilization": 10.0, "MaxBufferUtilization": 90.0, "ActiveBuffers": 1.0},
        {"AverageBufferUtilization": 40.0, "MaxBufferUtilization": 50.0, "ActiveBuffers": 2.0},
        {},
    ]
    added = {datum["MetricName"]: datum["Value"] for datum in add_up(nodes)}
    assert added == {"AverageBufferUtilization": 30.0, "MaxBufferUtilization": 90.0, "ActiveBuffers": 3.0}
    assert [datum["Value"] for datum in add_up([{"AverageBufferUtilization": 0.0}])] == [0.0]


def test_every_level_that_cloudwatch_gets_is_added_up() -> None:
    levels = {metric.cloudwatch: 1.0 for metric in METRICS if metric.kind is Kind.GAUGE and metric.cloudwatch}
    added = {datum["MetricName"] for datum in add_up([levels])}
    assert levels.keys() - added == {"IngestLead"}, "CloudWatch gets the lead of each broadcaster"
