"""Channel labels: the relay accepts those that it can display, and explains why it refuses the others."""

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.labels import Declaration, Label
from relay.vocabulary.text import tidy

NAMES = json.loads((Path(__file__).parent.parent / "vectors" / "names.json").read_text())["names"]


def test_a_declaration() -> None:
    assert Declaration.read("ev1/de de Deutsch") == Declaration("ev1", "de", Label("Deutsch", "de"))
    assert Declaration.read("*/main - The  speaker ") == Declaration("*", "main", Label("The speaker"))
    assert Declaration.read("ev1 - Town  hall") == Declaration("ev1", None, Label("Town hall"))
    assert Declaration.read("a/b pt-BR Português (Brasil)").label == Label("Português (Brasil)", "pt-BR")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "A channel must be declared like \"ev1/de de Deutsch\", not like ''"),
        ("ev1 de Deutsch", "not like 'ev1 de Deutsch'"),
        ("ev1/de de", "not like 'ev1/de de'"),
        ("ev 1/de de Deutsch", "not like"),
        ("é/de de Deutsch", "session id"),
        ("ev1/.. de Deutsch", "channel id"),
        ("ev1/de d Deutsch", "lang must be a BCP 47 tag"),
        ("ev1/de de " + "x" * 65, "name must have 1 to 64 characters, not 65"),
        ("ev1/de de a\x1b[31mb", "name must be text that people can read, but 'a\\x1b[31mb' has a control"),
    ],
)
def test_what_is_no_declaration_is_told(text: str, says: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        Declaration.read(text)
    assert says in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("vector", NAMES, ids=lambda vector: vector["note"])
def test_names_are_what_people_read_in_any_language(vector: dict[str, str | None]) -> None:
    said, name = vector["said"], vector["name"]
    if name is None:
        with pytest.raises(BadRequestError) as refused:
            Label(said)
        assert str(refused.value).isprintable()
    else:
        assert Label(said).name == name


@given(strategies.text(strategies.characters(exclude_categories=())))
def test_what_is_tidy_stays_as_it_is(text: str) -> None:
    try:
        tidied = tidy(text)
    except ValueError:
        return
    assert tidy(tidied) == tidied
    tidied.encode()
