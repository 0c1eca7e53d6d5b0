"""The relay's figures in Prometheus's format, created by prometheus-client on request.

Invariants: Nothing is counted here, so the page costs nothing until it is requested. No label contains a name that a
person chose, so the number of series does not grow with sessions or listeners. Times are in seconds, as is Prometheus's
custom.

Source: prometheus.io/docs/practices/naming, prometheus.io/docs/instrumenting/exposition_formats.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from relay.metrics.distribution import Distribution
from relay.metrics.table import Kind, Metric
from relay.metrics.vitals import Vitals


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """The response of `/metrics`."""

    body: bytes
    content_type: str = CONTENT_TYPE_LATEST
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


class PrometheusMetrics(Collector):
    """Creates the page. `look` returns the relay's figures."""

    def __init__(self, look: Callable[[], Vitals]) -> None:
        self._look = look
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Return nothing. Without this method, the library would collect once to learn the names."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield all current figures (called by the library)."""
        for metric, reading in self._look().readings():
            name = metric.prometheus
            if name is None:
                continue
            if isinstance(reading, Distribution):
                yield _histogram(name, metric.text, reading)
            elif isinstance(reading, Mapping):
                yield _labelled(name, metric, reading)
            elif metric.kind is Kind.COUNTER:
                yield CounterMetricFamily(name, metric.text, _number(reading))
            else:
                yield GaugeMetricFamily(name, metric.text, _number(reading) / (1000 if metric.is_time else 1))

    def page(self) -> MetricsPage:
        """Return the current page."""
        return MetricsPage(generate_latest(self._registry))


def _number(reading: int | tuple[float, ...]) -> float:
    return max(reading, default=0.0) if isinstance(reading, tuple) else reading


def _labelled(name: str, metric: Metric, reading: Mapping[Any, int]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(name, metric.text, labels=metric.labels)
    for key, number in reading.items():
        family.add_metric([str(part) for part in (key if isinstance(key, tuple) else (key,))], number)
    return family


def _histogram(name: str, text: str, distribution: Distribution) -> HistogramMetricFamily:
    buckets: list[tuple[str, float]] = []
    reached = 0
    for bound, count in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        reached += count
        buckets.append(("+Inf" if bound == float("inf") else f"{bound / 1000:g}", reached))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=distribution.total / 1000)
