"""The opening handshake: which page, which WebSocket, or which refusal an HTTP request gets.

Invariants: every path, method and query has a defined answer; a client that offers `relay.v1` is upgraded before
it is refused, because a browser can not read the status of a refused upgrade; a key is compared in constant time
and never written down.

Source: docs/protocol.md, "Addresses" and "Refusals".
"""

import hmac
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_subprotocol
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from relay.adapters.server.connection import RelayConnection
from relay.core.requests import Role, read_connect_request, split_target, websocket_role
from relay.core.wire import SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX
from relay.runtime.hub import Hub
from relay.vocabulary.errors import BadRequestError, NotAllowedError, RelayError

_BEARER = "Bearer "


class FoundPage(Protocol):
    """A static page, ready to be sent."""

    @property
    def content_type(self) -> str:
        """Of the body."""
        ...

    @property
    def body(self) -> bytes:
        """What is sent."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Sent beside the content type."""
        ...


class PageTable(Protocol):
    """The static pages, by path."""

    def find(self, path: str) -> FoundPage | None:
        """Give the page of a raw request path; None when there is none.

        Raises:
            BadRequestError: The path names a session or channel that can't be.
        """
        ...


class Admission:
    """Answers opening handshakes.

    Attributes:
        ready: Whether new work is welcome; `/readyz` tells it.
    """

    def __init__(self, hub: Hub, pages: PageTable, broadcast_key: str | None) -> None:
        """Make it.

        Args:
            hub: Knows which channels are free.
            pages: For people.
            broadcast_key: Asked of broadcasters; None lets everybody broadcast.
        """
        self._hub = hub
        self._pages = pages
        self._broadcast_key = broadcast_key
        self.ready = False

    def process_request(self, connection: RelayConnection, request: Request) -> Response | None:
        """Answer a request (called by the library): None goes on to the upgrade, with `connection.admission` set."""
        path, query = split_target(request.path)
        role = websocket_role(path)
        if request.method != "GET":
            response = _text(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is served here.")
            response.headers["Allow"] = "GET"
            return response
        if role is None:
            return self._serve_http(path)
        offered = offered_subprotocols(request.headers)
        try:
            admission = read_connect_request(role, path, query)
            if role is Role.BROADCASTER:
                self._check_key(request.headers, offered)
                # Claimed after the upgrade; whoever comes second in between is closed with the same code.
                self._hub.check_free(admission.address)
        except RelayError as error:
            if SUBPROTOCOL not in offered:
                return _text(error.http_status, str(error))
            connection.admission = error
        else:
            connection.admission = admission
        return None

    def _serve_http(self, path: str) -> Response:
        if path == "/healthz":
            return _text(HTTPStatus.OK, "ok")
        if path == "/readyz":
            if self.ready:
                return _text(HTTPStatus.OK, "ready")
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "not ready")
        try:
            page = self._pages.find(path)
        except BadRequestError as error:
            return _text(error.http_status, str(error))
        if page is None:
            return _text(HTTPStatus.NOT_FOUND, "There is nothing here; listen at /listen/SESSION.")
        return _response(HTTPStatus.OK, page.content_type, page.body, page.headers)

    def _check_key(self, headers: Headers, offered: Sequence[str]) -> None:
        if self._broadcast_key is None:
            return
        given = _bearer(headers)
        if given is None:
            tokens = (name for name in offered if name.startswith(TOKEN_SUBPROTOCOL_PREFIX))
            given = next(tokens, "").removeprefix(TOKEN_SUBPROTOCOL_PREFIX)
        if not hmac.compare_digest(given.encode(), self._broadcast_key.encode()):
            raise NotAllowedError("Broadcasting here needs the relay's broadcast key; it is missing or wrong.")


def offered_subprotocols(headers: Headers) -> list[str]:
    """Give the subprotocols that a client offers; none when the header is malformed (the library refuses it then)."""
    try:
        return [name for value in headers.get_all("Sec-WebSocket-Protocol") for name in parse_subprotocol(value)]
    except InvalidHeaderFormat:
        return []


def select_subprotocol(_connection: object, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose `relay.v1` when it is offered; nothing else is ever echoed, least of all a token."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _bearer(headers: Headers) -> str | None:
    values = headers.get_all("Authorization")
    if len(values) == 1 and values[0].startswith(_BEARER):
        return values[0].removeprefix(_BEARER)
    return None


def _text(status: int, sentence: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{sentence}\n".encode(), {"Cache-Control": "no-store"})


def _response(status: int, content_type: str, body: bytes, more: Mapping[str, str]) -> Response:
    headers = Headers()
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    headers["X-Content-Type-Options"] = "nosniff"
    for name, value in more.items():
        if name not in headers:
            headers[name] = value
    return Response(int(status), HTTPStatus(status).phrase, headers, body)
