import logging
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.hub.lag import LagMeter
from relay.hub.vital_signs import MAX_TOLD_CHANNELS, VitalSigns
from relay.limits.names import Limit
from relay.metrics.metrics import MetricBatch
from relay.metrics.prometheus import PrometheusMetrics
from relay.metrics.table import METRICS
from relay.vocabulary.names import ChannelAddress
from tests.support.hub_bench import ADDRESS, Bench, block, unblock

REPORT = {"type": "stats", "buffer_ms": 90, "playout_ms": 140, "underruns": 2, "jumps": 1}


class Taken:
    """Stands in for CloudWatch and accepts data."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []

    def put(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 - CloudWatch's names
        assert Namespace == "Test"
        self.data = MetricData
        batch = MetricBatch(session_dimension=False)
        for datum in MetricData:
            batch.add(datum)  # type: ignore[arg-type] # it is a datum
        assert batch.measurements_not_sent == 0

    def value(self, name: str) -> Any:
        (found,) = (datum for datum in self.data if datum["MetricName"] == name)
        return found["Value"] if "Value" in found else dict(zip(found["Values"], found["Counts"], strict=True))

    @property
    def names(self) -> set[str]:
        return {datum["MetricName"] for datum in self.data}


class Watched(Bench):
    """A hub and its vital signs."""

    def __init__(self) -> None:
        super().__init__()
        self.lag = LagMeter(self.time, lambda: 0.0)
        self.signs = VitalSigns(self.hub, self.lag, self.time, (self.limits,))
        self.cloudwatch = Taken()

    def emit(self) -> Taken:
        self.signs.emit(self.cloudwatch.put, "Test")
        return self.cloudwatch


async def test_frames_are_counted_where_they_come_and_go() -> None:
    bench = Watched()
    healthy, stalled = bench.join("healthy"), bench.join("stalled")
    source = bench.claim()
    await bench.settle()
    block(stalled)
    for _ in range(100):
        bench.publish(source)
        bench.now += 0.03
        await bench.settle()
    vitals = bench.signs.look()
    assert (vitals.listeners, vitals.broadcasters, vitals.sessions) == (2, 1, 1)
    assert vitals.frames.released_frames == 100
    assert vitals.frames.delivered_frames == len(healthy.frames) == 100
    assert vitals.frames.dropped_frames > 0
    assert len(vitals.frames.delivery_ms) == 100
    bench.signs.sample()
    assert sum(vitals.listener_lag_ms.counts) == 2
    assert [bound for bound, _ in vitals.listener_lag_ms.values()] == [1.0, 1500.0]
    await bench.tasks.close()


async def test_delivery_is_as_late_as_the_drain() -> None:
    bench = Watched()
    bench.join("one")
    bench.join("two")
    source = bench.claim()
    await bench.settle()
    bench.publish(source)
    bench.now += 0.06
    await bench.settle()
    assert list(bench.signs.look().frames.delivery_ms.values()) == [(75.0, 2)]
    await bench.tasks.close()


async def test_listeners_lag_by_what_waits_for_all_of_them() -> None:
    bench = Watched()
    bench.join("one")
    bench.join("two")
    source = bench.claim()
    await bench.settle()
    bench.publish(source)
    bench.now += 0.06
    bench.signs.sample()
    assert list(bench.signs.look().listener_lag_ms.values()) == [(75.0, 2)]
    await bench.settle()
    bench.signs.sample()
    assert list(bench.signs.look().listener_lag_ms.values()) == [(1.0, 2), (75.0, 2)]
    await bench.tasks.close()


async def test_a_channel_that_is_forgotten_keeps_its_counts() -> None:
    bench = Watched()
    listener = bench.join()
    source = bench.claim()
    bench.publish(source, 3)
    await bench.settle()
    bench.leave(listener)
    bench.release(source)
    for _ in range(3):
        bench.now += 100_000
        bench.hub.keep_house()
    vitals = bench.signs.look()
    assert (vitals.sessions, vitals.listeners) == (0, 0)
    assert (vitals.frames.released_frames, vitals.frames.delivered_frames) == (3, 3)
    await bench.tasks.close()


async def test_a_session_that_ends_keeps_its_counts_and_those_of_what_is_delivered_later() -> None:
    bench = Watched()
    bench.join("healthy")
    slow = bench.join("slow")
    source = bench.claim()
    await bench.settle()
    block(slow)
    bench.publish(source, 40)
    await bench.settle()
    bench.emit()
    bench.hub.broadcasting.end(source)
    await bench.settle()
    frames = bench.signs.look().frames
    assert (frames.released_frames, frames.delivered_frames, len(frames.delivery_ms)) == (40, 40, 40)
    assert not bench.emit().names & {"FramesIn", "FramesDelivered", "DeliveryLatency"}
    bench.now += 11
    bench.hub.keep_house()
    assert bench.hub.directory.ended(ADDRESS) is None
    unblock(slow)
    await bench.settle()
    assert bench.emit().value("FramesDropped") == 40
    bench.publish(bench.claim(), 2)
    assert bench.signs.look().frames.released_frames == 42
    await bench.tasks.close()


async def test_cloudwatch_gets_what_happened_since_the_last_time() -> None:
    bench = Watched()
    bench.join()
    source = bench.claim()
    await bench.settle()
    bench.publish(source, 5)
    await bench.settle()
    bench.hub.reports.note(ADDRESS, REPORT, None)
    bench.signs.sample()
    first = bench.emit()
    assert (first.value("FramesIn"), first.value("FramesDelivered"), first.value("Listeners")) == (5, 5, 1)
    assert (first.value("DeliveryLatency"), first.value("ListenerLag")) == ({1.0: 5}, {1.0: 1})
    # Five frames of 20 ms arrived at once.
    assert first.value("IngestLead") == pytest.approx(100, abs=1)
    assert (first.value("ListenerUnderruns"), first.value("ListenerPlayout")) == (2, {150.0: 1})
    assert not first.names & {"FramesDropped", "LoopLag"}
    bench.publish(source, 2)
    await bench.settle()
    second = bench.emit()
    assert (second.value("FramesIn"), second.value("DeliveryLatency")) == (2, {1.0: 2})
    assert not second.names & {"ListenerUnderruns", "ListenerPlayout", "ListenerLag"}
    await bench.tasks.close()


async def test_what_its_source_sends_to_cloudwatch_is_not_sent_twice() -> None:
    class MetricsReporter:
        measurements_not_sent = 3

    bench = Watched()
    bench.signs = VitalSigns(bench.hub, bench.lag, bench.time, (MetricsReporter(),))
    assert bench.emit().names.isdisjoint(metric.cloudwatch for metric in METRICS if metric.is_sent_apart)
    await bench.tasks.close()


async def test_the_log_has_what_listeners_reported(caplog: pytest.LogCaptureFixture) -> None:
    bench = Watched()
    caplog.set_level(logging.INFO)
    bench.claim()
    bench.hub.reports.note(ADDRESS, REPORT, None)
    bench.signs.tell_reports()
    bench.signs.tell_reports()
    (record,) = (record for record in caplog.records if record.message == "listeners reported")
    told = vars(record)
    assert (told["session"], told["channel"], told["reports"]) == ("ev1", "main", 1)
    assert (told["underruns"], told["playout_p50_ms"]) == (2, 150.0)
    await bench.tasks.close()


async def test_listeners_alone_put_no_lines_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can invent sessions, and report what nobody heard."""
    bench = Watched()
    caplog.set_level(logging.INFO)
    for number in range(50):
        address = ChannelAddress(f"invented-{number}", "main")
        bench.join(f"{number}", session=address.session)
        bench.hub.reports.note(address, REPORT, None)
    bench.signs.tell_reports()
    assert not caplog.records
    await bench.tasks.close()


