"""Rows of docs/reliability.md, out of what a run of the tests noted; rows that were not run stay as they are."""

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
    """What became of the tests of a row.

    Attributes:
        passed: How many did.
        failed: Which did not.
        figures: What they measured.
    """

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)

    def told(self, made: str) -> str:
        """Give it as a cell; `made` says when and with how much load."""
        if not self.passed and not self.failed:
            return "–"
        verdict = f"FAILED: {', '.join(self.failed)}" if self.failed else f"{self.passed} passed"
        return "<br>".join([f"{verdict} ({made})", *self.figures])


def cells_of(row: Row) -> str:
    """Name the tests of a row, as a cell."""
    names = [node.removeprefix("tests/") for node in row.tests] + [row.elsewhere] * bool(row.elsewhere)
    return "<br>".join(f"`{name}`" for name in names) or NOTHING


def read_outcomes(report: Path, rows: Iterable[Row]) -> dict[str, Outcome]:
    """Give the outcome of each row by its name, out of pytest's report in JUnit's form."""
    outcomes = {row.name: Outcome() for row in rows}
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - pytest wrote it
    for row in rows:
        for case in cases:
            if any(_is_of(case, node) for node in row.tests):
                _count(outcomes[row.name], case)
    return outcomes


def _is_of(case: ET.Element, node: str) -> bool:
    """Whether a test is one that a node id names."""
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
    """Give the rows whose number or name somebody wrote; all of them when nothing is written.

    Raises:
        ValueError: There is no such row.
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
    """Give the last cell of each row of the tables that a page has, by its first."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[-1] for cells in lines}


def table(head: tuple[str, str], rows: Iterable[Row], results: Mapping[str, str]) -> str:
    """Give the rows in Markdown, each with its result."""
    lines = [f"| {head[0]} | {head[1]} | test | last result |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.says} | {cells_of(row)} | {results.get(row.name, '–')} |" for row in rows]
    return "\n".join(lines)
