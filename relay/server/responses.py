"""HTTP responses, and the headers by which a browser protects the person who looks at one.

Invariants: a page's own Content-Security-Policy stays; a response that is no page may load and run nothing; no
response gives back a token. A response that says something went wrong ends the connection.

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
    # The fragment with a key is never in a Referer, the name of a session would be.
    "Referrer-Policy": "no-referrer",
    # What the pages use, for themselves only; of the rest, what would hurt most.
    "Permissions-Policy": (
        "microphone=(self), autoplay=(self), screen-wake-lock=(self), camera=(), display-capture=(), geolocation=(), "
        "payment=(), usb=(), serial=(), hid=(), midi=()"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
}

HEADERS_OVER_TLS = {
    # Without TLS a browser ignores it, and complains.
    "Cross-Origin-Opener-Policy": "same-origin",
}

SERVER_HEADER = "relay"

_PROTOCOL_HEADER = b"Sec-WebSocket-Protocol"
_UNTOLD = b"The header Sec-WebSocket-Protocol is malformed.\n"


def text_response(status: int, sentence: str, **headers: str) -> Response:
    """Make a response for a person to read; nobody keeps it, and the connection ends. In names, `_` stands for `-`."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    body = f"{sentence}\n".encode()
    always = {"Cache-Control": "no-store", "Connection": "close"}
    return make_response(status, "text/plain; charset=utf-8", body, always | more)


def not_modified_response(headers: Mapping[str, str]) -> Response:
    """Make the answer to a browser that has the file already, with the headers that it would have had."""
    return Response(HTTPStatus.NOT_MODIFIED, "Not Modified", Headers(headers), b"")


def make_response(status: int, content_type: str, body: bytes, more: Mapping[str, str]) -> Response:
    """Make a response; of `more` headers, none replaces one of these."""
    headers = Headers()
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(body))
    headers["X-Content-Type-Options"] = "nosniff"
    for name, value in more.items():
        if name not in headers:
            headers[name] = value
    return Response(int(status), HTTPStatus(status).phrase, headers, body)


def complete_response(response: Response, request: Request | None, *, is_over_tls: bool) -> None:
    """Complete a response before it is sent; `request` is None where none could be read."""
    response.headers["Server"] = SERVER_HEADER
    # A proxy says so; who says so without one, says it of the answer to itself.
    if request is not None and request.headers.get_all("X-Forwarded-Proto") == ["https"]:
        is_over_tls = True
    for name, value in (SECURITY_HEADERS | (HEADERS_OVER_TLS if is_over_tls else {})).items():
        if name not in response.headers:
            response.headers[name] = value
    # The library quotes a header that it can not read.
    if response.status_code == HTTPStatus.BAD_REQUEST and _PROTOCOL_HEADER in (response.body or b""):
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(_UNTOLD))
        response.body = _UNTOLD
    if request is not None and request.method == "HEAD":
        response.body = b""
