"""The door, in front of admission: it decides which clients may make requests and whether there is a seat.

A refusal is cheap: it comes before the upgrade, as 503 or 429 with `Retry-After`, and checks no token. The exception is
an address that fails too often, because other people behind it may have valid tokens.

Invariants: connected clients are never affected. Neither listeners nor lag keep a broadcaster out. If there are too
many connections that are not WebSockets yet, or too few open files for them, the door drops the oldest one of the
address that has the most. Real clients send their request within a moment, so a connection that only holds a place is
older. Every refusal is counted.
"""

import logging
import secrets
import sys
from collections.abc import Awaitable
from http import HTTPStatus

from websockets.http11 import Request, Response

from relay.hub.lag import LagMeter
from relay.limits.addresses import Client, TrustedProxies
from relay.limits.in_force import LimitsInForce
from relay.limits.names import JOINS, REQUESTS, Limit, LimitReachedError
from relay.limits.rates import SlidingCounts
from relay.limits.seats import Owner, Pending, Seat, Seats, Visitor
from relay.process.open_files import allow_open_files
from relay.protocol.operator_requests import is_operator_path
from relay.protocol.requests import Role, is_stream_path, split_target, websocket_role
from relay.server.admission import Admission, Admitted
from relay.server.operator_api import Answer, OperatorApi
from relay.server.responses import text_response
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError

FAILURE_WINDOW_SECONDS = 60.0
MAX_REMEMBERED_ADDRESSES = 10_000
"""Number of addresses whose failures are counted. They take a megabyte or two. Beyond it, the address that failed
longest ago is forgotten."""

SURETY_FACTOR = 10
"""Clients behind a proxy on this machine may together fail this many times as often as one address. That covers a few
clients that fail at the same time, but not one client that forges many addresses."""

OTHER_FILES = 256
"""Open files that are not clients: libraries, logs, metrics, and broadcasters, which have their own limit."""

RETRY_SECONDS = (2, 10)
"""Range of the random `Retry-After`, so that clients that were refused together do not return together."""

_FAILURES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

_SENTENCES: dict[Limit | None, str] = {
    None: "The relay is restarting; try again in a moment.",
    Limit.CONNECTIONS: "The relay is full; try again in a moment.",
    Limit.LISTENERS: "This session is full; try again in a moment.",
    Limit.BROADCASTERS: "This session already has the most broadcasters that it may have; try again when one has left.",
    Limit.LAG: "The relay is too busy for more listeners; try again in a moment.",
    Limit.CONNECTIONS_PER_ADDRESS: "There are too many connections from your address; close some, then try again.",
    Limit.FAILURES_PER_ADDRESS: "Too many requests from your address failed; try again in a minute.",
}
_SENTENCES |= dict.fromkeys(
    (Limit.REQUESTS_PER_ADDRESS, Limit.COSTLY_PER_ADDRESS, Limit.JOINS_PER_ADDRESS),
    "There are too many requests from your address; try again in a moment.",
)
_SENTENCES |= dict.fromkeys(
    (Limit.REQUESTS, Limit.COSTLY, Limit.JOINS), "The relay is receiving too many requests; try again in a moment."
)
_BY_ADDRESS = frozenset(limit for limit in Limit if limit.endswith("_per_address")) | {Limit.FAILURES_PER_ADDRESS}

logger = logging.getLogger(__name__)


