"""The texts of the pages: every language has all of them, and every text on a page has a key."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from relay.pages.files import EXPLAINED, RIGHT_TO_LEFT

PAGES = Path(str(files("relay"))) / "pages"
LOCALES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (PAGES / "locales").glob("*.json")}
ENGLISH: dict[str, str] = LOCALES["en"]
HTML = sorted(PAGES.glob("*.html"))


def places(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


def test_there_is_a_locale_for_each_language_that_the_chooser_offers() -> None:
    found = re.search(r"LANGUAGES = \[(.*)\]", (PAGES / "i18n.js").read_text(encoding="utf-8"))
    assert found is not None
    assert set(re.findall(r'"(\w+)"', found[1])) == set(LOCALES)
    assert len(LOCALES) >= 6


def test_error_pages_and_scripts_write_the_same_languages_from_right_to_left() -> None:
    found = re.search(r"RIGHT_TO_LEFT = new Set\(\[(.*)\]\)", (PAGES / "i18n.js").read_text(encoding="utf-8"))
    assert found is not None
    assert tuple(re.findall(r'"(\w+)"', found[1])) == RIGHT_TO_LEFT


@pytest.mark.parametrize("language", LOCALES)
def test_every_language_has_the_same_keys_with_the_same_places(language: str) -> None:
    texts = LOCALES[language]
    assert list(texts) == list(ENGLISH)
    assert {key: places(text) for key, text in texts.items()} == {key: places(text) for key, text in ENGLISH.items()}
    assert all(text and text == text.strip() for text in texts.values())


class Words(HTMLParser):
    """Collects each element's key with its English text, and the keys of attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._key: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the base class has this argument
        given = dict(attrs)
        self._key = given.get("data-i18n")
        for pair in (given.get("data-i18n-attributes") or "").split():
            attribute, key = pair.split(":")
            self.attributes.append((key, given[attribute]))

    def handle_data(self, data: str) -> None:
        if self._key is not None:
            self.texts.append((self._key, data))
        self._key = None


@pytest.mark.parametrize("page", HTML, ids=lambda path: path.name)
def test_a_page_says_in_english_what_the_locale_says(page: Path) -> None:
    words = Words()
    words.feed(page.read_text(encoding="utf-8"))
    assert words.texts
    assert dict(words.texts).items() <= ENGLISH.items()
    assert dict(words.attributes).items() <= ENGLISH.items()


def test_every_key_that_a_script_names_is_there_and_none_is_there_for_nothing() -> None:
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.js"))
    pages = "\n".join(path.read_text(encoding="utf-8") for path in HTML)
    named = set(
        re.findall(
            r"[\"`:]((?:page|start|error|listen|broadcast|audience|problem)\.[a-z0-9.-]+)(?=[\"` ])", scripts + pages
        )
    )
    assert named - {name for name in named if name.endswith(".json")} <= set(ENGLISH)
    # Keys that end in a value from the script, such as `problem.${code}`.
    prefixes = set(re.findall(r"`((?:listen|broadcast|problem)\.[a-z.-]*\.?)\$\{", scripts))
    named |= {f"error.{status}{part}" for status in EXPLAINED for part in ("", ".heading")}
    unused = {key for key in ENGLISH if key not in named and not any(key.startswith(prefix) for prefix in prefixes)}
    assert unused == set()
