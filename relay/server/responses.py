"""HTTP responses, and the headers with which a browser protects the person who views a page.

Invariants: a page keeps its own Content-Security-Policy. A response that is not a page can load and run nothing,
except a stream, which plays itself. No response contains a token. An error response ends the connection.

Sources: the Content Security Policy and Permissions Policy of the W3C; Fetch (Cross-Origin-Resource-Policy); HTML
(Cross-Origin-Opener-Policy).
"""

from collections.abc import Mapping
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # A Referer never contains the fragment with a key, but it would contain the session's name.
    "Referrer-Policy": "no-referrer",
    # The pages may use the first three. Of the other features, the most harmful are disabled.
    "Permissions-Policy": (
        "microphone=(self), autoplay=(self), screen-wake-lock=(self), camera=(), display-capture=(), geolocation=(), "
        "payment=(), usb=(), serial=(), hid=(), midi=()"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
}

HEADERS_OVER_TLS = {
    # Without TLS, browsers ignore it and log a warning.
    "Cross-Origin-Opener-Policy": "same-origin",
}

SERVER_HEADER = "relay"

_PROTOCOL_HEADER = b"Sec-WebSocket-Protocol"
_UNTOLD = b"The header Sec-WebSocket-Protocol is malformed.\n"


def text_response(status: int, sentence: str, **headers: str) -> Response:
    """Return a text response for a person, which is not cached and ends the connection.

    In the names of `headers`, `_` stands for `-`.
    """
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    body = f"{sentence}\n".encode()
    always = {"Cache-Control": "no-store", "Connection": "close"}
    return make_response(status, "text/plain; charset=utf-8", body, always | more)


def stream_response(status: int, headers: Mapping[str, str]) -> Response:
    """Return the head of a stream, which has no length and ends the connection. Names may have any letters."""
    always = {
        "Cache-Control": "no-store",
        "Accept-Ranges": "none",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
        # A browser that opens the address shows a player, which loads the stream as the page's own media.
        "Content-Security-Policy": f"{SECURITY_HEADERS['Content-Security-Policy']}; media-src 'self'",
    }
    # Players read icy-name as UTF-8, and a header is written as Latin-1.
    written = {name: value.encode().decode("iso-8859-1") for name, value in (always | dict(headers)).items()}
    return Response(int(status), HTTPStatus(status).phrase, Headers(written), b"")


def not_modified_response(headers: Mapping[str, str]) -> Response:
    """Return the answer to a browser whose cached file is current, with the headers of the full response."""
    return Response(HTTPStatus.NOT_MODIFIED, "Not Modified", Headers(headers), b"")


def make_response(status: int, content_type: str, body: bytes, more: Mapping[str, str]) -> Response:
    """Return a response. `more` adds headers but replaces none of the standard ones."""
    headers = Headers()
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(body))
    headers["X-Content-Type-Options"] = "nosniff"
    for name, value in more.items():
        if name not in headers:
            headers[name] = value
    return Response(int(status), HTTPStatus(status).phrase, headers, body)


def complete_response(response: Response, request: Request | None, *, is_over_tls: bool) -> None:
    """Add the final headers before a response is sent. `request` is None if none could be read."""
    response.headers["Server"] = SERVER_HEADER
    # A proxy sends this header. A client that sends it without a proxy changes only its own response.
    if request is not None and request.headers.get_all("X-Forwarded-Proto") == ["https"]:
        is_over_tls = True
    for name, value in (SECURITY_HEADERS | (HEADERS_OVER_TLS if is_over_tls else {})).items():
        if name not in response.headers:
            response.headers[name] = value
    # The library quotes an unreadable header, which may contain a token.
    if response.status_code == HTTPStatus.BAD_REQUEST and _PROTOCOL_HEADER in (response.body or b""):
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(_UNTOLD))
        response.body = _UNTOLD
