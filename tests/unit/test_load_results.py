"""How the reports of the receiving processes become figures, conditions, a verdict and a page."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from relay.loadtest.account import (
    LEFT,
    NORMAL_CLOSE,
    STILL_OPEN,
    Accounts,
    Report,
)
from relay.loadtest.charts import Chart, Series, round_ticks
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import LoadPlan
from relay.loadtest.recorder import Recorder
from relay.loadtest.report_page import report_page
from relay.loadtest.results import METRICS, LoadResult, ProcessUse, ServerSample, parse_condition
from relay.vocabulary.errors import UserError

ROOT = Path(__file__).parent.parent.parent
PLAN = LoadPlan("ws://relay.example", listeners=20, sessions=2, duration_seconds=2.0, processes=2, late_ms=30)


def counted(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def sample(cpu: float, rss: int, uss: int | None = None) -> ServerSample:
    return ServerSample(cpu, rss, uss)


def recorded() -> LoadResult:
    """Return a recording of two processes over two seconds, in which one listener is cut off."""
    recorder = Recorder(PLAN, sample(1.0, 10_000_000, 8_000_000))
    recorder.add([Report(joining=3, joins=counted(5, 6)), Report(joins=counted(50))])
    recorder.add([Report(joins=counted(7)), Report(failures={"HTTP 503": 2})])
    quiet = [Report(cpu_seconds=1.0, waiting_seconds=0.5, failures={"HTTP 503": 2}), Report(cpu_seconds=2.0)]
    recorder.begin(100.0, quiet, Report(cpu_seconds=0.5), sample(2.0, 12_000_000, 9_000_000))
    first = [
        Report(connected=10, latency=counted(1, 2), received_bytes=660, cpu_seconds=1.2, waiting_seconds=0.5, lag_ms=3),
        Report(connected=9, latency=counted(40), received_bytes=330, cpu_seconds=2.5, clock_uncertainty_ms=0.0),
    ]
    second = recorder.note(101.0, first, Report(cpu_seconds=0.6, lag_ms=7.0), sample(2.25, 20_000_000, 19_240_000))
    assert (second.at_seconds, second.connected, second.frames, second.received_bytes) == (1.0, 19, 3, 990)
    assert (second.p50_ms, second.p99_ms, second.max_ms) == (2, 40, 40)
    assert second.generator_busy_percent == pytest.approx(50)
    assert second.server_cpu_percent == pytest.approx(25)
    busy = [
        replace(first[0], latency=counted(3), cpu_seconds=1.9, waiting_seconds=0.7, lag_ms=2),
        replace(first[1], latency=counted(), cpu_seconds=2.6, clock_uncertainty_ms=0.25),
    ]
    recorder.note(102.0, busy, Report(cpu_seconds=0.7, lag_ms=1.0), sample(2.5, 15_000_000))
    recorder.note(102.5, [replace(report, latency=counted()) for report in busy], Report(cpu_seconds=0.7), None)
    last = Report(
        latency=counted(90),
        healthy=Accounts(10, 5, 1, 1, 0, 0, 50.0),
        closes={NORMAL_CLOSE: 8, LEFT: 4, STILL_OPEN: 1, "1006 (no close frame)": 1},
        slow_closes={"1006 (no close frame)": 3},
        slow=Accounts(3, 0, 7, 1, 2, 0, 100.0),
    )
    recorder.add([last, Report(healthy=Accounts(2, 3, 0, 0, 0, 1), failures={"HTTP 503": 2})])
    return recorder.result(200, None, "relay serve (process 7)", ["A note."])


def test_every_named_figure_is_measured() -> None:
    metrics = recorded().metrics()
    assert list(metrics) == list(METRICS)
    expected = {
        "p50_ms": 3,
        "p99_ms": 90,
        "max_ms": 90,
        "late_frames": 2,
        "late_percent": 40.0,
        "published_frames": 200,
        "delivered_frames": 5,
        "frames_per_second": 2.5,
        "bytes_per_second": 495 * 3,
        "gaps": 1,
        "gap_frames": 1,
        "loss_percent": pytest.approx(100 / 9),
        "worst_listener_loss_percent": 50.0,
        "unaccounted_frames": 2,
        "undelivered_frames": 1,
        "joins": 4,
        "join_failures": 2,
        "join_p50_ms": 6,
        "join_max_ms": 50,
        "disconnects": 1,
        "slow_disconnects": 3,
        "generator_busy_percent": pytest.approx(90),
        "generator_lag_ms": 3,
        "generator_bottleneck": 1,
        "server_cpu_seconds": pytest.approx(0.5),
        "server_cpu_percent": pytest.approx(20),
        # Four frames arrived while the server's CPU time was measured. Later frames do not count.
        "server_cpu_us_per_delivery": pytest.approx(125_000),
        # Four joined before the audio, and then the server had used another second.
        "server_cpu_us_per_join": pytest.approx(250_000),
        "server_rss_before_mb": 10.0,
        "server_rss_peak_mb": 20.0,
        "server_uss_before_mb": 8.0,
        "server_uss_peak_mb": 19.24,
        "server_kib_per_listener": pytest.approx(11_240_000 / 1024 / 20),
    }
    assert {name: metrics[name] for name in expected} == expected


def test_a_half_second_at_the_end_counts_and_is_no_second() -> None:
    result = recorded()
    assert [second.at_seconds for second in result.seconds] == [1.0, 2.0]
    assert result.played_seconds == 2.0
    assert result.clock_uncertainty_ms == 0.25


def test_a_rest_that_is_much_shorter_than_a_second_is_none() -> None:
    recorder = Recorder(LoadPlan("ws://x", listeners=1), None)
    recorder.begin(10.0, [Report()], Report(cpu_seconds=0.0), None)
    for at in (11.0, 12.25, 13.0, 13.7):
        recorder.note(at, [Report(connected=1)], Report(), None)
    seconds = recorder.result(100, None, None, ()).seconds
    assert [(second.at_seconds, second.length_seconds) for second in seconds] == [(1.0, 1.0), (2.25, 1.25), (3.0, 0.75)]


def test_what_could_not_be_measured_is_none() -> None:
    metrics = Recorder(PLAN, None).result(0, "It failed.", None, []).metrics()
    assert list(metrics) == list(METRICS)
    nothing = {name for name, value in metrics.items() if value is None}
    assert {"p50_ms", "max_ms", "join_p99_ms", "frames_per_second", "server_cpu_seconds"} <= nothing
    assert metrics["delivered_frames"] == metrics["generator_bottleneck"] == 0


def test_everything_is_json() -> None:
    result = recorded()
    read = json.loads(json.dumps(result.to_json()))
    assert read["metrics"] == json.loads(json.dumps(result.metrics()))
    assert read["plan"]["profile"] == "steady"
    assert read["latency"]["counts"] == [[1, 1], [2, 1], [3, 1], [40, 1], [90, 1]]
    assert read["server"]["name"] == "relay serve (process 7)"
    assert len(read["seconds"]) == 2
    assert read["bottlenecks"] == result.bottlenecks != []


def test_the_documentation_names_every_figure() -> None:
    text = (ROOT / "docs" / "loadtest.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if f"`{name}`" not in text] == []


def process(**changes: object) -> ProcessUse:
    calm = ProcessUse("receiver 1", True, 3.0, 60.0, 84.0, 0.0, 0, 5.0)
    return replace(calm, **changes)  # type: ignore[arg-type] # each test names a field


def test_a_calm_generator_is_no_bottleneck() -> None:
    assert process().problems == process(name="broadcaster", receives=False).problems == []


BUSY = "receiver 1 was busy for up to 93 % of a second (over 85 % for 2 s)."
SHARED = (
    "receiver 1 was busy for up to 98 % of a second, 40 % of it waiting for a CPU that others had (over 85 % for 1 s)."
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"worst_busy_percent": 93.0, "busy_seconds": 2}, BUSY),
        ({"worst_busy_percent": 98.0, "worst_waiting_percent": 40.0, "busy_seconds": 1}, SHARED),
        ({"lag_ms": 31.0}, "receiver 1 let an event wait 31 ms."),
        ({"lag_ms": 31.0, "name": "broadcaster", "receives": False}, "broadcaster sent a frame late by 31 ms."),
    ],
)
def test_a_generator_that_was_too_slow_says_so(changes: dict[str, object], sentence: str) -> None:
    assert process(**changes).problems == [sentence]


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("p99_ms>200", 201, True),
        ("p99_ms>200", 200, False),
        ("p99_ms >= 200", 200, True),
        (" loss_percent<0.5 ", 0.4, True),
        ("gaps!=0", 0, False),
        ("joins==100", 100, True),
        ("max_ms<=-1", 0, False),
        ("p99_ms>200", None, True),
    ],
)
def test_a_condition_compares_a_metric(text: str, value: float | None, holds: bool) -> None:
    condition = parse_condition(text)
    assert condition.holds({condition.metric: value}) is holds


@pytest.mark.parametrize(
    "text", ["", "p99_ms", "p99_ms>", ">200", "p99_ms=200", "p99_ms>2e3", "p99_ms>1 or 1>0", "1<2"]
)
def test_nothing_else_is_a_condition(text: str) -> None:
    with pytest.raises(UserError, match=r"is not a metric, one of .* and a number, such as 'p99_ms>200'|not measured"):
        parse_condition(text)


@pytest.mark.parametrize(("metric", "nearest"), [("p99", "p99_ms"), ("join_failure", "join_failures")])
def test_an_unknown_metric_names_the_nearest(metric: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"{metric} is not measured; the nearest is {nearest}\. All are: p50_ms, "):
        parse_condition(f"{metric}>1")


def test_it_is_shown_as_it_is_written() -> None:
    assert str(parse_condition("p99_ms > 200.50")) == "p99_ms>200.5"


class Page(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.data: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def test_the_page_draws_and_needs_nothing_from_elsewhere() -> None:
    text = report_page(recorded())
    page = Page(text)
    assert page.tags.count("svg") == 6
    assert page.tags.count("path") >= 6
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"src", "href", "xlink:href", "srcset", "data", "style"}
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_says_what_must_not_be_overlooked() -> None:
    words = " ".join(Page(report_page(replace(recorded(), ended_early="The <relay> was lost."))).data)
    for sentence in (
        "The test ended early: The <relay> was lost.",
        "2 frames are unaccounted for",
        "The load generator was the bottleneck",
        "A note.",
        "HTTP 503",
        "server_cpu_us_per_delivery",
    ):
        assert sentence in words


def test_a_page_of_nothing_is_a_page() -> None:
    page = Page(report_page(Recorder(PLAN, None).result(0, None, None, [])))
    assert page.tags.count("svg") == 0
    assert " ".join(page.data).count("Nothing was measured.") == 6


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0, [0, 1]),
        (7, [0, 2, 4, 6, 8]),
        (10, [0, 2, 4, 6, 8, 10]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (51_000, [0, 20_000, 40_000, 60_000]),
    ],
)
def test_ticks_are_round_and_reach_the_highest(highest: float, ticks: list[float]) -> None:
    assert round_ticks(highest) == pytest.approx(ticks)


def test_a_line_is_interrupted_where_nothing_was_measured() -> None:
    svg = Chart("t", "ms", "s", [Series("<a>", [(1, 1.0), (2, None), (3, 2.0), (4, 3.0)])]).to_svg()
    assert svg.count("M") == 2
    assert "&lt;a&gt;" in svg
    assert "<a>" not in svg
