"""The relay's figures in Prometheus's format, created by prometheus-client on request.

Invariants: Nothing is counted here, so the page costs nothing until it is requested. No label contains a name that a
client chose, so the number of series does not grow with sessions or listeners. Times are in seconds, as is Prometheus's
custom. In a cluster, each figure has the label `node`, so that those of several nodes stay apart and add up.

Source: prometheus.io/docs/practices/naming, prometheus.io/docs/instrumenting/exposition_formats.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from relay.metrics.distribution import Distribution
from relay.metrics.table import Kind
from relay.metrics.vitals import Vitals

_FAMILY = b"# HELP "

Page = Callable[[], "MetricsPage | Awaitable[MetricsPage]"]
"""Returns the page, at once or later."""


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """The response of `/metrics`."""

    body: bytes
    content_type: str = CONTENT_TYPE_LATEST
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})


class PrometheusMetrics(Collector):
    """Creates the page. `look` returns the relay's figures. `node` is the relay's name in its cluster, if any."""

    def __init__(self, look: Callable[[], Vitals], node: str | None = None) -> None:
        self._look = look
        self._node = {} if node is None else {"node": node}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Return nothing. Without this method, the library would collect once to learn the names."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield all current figures (called by the library)."""
        names, values = tuple(self._node), tuple(self._node.values())
        for metric, reading in self._look().readings():
            name = metric.prometheus
            if name is None:
                continue
            if isinstance(reading, Distribution):
                histogram = HistogramMetricFamily(name, metric.text, labels=names)
                histogram.add_metric(values, _buckets(reading), reading.total / 1000)
                yield histogram
                continue
            kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            family = kind(name, metric.text, labels=(*names, *metric.labels))
            if isinstance(reading, Mapping):
                for key, number in reading.items():
                    family.add_metric((*values, *map(str, key if isinstance(key, tuple) else (key,))), number)
            else:
                family.add_metric(values, _number(reading) / (1000 if metric.is_time else 1))
            yield family

    def page(self) -> MetricsPage:
        """Return the current page."""
        return MetricsPage(generate_latest(self._registry))


def merge_pages(pages: Iterable[bytes]) -> MetricsPage:
    """Return one page with the figures of several nodes, each family once, as the format requires."""
    families: dict[bytes, list[bytes]] = {}
    for page in pages:
        for family in page.split(_FAMILY)[1:]:
            # The first lines are the rest of `# HELP` and `# TYPE`.
            *head, samples = family.split(b"\n", 2)
            families.setdefault(_FAMILY + b"\n".join(head) + b"\n", []).append(samples)
    return MetricsPage(b"".join(head + b"".join(samples) for head, samples in families.items()))


def _number(reading: int | tuple[float, ...]) -> float:
    return max(reading, default=0.0) if isinstance(reading, tuple) else reading


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    reached = 0
    for bound, count in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        reached += count
        buckets.append(("+Inf" if bound == float("inf") else f"{bound / 1000:g}", reached))
    return buckets
