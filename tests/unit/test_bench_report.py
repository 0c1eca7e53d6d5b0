import json
import math

import pytest

from relay.loadtest.account import Accounts
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import LoadPlan
from relay.loadtest.results import LoadResult
from tests.bench.__main__ import read_arguments, run
from tests.bench.bench import Bench
from tests.bench.disturbance import CpuTimes, Disturbance, compare, read_cpu_times, worst
from tests.bench.measure import Measured
from tests.bench.report import Line, Report, Spread, Verdict, judge, ratios
from tests.bench.rows import ROWS, capacity_cell


def test_a_figure_is_the_median_with_its_range() -> None:
    assert Spread((3.0, 1.0, 2.0)).text(1) == "2.0 (1.0–3.0)"
    assert Spread((1.01, 1.02)).text(1) == "1.0"
    assert Spread((math.inf,)).text() == "∞"


def test_ratios_are_of_the_same_round() -> None:
    assert ratios([1.0, 4.0], [2.0, 4.0]).values == (0.5, 1.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "least", "aim", "verdict"),
    [
        (0.65, 0.80, 0.65, Verdict.AIM),
        (0.80, 0.80, 0.65, Verdict.LEAST),
        (0.81, 0.80, 0.65, Verdict.MISSED),
        (math.inf, 300, None, Verdict.MISSED),
        (200, None, 250, Verdict.AIM),
        (300, None, 250, Verdict.NONE),
        (1, None, None, Verdict.NONE),
    ],
)
def test_verdicts(value: float, least: float | None, aim: float | None, verdict: Verdict) -> None:
    assert judge(value, least, aim) is verdict


def test_the_tables_are_markdown_and_json() -> None:
    report = Report(
        lines=[
            Line("lag", "**5** ms", 5, least=10, aim=6, unit=" ms"),
            Line("loss", "all of it", math.inf, least=1, disturbed="other processes took 50 % of CPU 0"),
        ],
        capacity={"relay": {2000: "all", 10_000: "all"}, "ws": {2000: "12 % late"}},
        missing={"nchan": "apt-get install nchan"},
        notes=["The sun shone."],
        seconds={"cpu": 1.5},
    )
    text = report.markdown()
    assert "| lag | **5** ms | ≤ 10 ms | ≤ 6 ms | aim met |" in text
    assert "| loss | all of it† | ≤ 1 |  | **missed** |" in text
    assert "- loss: other processes took 50 % of CPU 0" in text
    assert (
        "| 50 frames/s to | relay | ws |\n| --- | --- | --- |\n| 2,000 | all | 12 % late |\n| 10,000 | all | – |"
        in text
    )
    assert "- nchan: `apt-get install nchan`" in text
    assert report.failed
    members = json.loads(report.to_json())
    assert [line["verdict"] for line in members["lines"]] == ["aim met", "missed"]
    assert members["lines"][1]["value"] is None
    assert members["capacity"]["ws"] == {"2000": "12 % late"}
    assert not Report(lines=report.lines[:1]).failed


def measured(latencies: dict[int, int], gap_frames: int = 0) -> Measured:
    histogram = Histogram()
    for latency_ms, count in latencies.items():
        for _ in range(count):
            histogram.record(latency_ms)
    accounts = Accounts(gap_frames=gap_frames)
    return Measured(LoadResult(LoadPlan(""), 1.0, 100, latency=histogram, healthy=accounts), ())


def test_what_became_of_a_number_of_listeners() -> None:
    assert capacity_cell([measured({63: 1000})]) == "all, p99 63 ms"
    assert capacity_cell([measured({10: 540, 3700: 460})]) == "all, 46 % late, p99 3.7 s"
    assert capacity_cell([measured({10: 1000}), measured({10: 1000}, gap_frames=7)]) == "7 lost, p99 10 ms"


def test_what_was_not_measured_says_why() -> None:
    with pytest.raises(ValueError, match="p99_ms was not measured: nobody knows why"):
        measured({})["p99_ms"]
    alone = Measured(LoadResult(LoadPlan(""), 1.0, 100, failures={"no greeting within 10 s": 4000}), ())
    with pytest.raises(ValueError, match="4,000 did not get in: no greeting within 10 s"):
        alone["late_percent"]
    assert capacity_cell([alone]) == "4,000 did not get in: no greeting within 10 s"
    early = Measured(LoadResult(LoadPlan(""), 1.0, 100, ended_early="The connection was lost."), ())
    assert early.trouble == "The connection was lost."


def test_a_row_that_failed_does_not_throw_the_others_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bench: Bench) -> None:
        raise ValueError("p99_ms was not measured: nobody knows why")

    monkeypatch.setattr(Bench, "warm_up", lambda *_: None)
    monkeypatch.setitem(ROWS, "cpu", fail)
    monkeypatch.setitem(ROWS, "age", lambda bench: bench.row("age", "**1**", 1, []))
    told: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text, **_: told.append(text))
    assert run(read_arguments(["cpu", "age"])) == 1
    assert "| for comparison | figure |\n|---|---|\n| age | **1** |" in told[-1]
    assert "- The row cpu failed: p99_ms was not measured" in told[-1]


STAT = """\
cpu  900 0 300 5000 10 0 5 70 0 0
cpu0 400 20 180 2000 5 0 3 50 0 0
cpu1 500 0 100 3000 5 0 2 20 0 0
intr 12345 0 0
"""


def test_cpu_times_are_read_of_each_cpu_without_interrupts() -> None:
    ticks = read_cpu_times(STAT)
    assert sorted(ticks) == [0, 1]
    assert ticks[0].working / ticks[1].working == 1.0
    assert ticks[0].stolen / ticks[1].stolen == 2.5


def test_others_are_what_the_measured_processes_did_not_do() -> None:
    found = compare(1, CpuTimes(10.0, 1.0), CpuTimes(14.0, 1.1), measured_seconds=3.0, seconds=5.0)
    assert (found.cpu, found.others) == (1, 20.0)
    assert found.stolen == pytest.approx(2.0)
    assert str(found) == "other processes took 20 % of CPU 1"
    # One side counts in clock ticks and the other exactly, so they may differ a little.
    assert compare(1, CpuTimes(10.0, 0.0), CpuTimes(12.9, 0.0), measured_seconds=3.0, seconds=5.0).others == 0.0


def test_only_the_worst_of_each_cpu_is_told_if_it_is_worth_it() -> None:
    quiet, noisy, stolen = Disturbance(0, 4.0, 0.0), Disturbance(1, 30.0, 0.0), Disturbance(0, 0.0, 12.0)
    assert worst([quiet]) == []
    assert worst([quiet, noisy, Disturbance(1, 20.0, 0.0), stolen]) == [stolen, noisy]
    assert str(stolen) == "other processes took 0 % of CPU 0, other machines 12 %"


def test_an_unknown_row_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_arguments(["cpu", "age"]).rows == ["cpu", "age"]
    with pytest.raises(SystemExit):
        read_arguments(["memory"])
    assert f"no row memory; there are {', '.join(ROWS)}" in capsys.readouterr().err
