"""The pages of the documentation read well: links lead somewhere, lines wrap, and words are spelled and chosen well.

codespell knows common misspellings; its settings are in pyproject.toml. proselint knows clichés, archaisms, repeated
words and more.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.markdown import PAGES, ROOT, anchors, prose, read

WIDTH = 100
NOT_ASKED = ("archaism", "typography")
"""Checks of proselint that find what is none: "for ever" in "for everybody", and straight quotes in Markdown."""


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(read(page)))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (here.parent / name).resolve() if name else here
        assert path.exists(), f"{page} links to {target}, which is not there"
        assert not anchor or anchor in anchors(path.read_text()), f"{page} links to {target}, which is not on that page"


def test_the_index_lists_every_page() -> None:
    listed = {
        (ROOT / "docs" / target.partition("#")[0]).resolve().relative_to(ROOT).as_posix()
        for target in re.findall(r"\]\(([^)\s:]+)\)", read("docs/README.md"))
    }
    pages = {page for page in PAGES if page.startswith("docs/")} - {"docs/README.md"}
    assert pages <= listed, f"docs/README.md lacks {sorted(pages - listed)}"


@pytest.mark.parametrize("page", PAGES)
def test_prose_wraps(page: str) -> None:
    long = [
        f"{page}:{number}"
        for number, line in enumerate(prose(read(page)).splitlines(), 1)
        if len(line) > WIDTH
        and not line.lstrip().startswith("|")
        and " " in line[line.find("](") if "](" in line else 0 :]
    ]
    assert long == []


def check(*command: str) -> str:
    """Return what a linter finds, and its complaints about how it was called."""
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return finished.stdout + finished.stderr


def test_words_are_spelled_well(tmp_path: Path) -> None:
    (tmp_path / "wrong.md").write_text("The recieved frames.\n")
    assert "recieved ==> received" in check("codespell_lib", str(tmp_path))
    assert check("codespell_lib", *PAGES, "config", "relay", "scripts", "pyproject.toml", "Makefile") == ""


def sentences(page: str) -> str:
    """Return the prose of a page, line by line, without headings, tables, code and the spaces in numbers."""
    text = re.sub(r"^(#| *\|).*$", "", prose(read(page)), flags=re.MULTILINE)
    text = re.sub(r"\b(\d+)(?: \d{3})+\b", r"\1000", text)
    numbers = iter(range(len(text)))
    return re.sub(r"`[^`]*`", lambda code: f"span{next(numbers)}x" + "\n" * code[0].count("\n"), text)


def test_words_are_chosen_well(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"checks": dict.fromkeys(NOT_ASKED, False)}))
    for page in PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text(sentences(page))
    wrong = tmp_path / "wrong.md"
    wrong.write_text("At the end of the day it plays and and plays.\n")
    lint = ("proselint", "check", "--config", str(settings))
    found = check(*lint, str(wrong))
    assert "cliché" in found
    assert "'and and'" in found
    assert check(*lint, *(str(tmp_path / page) for page in PAGES)).replace(f"{tmp_path}/", "") == ""
