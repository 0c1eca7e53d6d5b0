"""Marks divide the tests into the runs of `make test`. Each file belongs to exactly one run."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MAKE_TEST = re.search(r"^test:(.*?)\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
RUNS = re.findall(r"pytest (tests/[a-z/ ]+) -m (\w+|'[^']+')", MAKE_TEST[1] if MAKE_TEST else "")
MARKS = ("ear", "pages", "timed", "long")
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))


def marks_of(path: Path) -> set[str]:
    """Return the marks in the file's `pytestmark` that divide the tests."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            return {mark for mark in MARKS if f"pytest.mark.{mark}" in re.split(r"[^\w.]", ast.unparse(node.value))}
    return set()


def is_chosen(path: str, marks: set[str], folders: str, expression: str) -> bool:
    """Whether a run with these folders and this expression has the tests of a file with these marks."""
    is_inside = any(path.startswith(f"{folder}/") for folder in folders.split())
    return is_inside and eval(expression.strip("'"), {}, {mark: mark in marks for mark in MARKS})  # noqa: S307 - our own text


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_in_one_run(path: str) -> None:
    marks = marks_of(ROOT / path)
    assert sum(is_chosen(path, marks, *run) for run in RUNS) == 1
    assert (Path(path).parent.name == "browser") == bool(marks & {"ear", "pages"})
