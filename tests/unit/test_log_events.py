"""The table of log events in docs/metrics.md names events that the relay logs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

OTHER_PROGRAMS = ("capacity", "client", "loadtest")
"""Packages whose lines an operator of a relay does not see."""

WRITERS = ("info", "warning", "error", "log", "_log")


def table() -> list[str]:
    """The events of the table. A sentence may have code in it."""
    _, _, section = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").partition("## Log events")
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return [event.strip("`") for cell in cells for event in re.split("(?<=`), (?=`)", cell)]


def test_each_event_of_the_table_is_one_that_the_code_has() -> None:
    literals = {
        node.value
        for path in (ROOT / "relay").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    assert len(table()) > 20
    assert [event for event in table() if event not in literals] == []


def test_each_event_that_an_operator_meets_is_in_the_table() -> None:
    calls = [
        node
        for path in (ROOT / "relay").rglob("*.py")
        if path.relative_to(ROOT / "relay").parts[0] not in OTHER_PROGRAMS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITERS
    ]
    shown = [call for call in calls if "DEBUG" not in {getattr(each, "attr", "") for each in call.args}]
    events = {each.value for call in shown for each in call.args if isinstance(each, ast.Constant)}
    assert len(events) > 20
    assert {event for event in events if isinstance(event, str)} - set(table()) == set()