class Door:
    """Lets connections in. It begins closed.

    Attributes:
        trusted: The proxies whose word on a client's address counts. May be replaced.
        most_connections: Number of connections for which the process may open files. Connections that are not
            WebSockets yet get what the others leave.
        is_open: Whether the relay accepts new clients. False before it is ready and while it stops.
    """

    def __init__(
        self,
        admission: Admission,
        operators: OperatorApi,
        limits: LimitsInForce,
        lag: LagMeter,
        trusted: TrustedProxies,
        *,
        seats: Seats,
    ) -> None:
        self._admission = admission
        self._operators = operators
        self._limits = limits
        self._lag = lag
        self.trusted = trusted
        self._pending = Pending()
        self._seats = seats
        self._failures = SlidingCounts(FAILURE_WINDOW_SECONDS, MAX_REMEMBERED_ADDRESSES)
        self.most_connections = sys.maxsize
        self.is_open = False

    def allow_connections(self) -> None:
        """Raise the system's limit on open files to what the configured limits need.

        If the system does not allow that many, log a warning.
        """
        limits = self._limits.settings
        needed = limits.max_connections + limits.max_pending_handshakes + OTHER_FILES
        allowed = allow_open_files(needed)
        self.most_connections = allowed - min(OTHER_FILES, allowed // 2)
        if allowed < needed:
            sentence = "the system allows fewer open files than the limits need; raise `ulimit -n` or LimitNOFILE"
            logger.warning(sentence, extra={"allowed_files": allowed, "needed_files": needed})

    def arrived(self, connection: Visitor) -> None:
        """Count a connection that has made no request yet. If there are too many, drop one."""
        self._pending.add(connection, self.trusted.find_client(connection.peer_address, ()).group)
        taken = sum(self._seats.count(role) for role in Role)
        files_left = max(1, self.most_connections - taken)
        if len(self._pending) > min(self._limits.settings.max_pending_handshakes, files_left):
            leaving = self._pending.oldest_of_most()
            self._pending.discard(leaving)
            self._limits.applied(Limit.PENDING_HANDSHAKES, leaving.peer_address)
            leaving.cut_off()

    @property
    def is_deserted(self) -> bool:
        """Whether no client is connected and no connection is pending."""
        return not self._pending and self._seats.is_empty

    def cut_off_pending(self) -> None:
        """Cut off all connections that are not WebSockets yet."""
        for connection in list(self._pending):
            connection.cut_off()

    def answer(self, request: Request, peer_address: str) -> Response | Admitted | Awaitable[Response]:
        """Answer a request from an address at once or later, or admit it to the upgrade.

        An admitted client then takes its seat. An answer that comes later has a deadline of its own.
        """
        path = split_target(request.path)[0]
        client = self.trusted.find_client(peer_address, request.headers.get_all("X-Forwarded-For"))
        role = websocket_role(path)
        try:
            if is_stream_path(path):
                return self._answer_stream(request, client)
            if role is None:
                return self._serve_http(_as_get(request), client)
            if request.method == "HEAD":
                return text_response(
                    HTTPStatus.UPGRADE_REQUIRED, "This address is for WebSockets.", Upgrade="websocket"
                )
            refusal = self._refuse_cheaply(role, client)
            return refusal or self._admit(self._admission.admit(request, role, client), client)
        except LimitReachedError as error:
            return self._turn_away(error.limit)

    def take_seat(self, admitted: Admitted, owner: Owner) -> None:
        """Take an admitted client's seat until its owner ends. Right after the admission, the seat is free."""
        self._seats.take(_seat(admitted), owner)

    def _serve_http(self, request: Request, client: Client) -> Response | Awaitable[Response]:
        path = split_target(request.path)[0]
        if path == "/readyz" and request.method == "GET":
            reason = self._why_not_ready()
            status = HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE
            return text_response(status, "ready" if reason is None else f"not ready: {reason}")
        if is_operator_path(path):
            self._limits.charge(REQUESTS, client.group)
            return self._serve_operator(request, client)
        try:
            if path != "/healthz":
                self._limits.charge(REQUESTS, client.group)
            found = self._admission.serve_http(request, client.group)
        except LimitReachedError as error:
            found = self._turn_away(error.limit)
        return self._admission.explain(request, found) if isinstance(found, Response) else found

    def _answer_stream(self, request: Request, client: Client) -> Response | Admitted:
        """Answer a request for an HTTP stream by the rules for a WebSocket of a listener."""
        refusal = self._refuse_cheaply(Role.LISTENER, client)
        answer = refusal or self._admit(self._admission.admit_stream(request, client), client)
        return self._admission.explain(request, answer) if isinstance(answer, Response) else answer

    def _admit(self, found: Response | Admitted, client: Client) -> Response | Admitted:
        """Admit or refuse a client. An address with too many failures is refused only if this request fails, too.

        Those that are refused for it take nothing from the joins of the address, which others may share.

        Raises:
            LimitReachedError: There are too many joins.
        """
        if isinstance(found, Response):
            refused: int | None = found.status_code
        else:
            refused = found.found.http_status if isinstance(found.found, RelayError) else None
        if refused in _FAILURES and (turned_away := self._note_failure(client)) is not None:
            return turned_away
        self._limits.charge(JOINS, client.group)
        if isinstance(found, Response):
            return found
        limit = self._seats.full(_seat(found), self._limits.most)
        return found if limit is None else self._refuse(limit, client.address)

    def _serve_operator(self, request: Request, client: Client) -> Response | Awaitable[Response]:
        """Answer an operator, even while the door is closed. Failures count toward the same limit as elsewhere."""
        answer = self._operators.answer(request, client.address)
        if isinstance(answer, Answer):
            return self._count_failure(answer, client)
        return self._serve_operator_later(answer, client)

    async def _serve_operator_later(self, answer: Awaitable[Answer], client: Client) -> Response:
        return self._count_failure(await answer, client)

    def _count_failure(self, answer: Answer, client: Client) -> Response:
        if answer.is_failure and (turned_away := self._note_failure(client)) is not None:
            return turned_away
        return answer.response

    def _refuse_cheaply(self, role: Role, client: Client) -> Response | None:
        """Refuse a client for reasons that do not depend on its request. Return None if it may ask."""
        if not self.is_open:
            return self._refuse(None)
        limit = self._reached(role, client.group)
        return None if limit is None else self._refuse(limit, client.address)

    def _reached(self, role: Role, group: str | None) -> Limit | None:
        """Return the limit that excludes a client whatever its request. None if there is none."""
        if role is Role.LISTENER and self._is_late:
            return Limit.LAG
        return self._seats.full(Seat(role, None, group), self._limits.most)

    def _note_failure(self, client: Client) -> Response | None:
        """Count a failure for the address and for the proxy that answers for it.

        If either already has too many, return a refusal and count nothing.
        """
        now, most = relay_clock(), self._limits.settings.max_failures_per_minute
        answering = [(client.group, client.address, 1), (client.surety, client.surety, SURETY_FACTOR)]
        for group, address, factor in answering:
            if most is not None and group is not None and self._failures.count(group, now) >= most * factor:
                return self._refuse(Limit.FAILURES_PER_ADDRESS, address or "")
        for group, _, _ in answering:
            if group is not None:
                self._failures.add(group, now)
        return None

    def _refuse(self, limit: Limit | None, address: str = "") -> Response:
        """Refuse a client because of a limit. None means that the door is closed."""
        if limit is not None:
            self._limits.applied(limit, address if limit in _BY_ADDRESS else "")
        return self._turn_away(limit)

    @staticmethod
    def _turn_away(limit: Limit | None) -> Response:
        status = HTTPStatus.TOO_MANY_REQUESTS if limit in _BY_ADDRESS else HTTPStatus.SERVICE_UNAVAILABLE
        least, most = RETRY_SECONDS
        return text_response(status, _SENTENCES[limit], Retry_After=str(least + secrets.randbelow(most - least + 1)))

    def _why_not_ready(self) -> str | None:
        if not self.is_open:
            return "the relay is starting or stopping"
        if self._is_late:
            return f"the relay is {self._lag.lag_ms:.0f} ms late"
        if self._seats.count(Role.LISTENER) >= self._limits.settings.max_connections:
            return "the relay is full"
        return None

    @property
    def _is_late(self) -> bool:
        most_ms = self._limits.settings.max_lag_ms
        return most_ms is not None and self._lag.lag_ms > most_ms


def _as_get(request: Request) -> Request:
    """Convert HEAD to GET. `Http1.answer` leaves out the body later."""
    if request.method != "HEAD":
        return request
    return Request(request.path, request.headers, "GET", request.protocol)


def _seat(admitted: Admitted) -> Seat:
    """Return the seat of an admitted client. A client that is connected only to learn its refusal has no session."""
    session = None if isinstance(admitted.found, RelayError) else admitted.found[0].address.session
    return Seat(admitted.role, session, admitted.client.group)
