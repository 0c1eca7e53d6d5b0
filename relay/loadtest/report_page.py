"""The result of a load test as one self-contained HTML page: no network, no scripts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from relay.loadtest.account import LEFT, NORMAL_CLOSE, STILL_OPEN
from relay.loadtest.charts import Chart, Series
from relay.loadtest.histogram import Histogram
from relay.loadtest.results import ADVICE, BUSY_LIMIT_PERCENT, METRICS, LoadResult, ProcessUse, Second
from relay.loadtest.target import LatencyFrom

_CURVE_POINTS = 60
_PERCENTILES = (0.0, 90.0, 99.0, 99.9, 99.99, 99.999)
_NOTHING = "–"
_CLOSES = {
    NORMAL_CLOSE: "1000, the session ended",
    LEFT: "left as planned",
    STILL_OPEN: "still open when the test stopped waiting",
}

_LATENCY_FROM = {
    LatencyFrom.BROADCASTER: "Latency is measured from the moment when the broadcaster sends a frame.",
    LatencyFrom.RELAY: "Latency is measured from the moment when a frame arrives at the relay.",
}


def report_page(result: LoadResult) -> str:
    """Return the page."""
    title = f"Load test: {result.plan.profile}, {result.plan.listeners:,} listeners"
    style = (files(__package__) / "report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>",
            f"<h1>{escape(title)}</h1>",
            f"<p class=note>{escape(result.description)}, {escape(result.measured_at)}</p>",
            f"<p class=note>{_LATENCY_FROM[result.latency_from]}</p>",
            *_said(result),
            "<div class=tiles>",
            *_tiles(result.metrics()),
            "</div>",
            "<div class=charts>",
            *(_figure(chart) for chart in _charts(result)),
            "</div>",
            *_tables(result),
            "</html>",
            "",
        ]
    )


def _said(result: LoadResult) -> Iterable[str]:
    """Yield the findings that must not be overlooked."""
    unaccounted = result.healthy.unaccounted + result.slow.unaccounted
    if result.ended_early is not None:
        yield _box("bad", f"The test ended early: {result.ended_early}")
    if unaccounted:
        yield _box("bad", f"{unaccounted:,} frames are unaccounted for: missing without a gap, or received twice.")
    if result.bottlenecks:
        yield _box(
            "",
            "The load generator was the bottleneck, so the latencies are not the server's.",
            *result.bottlenecks,
            ADVICE,
        )
    if result.notes:
        yield _box("", *result.notes)
    if not (unaccounted or result.bottlenecks or result.ended_early):
        yield _box("good", "Every frame is accounted for, and the load generator was fast enough to measure it.")


def _box(kind: str, *sentences: str) -> str:
    return f'<div class="said {kind}">' + "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences) + "</div>"


def _tiles(metrics: Mapping[str, float | None]) -> Iterable[str]:
    tiles = (
        ("p50_ms", "median latency", "{:,.0f} ms"),
        ("p99_ms", "latency of 99 % of frames, at most", "{:,.0f} ms"),
        ("max_ms", "worst frame", "{:,.0f} ms"),
        ("frames_per_second", "frames delivered per second", "{:,.0f}"),
        ("kbps_per_listener", "received by each listener", "{:,.0f} kb/s"),
        ("loss_percent", "of frames lost in gaps", "{:.3g} %"),
        ("join_p99_ms", "time to join of 99 % of listeners, at most", "{:,.0f} ms"),
        ("disconnects", "disconnected", "{:,.0f}"),
        ("server_cpu_us_per_delivery", "server CPU per delivery", "{:.1f} µs"),
    )
    for metric, words, form in tiles:
        value = metrics[metric]
        shown = _NOTHING if value is None else form.format(value)
        yield f'<div class=tile title="{metric}"><b>{shown}</b><span>{words}</span></div>'


def _figure(chart: Chart) -> str:
    unit = f" <span class=note>{escape(chart.unit)}</span>" if chart.unit else ""
    return f"<figure><h2>{escape(chart.title)}{unit}</h2>\n{chart.to_svg()}\n</figure>"


def _charts(result: LoadResult) -> Iterable[Chart]:
    seconds = result.seconds
    yield _over_time(
        "Latency, second by second",
        "ms",
        seconds,
        ("p50", lambda second: second.p50_ms),
        ("p99", lambda second: second.p99_ms),
        ("max", lambda second: second.max_ms),
    )
    yield _percentile_curve("Maximum latency by share of frames", "% of frames", result.latency)
    yield _over_time(
        "Frames delivered per second", "", seconds, ("delivered", lambda second: second.frames / second.length_seconds)
    )
    yield _over_time("Listeners connected", "", seconds, ("connected", lambda second: second.connected))
    yield _over_time(
        "Share of one CPU",
        "%",
        seconds,
        ("server", lambda second: second.server_cpu_percent),
        ("generator", lambda second: second.generator_busy_percent),
        limit=(BUSY_LIMIT_PERCENT, "above this, the generator is the bottleneck"),
    )
    yield _percentile_curve("Maximum time to join by share of listeners", "% of joins", result.joins)


def _over_time(
    title: str,
    unit: str,
    seconds: Sequence[Second],
    *lines: tuple[str, Callable[[Second], float | None]],
    limit: tuple[float, str] | None = None,
) -> Chart:
    series = [Series(name, [(second.at_seconds, value(second)) for second in seconds]) for name, value in lines]
    measured = [line for line in series if any(y is not None for _, y in line.points)]
    return Chart(title, unit, "seconds", measured, limit=limit)


def _percentile_curve(title: str, x_label: str, histogram: Histogram) -> Chart:
    """Draw percentiles so that 90, 99, 99.9 … are equally far apart, as far as the number of values allows."""
    total = histogram.total
    last = math.log10(total) if total > 1 else 1.0
    points: list[tuple[float, float | None]] = []
    for number in range(_CURVE_POINTS + 1):
        nines = last * number / _CURVE_POINTS
        points.append((nines, histogram.percentile(100 * (1 - 10**-nines))))
    ticks = [(_nines(percentile), f"{percentile:g}") for percentile in _PERCENTILES if _nines(percentile) <= last]
    return Chart(title, "ms", x_label, [Series("", points)], x_ticks=ticks)


def _nines(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def _tables(result: LoadResult) -> Iterable[str]:
    counts = [
        ("How connections ended", result.closes),
        ("How connections that did not read ended", result.slow_closes),
        ("Why listeners could not join", result.failures),
    ]
    for caption, rows in counts:
        if rows:
            yield _table(caption, ((f"{count:,}", _CLOSES.get(how, how)) for how, count in rows.items()))
    yield _table(
        "The load generator's processes, share of one CPU",
        ((f"{use.busy_percent:.0f} %", _process(use)) for use in result.generator),
    )
    yield _table(
        "All figures, with the names for --fail-if",
        ((_shown(value), f"{name} — {METRICS[name].meaning}") for name, value in result.metrics().items()),
    )
    if result.server is not None:
        yield f"<p class=note>The server: {escape(result.server.name)}</p>"


def _process(use: ProcessUse) -> str:
    late = f"late by up to {use.lag_ms:.0f} ms"
    return f"{use.name}: {use.cpu_seconds:.2f} s of CPU, {use.worst_busy_percent:.0f} % in the worst second, {late}"


def _table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    body = "\n".join(
        f"<tr><td class=number>{escape(number)}</td><td>{escape(words)}</td></tr>" for number, words in rows
    )
    return f"<div class=table><table><caption>{escape(caption)}</caption>\n{body}\n</table></div>"


def _shown(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
