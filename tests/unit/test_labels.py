"""What people call channels: taken when it can be shown, refused in a sentence when not."""

import pytest

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.labels import Declaration, Label


def test_a_declaration() -> None:
    assert Declaration.read("ev1/de de Deutsch") == Declaration("ev1", "de", Label("Deutsch", "de"))
    assert Declaration.read("*/main - The  speaker ") == Declaration("*", "main", Label("The  speaker"))
    assert Declaration.read("a/b pt-BR Português (Brasil)").label == Label("Português (Brasil)", "pt-BR")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "A channel is declared as \"ev1/de de Deutsch\", not as ''"),
        ("ev1 de Deutsch", "not as 'ev1 de Deutsch'"),
        ("ev1/de de", "not as 'ev1/de de'"),
        ("ev 1/de de Deutsch", "not as"),
        ("é/de de Deutsch", "session id"),
        ("ev1/.. de Deutsch", "channel id"),
        ("ev1/de d Deutsch", "lang must be a BCP 47 tag"),
        ("ev1/de de " + "x" * 65, "name must be 1 to 64 printable characters"),
        ("ev1/de de a\x1b[31mb", "name must be 1 to 64 printable characters"),
    ],
)
def test_what_is_no_declaration_is_told(text: str, says: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        Declaration.read(text)
    assert says in str(refused.value)
    assert str(refused.value).isprintable()
