"""Answer the opening handshake: each HTTP request gets a page, a WebSocket, or a refusal.

Invariants: every path, method and query has a defined answer. A client that offers `relay.v1` is upgraded before it is
refused, because a browser cannot read the status of a failed upgrade. A page of a foreign origin is refused before any
other check. A client that is not admitted does not learn what exists.

Source: docs/protocol.md, "Addresses" and "Refusals".
"""

import contextlib
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from relay.access.grants import RefusedError, TokenRole
from relay.access.rules import Access, Permit
from relay.hub.hub import Hub
from relay.limits.addresses import Client
from relay.limits.in_force import LimitsInForce
from relay.limits.names import COSTLY
from relay.metrics.prometheus import MetricsPage, Page
from relay.pages.files import Pages
from relay.pages.qr_codes import QrCodes
from relay.protocol.requests import ConnectRequest, Role, read_connect_request, read_stream_request, split_target
from relay.protocol.wire import SUBPROTOCOL
from relay.server.credentials import offered_subprotocols, read_credential
from relay.server.responses import make_response, not_modified_response, stream_response, text_response
from relay.vocabulary.errors import BadRequestError, NotServedError, RelayError
from relay.vocabulary.names import ChannelAddress
from relay.vocabulary.origins import ANY_ORIGIN, is_allowed_origin, is_own_host

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client whose request is upgraded, either to be served or to learn why not.

    Attributes:
        role: The role that it asked for.
        client: The client and its address.
        address: The channel that it asked for. None if its name is invalid.
        found: The request and its permit, or the refusal.
        opening: The head of the response that is a stream. None for a WebSocket.
    """

    role: Role
    client: Client
    address: ChannelAddress | None
    found: tuple[ConnectRequest, Permit] | RelayError
    opening: Response | None = None


class Admission:
    """Answers opening handshakes.

    `metrics` creates the page `/metrics`, at once or later. None disables that path. `is_private` says whether the
    relay listens on loopback only.

    Attributes:
        allowed_origins: The origins whose pages may connect, see `relay.vocabulary.origins`. May be replaced.
        token_in_query: Whether a token may be in the query. May be replaced.
    """

    def __init__(
        self,
        hub: Hub,
        pages: Pages,
        codes: QrCodes,
        access: Access,
        limits: LimitsInForce,
        *,
        metrics: Page | None,
        allowed_origins: Sequence[str],
        is_private: bool,
        token_in_query: bool,
    ) -> None:
        self._hub = hub
        self._pages = pages
        self._codes = codes
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._is_private = is_private
        self.allowed_origins = allowed_origins
        self.token_in_query = token_in_query

    def admit(self, request: Request, role: Role, client: Client) -> Response | Admitted:
        """Answer a request for a WebSocket, or admit it to the upgrade."""
        if request.method != "GET":
            return _method_not_allowed()
        headers = request.headers
        if not self._allows_origin(headers):
            return _foreign_origin()
        path, query = split_target(request.path)
        offered = offered_subprotocols(headers)
        address = None
        try:
            wanted = read_connect_request(role, path, query)
            address = wanted.address
            permit = self._permit(
                role, address, read_credential(headers, offered, query if self.token_in_query else None)
            )
            if role is Role.BROADCASTER:
                # If the handshake is well-formed, the channel is claimed in the same turn.
                self._hub.broadcasting.check_free(address, wanted.offer)
        except RelayError as error:
            if SUBPROTOCOL not in offered:
                return text_response(error.http_status, str(error))
            # The traceback's frames would keep the request alive.
            return Admitted(role, client, address, error.with_traceback(None))
        return Admitted(role, client, address, (wanted, permit))

    def admit_stream(self, request: Request, client: Client) -> Response | Admitted:
        """Answer a request for an HTTP stream, or admit it. HEAD gets the head of the stream."""
        headers = request.headers
        if (refusal := self._refuse_stranger(headers)) is not None:
            return refusal
        if request.method == "OPTIONS" and "Origin" in headers:
            return stream_response(HTTPStatus.NO_CONTENT, self._sharing(headers))
        if request.method not in ("GET", "HEAD"):
            return _method_not_allowed()
        path, query = split_target(request.path)
        try:
            wanted = read_stream_request(path, query)
            credential = read_credential(headers, [], query if self.token_in_query else None)
            permit = self._permit(Role.LISTENER, wanted.address, credential)
            container = wanted.delivery.container
            assert container is not None  # noqa: S101 - it is a stream's
            if (missing := self._hub.transcoding.find_missing(container)) is not None:
                raise NotServedError(missing)
        except RelayError as error:
            return text_response(error.http_status, str(error), **self._sharing(headers))
        name = self._hub.directory.title(wanted.address)
        opening = stream_response(
            HTTPStatus.OK, {"Content-Type": container.media_type, "icy-name": name} | self._sharing(headers)
        )
        if request.method == "HEAD":
            return opening
        return Admitted(Role.LISTENER, client, wanted.address, (wanted, permit), opening)

    def _allows_origin(self, headers: Headers) -> bool:
        return is_allowed_origin(
            self.allowed_origins,
            headers.get_all("Origin"),
            headers.get_all("Host"),
            is_private=self._is_reached_privately(headers),
        )

    def _refuse_stranger(self, headers: Headers) -> Response | None:
        """Refuse what a page may not read. A page sends no origin when it reads from its own address."""
        if not self._allows_origin(headers):
            return _foreign_origin()
        is_private = "Origin" not in headers and self._is_reached_privately(headers)
        if not is_private or is_own_host(self.allowed_origins, headers.get_all("Host")):
            return None
        return text_response(
            HTTPStatus.FORBIDDEN,
            "The relay listens on loopback and does not know this name of itself; its operator can add the address's "
            "origin to access.allowed_origins.",
        )

    def _is_reached_privately(self, headers: Headers) -> bool:
        # A proxy makes a relay on loopback known by other names.
        return self._is_private and "X-Forwarded-For" not in headers

    def _sharing(self, headers: Headers) -> dict[str, str]:
        """Return the headers with which a page of an allowed origin may read a stream."""
        is_for_any = ANY_ORIGIN in self.allowed_origins
        if "Origin" in headers:
            return {
                # An origin that the relay has not read may be of any length, which a proxy would not accept.
                "Access-Control-Allow-Origin": ANY_ORIGIN if is_for_any else headers["Origin"],
                "Access-Control-Allow-Headers": "Authorization",
                "Access-Control-Expose-Headers": "icy-name",
                "Vary": "Origin",
            }
        # A page that plays a stream in an element without `crossorigin` sends no origin.
        return {"Cross-Origin-Resource-Policy": "cross-origin"} if is_for_any else {}

    def _permit(self, role: Role, address: ChannelAddress, credential: str | None) -> Permit:
        try:
            return self._access.admit(TokenRole(role), address, credential)
        except RefusedError as error:
            # The detail may quote the token, so it is not logged. `relay token inspect` shows it.
            logger.debug("a client was refused", extra={"role": role, "address": address, "reason": error.reason})
            raise

    def _serve_slash(self, path: str) -> Response | None:
        """Redirect a page's path with a trailing slash to the path without it. Return None if there is no such page.

        The address has no query. Pages do not read theirs, and with a long one the header would exceed a proxy's limit.
        """
        with contextlib.suppress(BadRequestError):
            if path.endswith("/") and self._pages.find(path[:-1]) is not None:
                # A relative address is also right behind a proxy that adds a prefix.
                target = f"../{path[:-1].rpartition('/')[2]}"
                return text_response(
                    HTTPStatus.PERMANENT_REDIRECT,
                    "The page is at this address without the slash at the end.",
                    Location=target,
                )
        return None

    def serve_http(self, request: Request, group: str | None) -> Response | Awaitable[Response]:
        """Answer a request that is not for a WebSocket, at once or later. `group` is the group of the client's address.

        Raises:
            LimitReachedError: The client is over a rate limit.
        """
        path, query = split_target(request.path)
        if request.method != "GET":
            return _method_not_allowed()
        return self._serve_slash(path) or self._serve_path(path, query, request.headers, group)

    def explain(self, request: Request, response: Response) -> Response:
        """Turn a refusal into a page if the client is a browser."""
        if "text/html" not in ",".join(request.headers.get_all("Accept")):
            return response
        languages = ",".join(request.headers.get_all("Accept-Language"))
        page = self._pages.explain(response.status_code, split_target(request.path)[0], languages)
        if page is None:
            return response
        kept = {
            name: value
            for name, value in response.headers.raw_items()
            if name in ("Retry-After", "Allow", "Connection")
        }
        return make_response(response.status_code, page.content_type, page.body, {**page.headers, **kept})

    def _serve_path(self, path: str, query: str, headers: Headers, group: str | None) -> Response | Awaitable[Response]:
        charge = partial(self._limits.charge, COSTLY, group)
        if path == "/healthz":
            return text_response(HTTPStatus.OK, "ok")
        if path == "/metrics" and self._metrics is not None:
            charge()
            figures = self._metrics()
            return _show(figures) if isinstance(figures, MetricsPage) else _show_later(figures)
        try:
            page = self._pages.find(path) or self._codes.find(path, query, ",".join(headers.get_all("Host")), charge)
            if page is None:
                return text_response(
                    HTTPStatus.NOT_FOUND,
                    "There is nothing at this address; that of a listening page ends with /listen/SESSION.",
                )
        except BadRequestError as error:
            return text_response(error.http_status, str(error))
        tag = page.headers.get("ETag")
        if tag is not None and tag in ",".join(headers.get_all("If-None-Match")):
            return not_modified_response(page.headers)
        return make_response(HTTPStatus.OK, page.content_type, page.body, page.headers)


def _show(figures: MetricsPage) -> Response:
    return make_response(HTTPStatus.OK, figures.content_type, figures.body, figures.headers)


async def _show_later(figures: Awaitable[MetricsPage]) -> Response:
    return _show(await figures)


def _foreign_origin() -> Response:
    return text_response(
        HTTPStatus.FORBIDDEN,
        "Pages from this origin may not connect; the relay's operator can add it to access.allowed_origins.",
    )


def _method_not_allowed() -> Response:
    return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "This address supports only GET and HEAD.", Allow="GET, HEAD")
