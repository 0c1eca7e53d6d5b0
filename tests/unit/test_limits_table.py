"""The table in docs/limits.md lists everything that the relay stores. Its names exist, and no limit is missing."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from relay.limits.names import Limit
from relay.settings.settings import LimitSettings, Settings

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/limits.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Everything that is kept")[2].partition("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ")]
HEAD, *STORES = ROWS

TOLD_ELSEWHERE = {
    # These limit time, or what others cause. They have no store of their own.
    "handshake_timeout_seconds",
    "max_lag_ms",
    "max_failures_per_minute",
    "max_listeners_per_session",
}


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("row", STORES, ids=lambda row: str(row[0]))
def test_each_row_names_bounds_that_there_are_and_a_test_that_reaches_them(row: list[str]) -> None:
    assert len(row) == len(HEAD) == 6
    bounds = names(" ".join(row[1:5]))
    assert bounds, "nothing bounds it"
    for name in bounds:
        holder, _, attribute = name.rpartition(".")
        if holder.startswith("relay."):
            assert isinstance(getattr(importlib.import_module(holder), attribute), int | float), name
        else:
            section = getattr(Settings(), holder)
            assert isinstance(getattr(section, attribute), int | float), f"{name} bounds nothing by default"
    (test,) = names(row[5])
    path, _, function = test.partition("::")
    defined = ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8")))
    assert function in {each.name for each in defined if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}, test


def test_each_module_with_a_bound_is_in_the_table() -> None:
    bounded = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "relay").rglob("*.py")
        if re.search(r"^Bounds?:", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "", re.MULTILINE)
    }
    holders = {name.rpartition(".")[0] for name in names(TABLE) if name.startswith("relay.")}
    named = {f"{holder.replace('.', '/')}.py" for holder in holders} | set(names(TABLE))
    assert bounded
    assert bounded <= named


def test_each_limit_is_in_the_table_and_explained() -> None:
    in_table = {name.removeprefix("limits.") for name in names(TABLE) if name.startswith("limits.")}
    assert in_table | TOLD_ELSEWHERE == set(LimitSettings.model_fields)
    explained = set(re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE))
    assert explained == set(LimitSettings.model_fields) | {"listener.stall_limit_seconds"}


def test_each_limit_has_a_counter() -> None:
    assert {limit.value for limit in Limit} == set(LimitSettings.model_fields) | {"stall_limit_seconds", "max_notes"}
