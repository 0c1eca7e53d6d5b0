"""Security headers stand on every response, whether the relay or its library made it."""

import http.client
import itertools
from urllib.parse import urlsplit

import pytest

from relay.server.responses import SECURITY_HEADERS
from tests.support.processes import RelayProcess, relay_process

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
KEY = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
EVIL = {"Origin": "https://evil.example"}

REQUESTS = [
    ("GET", "/", {}, 200),
    ("GET", "/listen/ev1", {}, 200),
    ("GET", "/broadcast/ev1", {}, 200),
    ("GET", "/assets/style.css", {}, 200),
    ("GET", "/assets/i18n.js", {}, 200),
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/nothing", {}, 404),
    ("GET", "/listen/a%20b", {}, 400),
    ("POST", "/", {}, 405),
    ("GET", "/v1/listen/ev1", {}, 426),
    ("GET", "/v1/listen/ev1", UPGRADE, 400),
    ("GET", "/v1/listen/ev1", UPGRADE | KEY | EVIL, 403),
    ("GET", "/v1/broadcast/ev1", UPGRADE | KEY, 401),
    ("GET", "/v1/sessions", {}, 401),
    ("DELETE", "/v1/sessions/ev1", EVIL, 401),
    ("PUT", "/v1/sessions", {}, 405),
    ("GET", "/v1/broadcast/ev1?rate=1", UPGRADE | KEY, 400),
]


def ask(relay: RelayProcess, method: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    parts = urlsplit(relay.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


async def test_every_response_is_protected() -> None:
    async with relay_process(RELAY_BROADCAST_KEY="open-sesame") as relay:
        for method, path, headers, status in REQUESTS:
            response = ask(relay, method, path, headers)
            asked = f"{method} {path} {headers}"
            assert response.status == status, asked
            for name, value in SECURITY_HEADERS.items():
                (given,) = response.headers.get_all(name) or [""]
                if name != "Content-Security-Policy":
                    assert given == value, asked
                else:
                    assert given.startswith(
                        "default-src 'self';" if status == 200 and "z" not in path else "default-src 'none'"
                    )
                    assert "frame-ancestors 'none'" in given
                    # The policy allows WebAssembly, which decodes Opus, but no scripts from strings.
                    assert "unsafe" not in given.replace("'wasm-unsafe-eval'", "")


async def test_behind_tls_pages_of_others_lose_the_window_that_they_opened() -> None:
    async with relay_process() as relay:
        for headers, given in (({}, None), ({"X-Forwarded-Proto": "https"}, "same-origin")):
            assert ask(relay, "GET", "/", headers).headers["Cross-Origin-Opener-Policy"] == given


@pytest.mark.parametrize("headers", [{}, EVIL, {"Origin": "http://127.0.0.1:1"}])
async def test_no_response_invites_other_origins(headers: dict[str, str]) -> None:
    """Without `Access-Control` headers, browsers hide a response from scripts of other origins."""
    async with relay_process() as relay:
        for method, path in itertools.product(("GET", "OPTIONS"), ("/", "/assets/i18n.js", "/healthz")):
            response = ask(relay, method, path, headers)
            assert not [name for name in response.headers if name.lower().startswith("access-control-")]