async def test_the_log_names_the_channels_with_the_most_reports(caplog: pytest.LogCaptureFixture) -> None:
    bench = Watched()
    caplog.set_level(logging.INFO)
    for number in range(MAX_TOLD_CHANNELS + 5):
        address = ChannelAddress("ev1", f"{number}")
        bench.claim(channel=address.channel)
        for _ in range(1 + number // 5):
            bench.hub.reports.note(address, REPORT, None)
    bench.signs.tell_reports()
    *told, others = [vars(record) for record in caplog.records if "reported" in record.message]
    assert {each["channel"] for each in told} == {str(number) for number in range(5, MAX_TOLD_CHANNELS + 5)}
    assert (others["message"], others["channels"]) == ("listeners of more channels reported", 5)
    await bench.tasks.close()


async def test_prometheus_reads_the_page() -> None:
    bench = Watched()
    bench.join()
    source = bench.claim()
    await bench.settle()
    bench.publish(source, 4)
    await bench.settle()
    bench.lag.every_ms.note(700.0, 2)
    bench.hub.reports.note(ADDRESS, REPORT, None)
    bench.limits.counters[Limit.CONNECTIONS] = 7
    page = PrometheusMetrics(bench.signs.look).page()
    assert page.content_type.startswith("text/plain")
    families = list(text_string_to_metric_families(page.body.decode()))
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }
    assert samples["relay_frames_in_total",] == 4
    assert samples["relay_frames_delivered_total",] == 4
    assert samples["relay_listeners",] == 1
    assert samples["relay_listener_underruns_total",] == 2
    assert samples["relay_limits_applied_total", ("limit", "max_connections")] == 7
    assert samples["relay_loop_lag_seconds_bucket", ("le", "0.5")] == 0
    assert samples["relay_loop_lag_seconds_bucket", ("le", "0.75")] == 2
    assert samples["relay_loop_lag_seconds_bucket", ("le", "+Inf")] == 2
    assert samples["relay_loop_lag_seconds_sum",] == pytest.approx(1.4)
    assert samples["relay_delivery_latency_seconds_count",] == 4
    assert all(family.documentation for family in families)
    # Session names appear nowhere on this page.
    assert "ev1" not in page.body.decode()
    await bench.tasks.close()
