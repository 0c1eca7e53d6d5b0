import re

import pytest

from relay.adapters.qr_codes import QrCodes
from relay.vocabulary.errors import BadRequestError

HOST = "relay.example.org"


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
    ],
)
def test_a_code_holds_the_address_of_a_listening_page(
    codes: QrCodes, path: str, query: str, host: str, address: str
) -> None:
    picture = codes.find(path, query, host)
    assert picture is not None
    assert picture.content_type == "image/svg+xml"
    assert re.findall("<title>(.*)</title>", picture.body.decode()) == [address]
    assert "private" in picture.headers["Cache-Control"]
    assert len(picture.body) < 8192


@pytest.mark.parametrize(
    "path", ["/", "/qr", "/qr/listen/ev1", "/qr/listen/ev1.png", "/qr/broadcast/ev1.svg", "/assets/icon.svg"]
)
def test_other_paths_are_none(codes: QrCodes, path: str) -> None:
    assert codes.find(path, "", HOST) is None


@pytest.mark.parametrize(
    ("path", "query", "host", "wrong"),
    [
        ("/qr/listen/.svg", "", HOST, "session id ''"),
        ("/qr/listen/a%20b.svg", "", HOST, "session id 'a%20b'"),
        ("/qr/listen/a/b/c.svg", "", HOST, "/qr/listen/SESSION/CHANNEL.svg"),
        ("/qr/listen/a/b+c.svg", "", HOST, "channel id 'b+c'"),
        ("/qr/listen/a.svg", "scheme=javascript", HOST, "scheme must be"),
        ("/qr/listen/a.svg", "", "", "Host header"),
        ("/qr/listen/a.svg", "", "evil.example/path", "Host header"),
        ("/qr/listen/a.svg", "", "user@evil.example", "Host header"),
        ("/qr/listen/a.svg", "", "a, b", "Host header"),
        ("/qr/listen/a.svg", "", "<script>", "Host header"),
    ],
)
def test_nothing_else_gets_a_code(codes: QrCodes, path: str, query: str, host: str, wrong: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(wrong)):
        codes.find(path, query, host)


def test_codes_are_kept_and_bounded(codes: QrCodes) -> None:
    first = codes.find("/qr/listen/a.svg", "", HOST)
    assert codes.find("/qr/listen/a.svg", "", HOST) is first
    for number in range(256):
        codes.find(f"/qr/listen/s{number}.svg", "", HOST)
    assert codes.find("/qr/listen/a.svg", "", HOST) is not first
