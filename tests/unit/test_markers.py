"""Marks divide the tests into the runs of `make test`. Each file belongs to exactly one run."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNS = re.findall(r"pytest -m (\w+|'[^']+')", (ROOT / "Makefile").read_text())
MARKS = ("ear", "pages", "timed", "long")
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))


def marks_of(path: Path) -> set[str]:
    """Return the marks in the file's `pytestmark` that divide the tests."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            return {mark for mark in MARKS if f"pytest.mark.{mark}" in re.split(r"[^\w.]", ast.unparse(node.value))}
    return set()


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_in_the_run_that_its_folder_asks_for(path: str) -> None:
    folder = Path(path).parent.name
    marks = marks_of(ROOT / path)
    chosen = [run for run in RUNS if eval(run.strip("'"), {}, {mark: mark in marks for mark in MARKS})]  # noqa: S307 - our own text
    assert len(chosen) == 1
    assert (folder == "browser") == bool(marks & {"ear", "pages"})
    assert folder != "reliability" or "timed" in marks
