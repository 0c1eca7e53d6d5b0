import re
from functools import partial

import pytest

from relay.limits.names import Limit, LimitReachedError
from relay.pages.qr_codes import QrCodes
from relay.vocabulary.errors import BadRequestError

HOST = "relay.example.org"


def do_nothing() -> None:
    """Stand in for a limit that allows every drawing."""


@pytest.fixture
def codes() -> QrCodes:
    return QrCodes()


@pytest.mark.parametrize(
    ("path", "query", "host", "address"),
    [
        ("/qr/listen/ev1.svg", "", HOST, "http://relay.example.org/listen/ev1"),
        ("/qr/listen/ev1.svg", "scheme=https", HOST, "https://relay.example.org/listen/ev1"),
        ("/qr/listen/ev1/de.svg", "scheme=http", "[::1]:8080", "http://[::1]:8080/listen/ev1/de"),
        ("/qr/listen/a.svg.svg", "", "127.0.0.1:8080", "http://127.0.0.1:8080/listen/a.svg"),
        ("/qr/listen/ev1.svg", "other=1", "my_host", "http://my_host/listen/ev1"),
        ("/qr/listen/ev1.svg", "scheme=https&prefix=/a/~b", HOST, "https://relay.example.org/a/~b/listen/ev1"),
        ("/qr/listen/ev1/de.svg", "prefix=%2Frelay", HOST, "http://relay.example.org/relay/listen/ev1/de"),
        ("/qr/listen/ev1.svg", "prefix=", HOST, "http://relay.example.org/listen/ev1"),
    ],
)
def test_a_code_holds_the_address_of_a_listening_page(
    codes: QrCodes, path: str, query: str, host: str, address: str
) -> None:
    picture = codes.find(path, query, host, do_nothing)
    assert picture is not None
    assert picture.content_type == "image/svg+xml"
    assert re.findall("<title>(.*)</title>", picture.body.decode()) == [address]
    assert "private" in picture.headers["Cache-Control"]
    assert len(picture.body) < 8192


@pytest.mark.parametrize(
    "path", ["/", "/qr", "/qr/listen/ev1", "/qr/listen/ev1.png", "/qr/broadcast/ev1.svg", "/assets/icon.svg"]
)
def test_other_paths_are_none(codes: QrCodes, path: str) -> None:
    assert codes.find(path, "", HOST, do_nothing) is None


@pytest.mark.parametrize(
    ("path", "query", "host", "wrong"),
    [
        ("/qr/listen/.svg", "", HOST, "session id ''"),
        ("/qr/listen/a%20b.svg", "", HOST, "session id 'a%20b'"),
        ("/qr/listen/a/b/c.svg", "", HOST, "/qr/listen/SESSION/CHANNEL.svg"),
        ("/qr/listen/a/b+c.svg", "", HOST, "channel id 'b+c'"),
        ("/qr/listen/a.svg", "scheme=javascript", HOST, "scheme must be"),
        ("/qr/listen/a.svg", "prefix=relay", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=/relay/", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=//evil.example", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=/a/../b", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=/..", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=/a%3Fb", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=/a%0A", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=%40evil.example", HOST, "prefix must be"),
        ("/qr/listen/a.svg", "prefix=/" + "a" * 128, HOST, "prefix must be"),
        ("/qr/listen/a.svg", "", "", "Host header"),
        ("/qr/listen/a.svg", "", "evil.example/path", "Host header"),
        ("/qr/listen/a.svg", "", "user@evil.example", "Host header"),
        ("/qr/listen/a.svg", "", "a, b", "Host header"),
        ("/qr/listen/a.svg", "", "<script>", "Host header"),
    ],
)
def test_nothing_else_gets_a_code(codes: QrCodes, path: str, query: str, host: str, wrong: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(wrong)):
        codes.find(path, query, host, do_nothing)


def test_codes_are_kept_and_bounded(codes: QrCodes) -> None:
    first = codes.find("/qr/listen/a.svg", "", HOST, do_nothing)
    assert codes.find("/qr/listen/a.svg", "", HOST, do_nothing) is first
    for number in range(256):
        codes.find(f"/qr/listen/s{number}.svg", "", HOST, do_nothing)
    assert codes.find("/qr/listen/a.svg", "", HOST, do_nothing) is not first


def test_who_has_one_drawn_is_charged_and_who_gets_a_kept_one_is_not(codes: QrCodes) -> None:
    charged: list[str] = []
    for path in ("/qr/listen/a.svg", "/qr/listen/b.svg", "/qr/listen/a.svg"):
        codes.find(path, "", HOST, partial(charged.append, path))
    assert charged == ["/qr/listen/a.svg", "/qr/listen/b.svg"]

    def refuse() -> None:
        raise LimitReachedError(Limit.COSTLY)

    with pytest.raises(LimitReachedError):
        codes.find("/qr/listen/c.svg", "", HOST, refuse)
    assert codes.find("/qr/listen/a.svg", "", HOST, refuse) is not None
    with pytest.raises(LimitReachedError):
        codes.find("/qr/listen/c.svg", "", HOST, refuse)
