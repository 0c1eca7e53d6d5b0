"""What every HTTP response has in common: headers by which a browser protects who looks at it.

Invariants: a page's own Content-Security-Policy stays; a response that is no page may load and run nothing; no
response gives back a token.

Sources: the Content Security Policy and Permissions Policy of the W3C; Fetch (Cross-Origin-Resource-Policy); HTML
(Cross-Origin-Opener-Policy).
"""

from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from websockets.protocol import State

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


def secure_response(connection: ServerConnection, request: Request, response: Response) -> Response:
    """Complete a response before it is sent (called by the library, also for its own refusals)."""
    if connection.protocol.eof_sent:
        # Whoever hung up, or sent what is no frame, before the answer: the library has ended that and would fail now.
        connection.transport.abort()
        connection.protocol.state = State.CLOSED
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        return response
    # A proxy says so; who says so without one, says it of the answer to itself.
    _add_headers(
        response, is_over_tls=_speaks_tls(connection) or request.headers.get_all("X-Forwarded-Proto") == ["https"]
    )
    # The library quotes a header that it can not read.
    if response.status_code == HTTPStatus.BAD_REQUEST and _PROTOCOL_HEADER in (response.body or b""):
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(_UNTOLD))
        response.body = _UNTOLD
    if request.method == "HEAD":
        response.body = b""
    return response


def secure_unread(connection: ServerConnection, response: Response) -> Response:
    """Complete a response to a request that could not be read."""
    response.headers["Server"] = SERVER_HEADER
    _add_headers(response, is_over_tls=_speaks_tls(connection))
    return response


def _speaks_tls(connection: ServerConnection) -> bool:
    return connection.transport.get_extra_info("ssl_object") is not None


def _add_headers(response: Response, *, is_over_tls: bool) -> None:
    for name, value in (SECURITY_HEADERS | (HEADERS_OVER_TLS if is_over_tls else {})).items():
        if name not in response.headers:
            response.headers[name] = value
