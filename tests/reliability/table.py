"""Rows of docs/reliability.md from the results of a test run. Rows that did not run keep their text."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.promises import Row

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python -m tests.reliability -->", "<!-- end of what is made -->"

NOTHING = "**no test yet**"


@dataclass(slots=True)
class Outcome:
    """The results of a row's tests.

    Attributes:
        passed: How many tests passed.
        failed: The names of the tests that failed.
        figures: The tests' measurements.
    """

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)

    def told(self, made: str) -> str:
        """Return the result as a table cell; `made` says when and under which load."""
        if not self.passed and not self.failed:
            return "–"
        verdict = f"FAILED: {', '.join(self.failed)}" if self.failed else f"{self.passed} passed"
        return "<br>".join([f"{verdict} ({made})", *self.figures])


def cells_of(row: Row) -> str:
    """Return the names of a row's tests as a table cell."""
    names = [node.removeprefix("tests/") for node in row.tests] + [row.elsewhere] * bool(row.elsewhere)
    return "<br>".join(f"`{name}`" for name in names) or NOTHING


def read_outcomes(report: Path, rows: Iterable[Row]) -> dict[str, Outcome]:
    """Read the outcome of each row, by name, from pytest's JUnit report."""
    outcomes = {row.name: Outcome() for row in rows}
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - pytest wrote it
    for row in rows:
        for case in cases:
            if any(_is_of(case, node) for node in row.tests):
                _count(outcomes[row.name], case)
    return outcomes


def _is_of(case: ET.Element, node: str) -> bool:
    """Whether a node id names a test."""
    path, *parts = node.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    *classes, name = (*parts, "") if parts and parts[-1].startswith("Test") else (*parts,) or ("",)
    prefix = ".".join([module, *classes])
    class_name = case.get("classname", "")
    if not name:
        return class_name == prefix or class_name.startswith(f"{prefix}.")
    return class_name == prefix and case.get("name", "").split("[")[0] == name


def _count(outcome: Outcome, case: ET.Element) -> None:
    if any(child.tag in ("failure", "error", "skipped") for child in case):
        outcome.failed.append(case.get("name", ""))
        return
    outcome.passed += 1
    outcome.figures += [str(noted.get("value")) for noted in case.iter("property") if noted.get("name") == "figure"]


def chosen(rows: Iterable[Row], words: Iterable[str]) -> list[Row]:
    """Return the rows with these numbers or names, or all rows if `words` is empty.

    Raises:
        ValueError: No row has this number or name.
    """
    rows, names = list(rows), list(words)
    found = [row for row in rows if not names or any(_is_called(row, name) for name in names)]
    unknown = [name for name in names if not any(_is_called(row, name) for row in rows)]
    if unknown:
        raise ValueError(f"There is no row {unknown[0]!r}; there are: {'; '.join(row.name for row in rows)}.")
    return found


def _is_called(row: Row, name: str) -> bool:
    return name.lower() in (row.name.lower(), row.name.split()[0].lower(), row.name.partition(" ")[2].lower())


def read_cells(page: str) -> dict[str, str]:
    """Return the last cell of each table row of a page, by its first cell."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[-1] for cells in lines}


def table(head: tuple[str, str], rows: Iterable[Row], results: Mapping[str, str]) -> str:
    """Return the rows as a Markdown table, each with its result."""
    lines = [f"| {head[0]} | {head[1]} | test | last result |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.says} | {cells_of(row)} | {results.get(row.name, '–')} |" for row in rows]
    return "\n".join(lines)
