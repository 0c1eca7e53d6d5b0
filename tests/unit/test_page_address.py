"""Addresses that people copy from a browser."""

import pytest

from relay.client.page_address import PageAddress, read_page_address
from relay.vocabulary.errors import BadRequestError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("https://relay.example.org/listen/ev1", ("https://relay.example.org", "ev1", None, None)),
        ("http://127.0.0.1:8080/listen/ev1/", ("http://127.0.0.1:8080", "ev1", None, None)),
        ("http://[::1]:8080/broadcast/ev1/de", ("http://[::1]:8080", "ev1", "de", None)),
        ("https://a/listen/ev1/de/?lang=fr#token=abc.def", ("https://a", "ev1", "de", "abc.def")),
        ("https://a/broadcast/ev1#key=secret-key", ("https://a", "ev1", None, "secret-key")),
        ("wss://a/v1/listen/ev1?token=abc.def", ("wss://a", "ev1", None, "abc.def")),
        (" https://a/listen/ev1\n", ("https://a", "ev1", None, None)),
        ("https://a/relay/listen/ev1", ("https://a/relay", "ev1", None, None)),
        ("https://a/listen/listen/ev1", ("https://a", "listen", "ev1", None)),
        ("https://a/listen/listen/ev1/de", ("https://a/listen", "ev1", "de", None)),
        ("https://a/listen/listen", ("https://a", "listen", None, None)),
        ("https://a/listen/ev1#", ("https://a", "ev1", None, None)),
    ],
)
def test_what_it_names(text: str, named: tuple[str, str, str | None, str | None]) -> None:
    assert read_page_address(text) == PageAddress(*named)


@pytest.mark.parametrize("text", ["ev1", "2026-11.main", "", "what is this?", "ev1/de"])
def test_an_id_is_no_address(text: str) -> None:
    assert read_page_address(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "https://a/",
        "https://a/listen",
        "https://a/listen/",
        "a/listen/ev1",
        "/listen/ev1/",
        "ftp://a/listen/ev1",
    ],
)
def test_another_address_is_one_sentence_without_its_secret(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_page_address(f"{text}?token=s3cret#key=s3cret")
    assert str(caught.value) == (
        f"'{text}' is neither the id of a session, such as ev1, nor the address of its page, "
        "such as https://relay.example.org/listen/ev1."
    )


def test_a_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(read_page_address("https://a/listen/ev1#token=s3cret"))
