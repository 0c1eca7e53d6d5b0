"""A load test on the terminal: its progress and its findings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from relay.loadtest.plan import LoadPlan
from relay.loadtest.results import ADVICE, LoadResult, ProcessUse, unplanned
from relay.loadtest.run import Progress as LoadProgress

_NOTHING = "–"
_MILLION = 1e6


@contextmanager
def progress_line(plan: LoadPlan) -> Iterator[Callable[[LoadProgress], None]]:
    """Show the progress on standard error if that is a terminal. Yield the function that updates it."""
    console = Console(stderr=True)
    line = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[state]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        # A thread that draws ten times a second would compete with the broadcasters for the interpreter.
        auto_refresh=False,
    )
    task = line.add_task("joining", total=plan.listeners, state="")

    def show(progress: LoadProgress) -> None:
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        second = progress.second
        if second is None:
            state = f"{progress.joined:,} of {plan.listeners:,} listeners{failed}"
            line.update(task, completed=progress.joined + progress.failed, state=state)
        else:
            at = min(second.at_seconds, plan.duration_seconds)
            lost = f", {second.gap_frames:,} lost" if second.gap_frames else ""
            rate = f"{second.frames / second.length_seconds:,.0f} frames/s{lost}, p99 {milliseconds(second.p99_ms)}"
            state = f"{at:.0f} of {plan.duration_seconds:g} s, {second.connected:,} listeners{failed}, {rate}"
            line.update(task, description="playing", total=plan.duration_seconds, completed=at, state=state)
        line.refresh()

    with line:
        yield show


def result_table(result: LoadResult) -> RenderableType:
    """Lay out the result for a person."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _rows(result):
        table.add_row(name, value)
    return Group(Text(result.description), Padding(table, (1, 1)), *_verdicts(result))


def _rows(result: LoadResult) -> Iterator[tuple[str, str]]:
    yield "latency", _latency(result)
    yield "delivered", _delivered(result)
    yield "loss", _loss(result)
    yield "joins", _joins(result)
    if result.slow.connections:
        yield "not reading", _slow(result)
    for process in result.generator:
        yield process.name, _process(process)
    if result.server is not None:
        yield "server", _server(result)
        yield "", result.server.name


def _latency(result: LoadResult) -> str:
    metrics = result.metrics()
    names = {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99", "p999_ms": "p99.9", "max_ms": "max"}
    text = "   ".join(f"{name} {milliseconds(metrics[metric])}" for metric, name in names.items())
    uncertainty = result.clock_uncertainty_ms
    compared = "" if uncertainty is None else f", clocks compared to ±{uncertainty:.1f} ms"
    return f"{text}   (from the {result.latency_from}{compared})"


def _delivered(result: LoadResult) -> str:
    metrics = result.metrics()
    late = f"{number(metrics['late_frames'])} later than {result.plan.late_ms} ms"
    each = f"{number(metrics['kbps_per_listener'])} kb/s each"
    rate = f"{number(metrics['frames_per_second'])}/s, {number(metrics['bytes_per_second'], _MILLION, 1)} MB/s, {each}"
    return f"{number(metrics['delivered_frames'])} frames, {rate}; {late}"


def _loss(result: LoadResult) -> str:
    healthy = result.healthy
    text = "0 frames"
    if healthy.gap_frames:
        worst = f"{healthy.worst_loss_percent:.3g} % of the worst listener's"
        share = f"{healthy.loss_percent or 0.0:.3g} % of all, {worst}"
        text = f"{healthy.gap_frames:,} frames in {healthy.gaps:,} gaps: {share}"
    if healthy.undelivered:
        text += f"; {healthy.undelivered:,} had not arrived when the test ended"
    return text


def _joins(result: LoadResult) -> str:
    metrics = result.metrics()
    names = {"join_p50_ms": "p50", "join_p99_ms": "p99", "join_max_ms": "max"}
    times = "   ".join(f"{name} {milliseconds(metrics[metric])}" for metric, name in names.items())
    trouble = f"{number(metrics['join_failures'])} failed, {number(metrics['disconnects'])} disconnected later"
    return f"{number(metrics['joins'])}, {times}; {trouble}"


def _slow(result: LoadResult) -> str:
    slow = result.slow
    cut_off = number(result.metrics()["slow_disconnects"])
    return f"{slow.connections:,}, {cut_off} cut off; {slow.gap_frames:,} frames lost in {slow.gaps:,} gaps"


def _process(process: ProcessUse) -> str:
    busy = f"{process.busy_percent:.0f} % of a CPU, {process.worst_busy_percent:.0f} % in the worst second"
    late = "events waited for" if process.receives else "frames were late by"
    return f"{busy}; {late} up to {process.lag_ms:.0f} ms"


def _server(result: LoadResult) -> str:
    server, metrics = result.server, result.metrics()
    assert server is not None  # noqa: S101 - the caller checked
    per_delivery = f"{number(metrics['server_cpu_us_per_delivery'], 1, 1)} µs per delivery"
    cpu = f"{number(metrics['server_cpu_percent'])} % of a CPU, {per_delivery}"
    memory = f"{number(server.rss_before, _MILLION)} → {number(server.rss_peak, _MILLION)} MB"
    growth = metrics["server_kib_per_listener"]
    each = "" if growth is None else f", {growth:.1f} KiB per listener"
    return f"{cpu}; memory {memory}{each}"


def _verdicts(result: LoadResult) -> Iterator[Text]:
    """Yield the findings that must not be overlooked."""
    if result.ended_early is not None:
        yield Text(f"The test ended early: {result.ended_early}", "red")
    unaccounted = result.healthy.unaccounted + result.slow.unaccounted
    if unaccounted:
        yield Text(f"{unaccounted:,} frames are unaccounted for: missing without a gap, or received twice.", "red")
    for how, count in result.failures.items():
        yield Text(f"{count:,} could not join: {how}", "yellow")
    for how, count in unplanned(result.closes).items():
        yield Text(f"{count:,} were disconnected: {how}", "yellow")
    if result.bottlenecks:
        yield Text("The load generator was the bottleneck, so the latencies are not the server's:", "yellow")
        for sentence in (*result.bottlenecks, ADVICE):
            yield Text(f"  {sentence}", "yellow")
    for note in result.notes:
        yield Text(note)


def milliseconds(value: float | None) -> str:
    """Format a time for a person."""
    return _NOTHING if value is None else f"{value:,.0f} ms"


def number(value: float | None, unit: float = 1, digits: int = 0) -> str:
    """Format a number for a person, in units of `unit`."""
    return _NOTHING if value is None else f"{value / unit:,.{digits}f}"
