"""The relay's figures as Prometheus reads them, made by prometheus-client when they are asked for.

Invariants: nothing is counted here, so who never asks costs nothing; no label has a name that a person chose, so the
number of series does not grow with sessions or listeners. Times are in seconds, as is the custom there.

Source: prometheus.io/docs/practices/naming, prometheus.io/docs/instrumenting/exposition_formats.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from relay.metrics.counts import Count, Counted
from relay.metrics.distribution import Distribution
from relay.metrics.vitals import Vitals


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """What `/metrics` answers."""

    body: bytes
    content_type: str = CONTENT_TYPE_LATEST
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


class PrometheusMetrics(Collector):
    """Makes the page."""

    def __init__(self, look: Callable[[], Vitals]) -> None:
        """Make it; `look` gives the relay's figures."""
        self._look = look
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Give nothing: otherwise the library collects once to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give all figures now (called by the library)."""
        vitals = self._look()
        frames, heard = vitals.frames, vitals.heard
        for count, value in vitals.counts.items():
            yield _counter(count, value)
        gauges = {
            "relay_listeners": ("Listeners that are connected.", vitals.listeners),
            "relay_broadcasters": ("Broadcasters that are connected.", vitals.broadcasters),
            "relay_sessions": ("Sessions that have channels.", vitals.sessions),
            "relay_ingest_lead_seconds": (
                "How far the audio of the broadcaster that is furthest ahead reaches into the future.",
                max(vitals.ingest_lead_ms, default=0.0) / 1000,
            ),
        }
        for name, (text, level) in gauges.items():
            yield GaugeMetricFamily(name, text, value=level)
        distributions = {
            "relay_delivery_latency_seconds": ("Age of frames when they are written.", frames.delivery_ms),
            "relay_listener_lag_seconds": ("Age of what listeners are owed, sampled.", vitals.listener_lag_ms),
            "relay_loop_lag_seconds": ("How late the event loop is, sampled.", vitals.loop_lag_ms),
            "relay_listener_buffer_seconds": ("Audio that waits in players, as they report.", heard.buffer_ms),
            "relay_listener_playout_seconds": ("Until audio is heard, as players report.", heard.playout_ms),
        }
        for name, (text, distribution) in distributions.items():
            yield _histogram(name, text, distribution)

    def page(self) -> MetricsPage:
        """Give the page now."""
        return MetricsPage(generate_latest(self._registry))


def _counter(count: Count, value: Counted) -> CounterMetricFamily:
    if isinstance(value, int):
        return CounterMetricFamily(count.prometheus, count.text, value=value)
    family = CounterMetricFamily(count.prometheus, count.text, labels=count.labels)
    for key, number in value.items():
        family.add_metric([str(part) for part in (key if isinstance(key, tuple) else (key,))], number)
    return family


def _histogram(name: str, text: str, distribution: Distribution) -> HistogramMetricFamily:
    buckets: list[tuple[str, float]] = []
    reached = 0
    for bound, count in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        reached += count
        buckets.append(("+Inf" if bound == float("inf") else f"{bound / 1000:g}", reached))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=distribution.total / 1000)
