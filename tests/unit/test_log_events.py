"""The table of log events in docs/metrics.md names events that the relay logs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_event_of_the_table_is_one_that_the_code_has() -> None:
    _, _, section = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").partition("## Log events")
    first_cells = "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))
    literals = {
        node.value
        for path in (ROOT / "relay").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    events = re.findall(r"`([^`]+)`", first_cells)
    assert len(events) > 20
    assert [event for event in events if event not in literals] == []
