"""Which proxy a client uses, and how errors name it."""

from socket import gaierror

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidProxy, InvalidProxyStatus
from websockets.http11 import Response

from relay.client.transport.proxy import Proxy, find_proxy, proxy_error
from relay.vocabulary.errors import UnreachableError

NAMES = ("ws", "wss", "socks", "http", "https", "all", "no")


@pytest.fixture(autouse=True)
def _without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        for variable in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("variables", "url", "found"),
    [
        ({}, "wss://relay.example", None),
        ({"https_proxy": "http://p:1"}, "wss://relay.example", Proxy("http://p:1", "https_proxy")),
        ({"HTTPS_PROXY": "http://p:1"}, "https://relay.example", Proxy("http://p:1", "HTTPS_PROXY")),
        ({"https_proxy": "http://p:1", "ws_proxy": "http://p:1"}, "wss://a", Proxy("http://p:1", "https_proxy")),
        ({"http_proxy": "http://p:1"}, "http://relay.example", Proxy("http://p:1", "http_proxy")),
        ({"http_proxy": "http://p:1"}, "wss://relay.example", None),
        ({"socks_proxy": "http://p:1"}, "wss://relay.example", Proxy("socks5h://p:1", "socks_proxy")),
        ({"https_proxy": "http://p:1", "no_proxy": ".example"}, "wss://relay.example", None),
        ({"https_proxy": "http://p:1"}, "wss://127.0.0.1", None),
        ({"https_proxy": "http://p:1"}, "wss://localhost:8080", None),
        ({"https_proxy": "http://p:1"}, "nonsense", None),
        ({"https_proxy": "http://p:1"}, "wss://[::1", None),
        ({"https_proxy": "http://p:1"}, "wss://a:99999", None),
    ],
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, found: Proxy | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_proxy(url) == found


def _status(status: int) -> InvalidProxyStatus:
    return InvalidProxyStatus(Response(status, "", Headers()))


@pytest.mark.parametrize(
    ("error", "passes", "what"),
    [
        (ConnectionRefusedError(111, "refused"), True, "accepts no connections"),
        (OSError("Multiple exceptions: [Errno 111] …, [Errno 111] …"), True, "accepts no connections"),
        (gaierror(-2, "Name or service not known"), True, "has an unknown host"),
        (TimeoutError(), True, "did not connect to wss://relay.example within 10 s"),
        (ConnectionResetError(), True, "broke the connection to wss://relay.example"),
        (_status(502), True, "refuses to connect to wss://relay.example (HTTP 502)"),
        (_status(407), False, "refuses to connect to wss://relay.example (HTTP 407)"),
        (InvalidProxy("http://u:s3cret@p:1/x", "path is meaningless"), False, "cannot be used (path is meaningless)"),
        (ImportError("it needs python-socks"), False, "cannot be used (it needs python-socks)"),
        (OSError(101, "Network is unreachable"), True, "cannot be used ([Errno 101] Network is unreachable)"),
    ],
)
def test_its_failure_is_called_its_own(error: Exception, passes: bool, what: str) -> None:
    proxy = Proxy("http://user:s3cret@p:1", "https_proxy")
    found = proxy_error("wss://relay.example", proxy, error, 10.0)
    assert str(found) == (
        f"The proxy http://p:1 that the environment variable https_proxy names {what}; unset it, or set no_proxy to "
        "relay.example."
    )
    assert isinstance(found, UnreachableError) is passes
