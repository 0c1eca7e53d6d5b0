"""The documentation reads well: links and pictures exist, lines wrap, and spelling and style are good.

codespell finds common misspellings. Its settings are in pyproject.toml. proselint finds clichés, archaisms, repeated
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
"""Checks of proselint that raise false alarms: "for ever" in "for everybody", and straight quotes in Markdown."""


MAX_README_LINES = 90
"""A newcomer reads the README in one go. What they do not need at once has a page in docs/."""

MAX_PICTURE_BYTES = 120_000
IMAGES = ROOT / "docs" / "images"


def links(page: str) -> list[str]:
    """Return the links and pictures of a page, in Markdown and in HTML, without those of other sites."""
    text = re.sub(r"`[^`\n]*`", "", prose(read(page)))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"\b(?:href|src|srcset)=\"([^\"]*)\"", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / page
    for target in links(page):
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


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= MAX_README_LINES


def test_every_picture_is_shown_and_small() -> None:
    shown = {((ROOT / page).parent / target).resolve() for page in PAGES for target in links(page)}
    pictures = set(IMAGES.iterdir())
    assert pictures <= shown, f"no page shows {sorted(path.name for path in pictures - shown)}"
    large = {path.name: path.stat().st_size for path in pictures if path.stat().st_size > MAX_PICTURE_BYTES}
    assert large == {}, "python -m scripts.pictures reduces their colours"


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_has_words(page: str) -> None:
    text = prose(read(page))
    words = re.findall(r"!\[([^\]]*)\]\(", text) + re.findall(r"<img\b[^>]*\balt=\"([^\"]*)\"", text)
    assert len(words) == text.count("![") + text.count("<img")
    assert [alt for alt in words if len(alt.split()) < 5] == []


def test_the_way_of_a_frame_names_the_code() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "relay").rglob("*.py"))
    names = re.findall(r'class="code"[^>]*>([\w.]+)<', (IMAGES / "frame.svg").read_text())
    assert len(names) > 5
    for name in names:
        kind, _, method = name.partition(".")
        body = re.search(rf"^class {kind}\b.*?(?=^\S|\Z)", code, re.MULTILINE | re.DOTALL)
        assert body, f"frame.svg names {kind}, which is not in relay/"
        assert not method or f"    def {method}(" in body[0], f"frame.svg names {name}, which is not in relay/"


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
    """Return a linter's findings and its usage errors."""
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return finished.stdout + finished.stderr


def test_words_are_spelled_well(tmp_path: Path) -> None:
    (tmp_path / "wrong.md").write_text("The recieved frames.\n")
    assert "recieved ==> received" in check("codespell_lib", str(tmp_path))
    assert check("codespell_lib", *PAGES, "config", "relay", "scripts", "pyproject.toml", "Makefile") == ""


def sentences(page: str) -> str:
    """Return the prose of a page line by line, without headings, tables, code and the spaces in numbers."""
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
