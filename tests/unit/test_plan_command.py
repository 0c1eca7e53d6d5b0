"""`relay plan`: its table, its JSON, its assumptions, and its refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay.cli.plan import plan_command
from relay.loadtest.account import Report
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import LoadPlan
from relay.loadtest.recorder import Recorder
from relay.loadtest.results import ServerSample
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import UserError


def planned(*arguments: str) -> Result:
    return CliRunner().invoke(plan_command, arguments)


def as_json(*arguments: str) -> Any:
    result = planned("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def write_report(path: Path) -> None:
    """Write the report of a load test, as the load test does."""
    plan = LoadPlan("ws://relay.example", listeners=20, codec=Codec.OPUS, packet_ms=60, duration_seconds=2.0)
    latency = Histogram()
    for _ in range(3000):
        latency.record(5)
    recorder = Recorder(plan, ServerSample(1.0, 60_000_000, 50_000_000))
    joins = Histogram()
    for _ in range(20):
        joins.record(3)
    recorder.begin(0.0, [Report(joins=joins)], Report(), ServerSample(1.01, 60_000_000, 50_000_000))
    report = Report(connected=20, latency=latency, received_bytes=160_000, cpu_seconds=0.1)
    recorder.note(2.0, [report], Report(), ServerSample(1.013, 61_000_000, 50_204_800))
    path.write_text(json.dumps(recorder.result(100, None, "relay serve (process 7)", []).to_json()))


def test_each_audience_is_a_column_and_each_assumption_a_line() -> None:
    result = planned("--listeners", "100,1000000", "--codec", "opus", "--packet-ms", "60")
    assert result.exit_code == 0
    table, assumptions = result.output.split("\n\n")
    assert table.splitlines()[0].split() == ["listeners", "100", "1,000,000"]
    assert len({len(line) for line in table.splitlines()[:5]}) == 1
    rows = [line.split("  ", 1) for line in assumptions.splitlines()]
    assert all(len(row) == 2 for row in rows)
    assert "--packet-ms" in assumptions
    assert "default of --headroom" in assumptions
    assert "docs/performance.md" in assumptions
    assert "limits.max_listeners_per_session" in table


def test_the_json_has_what_the_table_has() -> None:
    document = as_json("--listeners", "1000,200000")
    small, large = document["plans"]
    assert (small["listeners"], large["listeners"]) == (1000, 200_000)
    assert small["machines"] < large["machines"]
    assert (small["settings"], large["settings"]) == ({}, {"limits.max_listeners_per_session": 200_000})
    assert all(assumption["source"] for assumption in document["assumptions"])
    assert document["notes"] == []


def test_the_report_of_a_load_test_replaces_published_figures(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json")
    arguments = ("--listeners", "100000", "--packet-ms", "60", "--measured", str(tmp_path / "report.json"))
    found = {each["name"]: each for each in as_json(*arguments)["assumptions"]}
    source = "report.json: 20 listeners, opus in messages of 60 ms"
    assert found["CPU of a write"] | {"value": 0} == {
        "name": "CPU of a write",
        "value": 0,
        "unit": "µs",
        "source": source,
    }
    assert found["CPU of a write"]["value"] == pytest.approx(3 * 3e-3 / 3000 * 1e6)
    assert found["CPU of a join"]["value"] == pytest.approx(500)
    assert found["memory of a listener"]["value"] == pytest.approx(10)
    assert found["bytes to a listener"]["value"] == pytest.approx(160_000 / 2 / 20 + 78 * 50 / 3)
    assert found["memory of an idle worker"]["value"] == 60
    assert found["CPU of a frame taken in"]["source"].startswith("docs/nats.md")


def test_costs_appear_with_prices() -> None:
    document = as_json("--listeners", "1000", "--price-per-gb", "0.01", "--price-per-core-hour", "0")
    (plan,) = document["plans"]
    assert plan["traffic_cost_per_hour"] == pytest.approx(plan["out_gb_per_hour"] * 0.01)
    assert plan["machine_cost_per_hour"] == 0
    (unpriced,) = as_json("--listeners", "1000")["plans"]
    assert (unpriced["traffic_cost_per_hour"], unpriced["machine_cost_per_hour"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listeners", "0"], "'0' must be numbers from 1 to"),
        (["--listeners", "1,"], "'1,' must be numbers from 1 to"),
        (["--listeners", "-5"], "'-5' must be numbers from 1 to"),
        (["--listeners", "10", "--headroom", "100"], "Invalid value for '--headroom'"),
        (["--listeners", "10", "--gbps", "nan"], "Invalid value for '--gbps'"),
        (["--listeners", "10", "--storm", "0"], "Invalid value for '--storm'"),
        (["--listeners", "10", "--price-per-gb", "-1"], "Invalid value for '--price-per-gb'"),
        ([], "Missing option '--listeners'"),
    ],
)
def test_a_wrong_number_names_its_option(arguments: list[str], words: str) -> None:
    result = planned(*arguments)
    assert (result.exit_code, words in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--codec", "pcm_s16le", "--packet-ms", "60"], "--packet-ms is for listeners of Opus; add --codec opus."),
        (["--frame-ms", "7"], "--frame-ms 7: an Opus packet lasts a multiple of 5 ms, up to 120 ms."),
        (["--measured", "none.json"], "--measured none.json cannot be read: No such file or directory."),
        (["--measured", __file__], "test_plan_command.py is not a report of a load test; write one with"),
        (["--headroom", "0"], "A core has no time left for a single join; raise --headroom or --storm."),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str) -> None:
    result = planned("--listeners", "10", *arguments)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(sentence)
