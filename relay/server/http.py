"""A connection that is not a WebSocket yet: it reads and answers requests until one of them is upgraded.

Invariants: every request gets a response, even an unreadable one. Requests are not pipelined: if more data comes with
a request, its response ends the connection, and while a response takes time, nothing more is read. A peer that sends
slowly or does not read its response is cut off in time. A connection that becomes a WebSocket is handed over in the
same turn of the event loop, so nothing happens between the door's admission and the taking of the seat.
"""

import asyncio
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Protocol, cast

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from relay.limits.in_force import LimitsInForce
from relay.limits.names import Limit
from relay.limits.seats import Visitor
from relay.process.tasks import TaskRegistry
from relay.protocol.http1 import Fault, Http1, RequestHead, UnreadableRequestError
from relay.protocol.wire import MAX_BROADCAST_BYTES, SUBPROTOCOL
from relay.server.admission import Admitted
from relay.server.door import Door
from relay.server.endings import Endings
from relay.server.guarded import CLOSE_SECONDS, LAST_WORDS_SECONDS, GuardedConnection, Timer
from relay.server.kernel import RECEIVE_BUFFER_BYTES, bound_receive_buffer
from relay.server.responses import SERVER_HEADER, complete_response, text_response
from relay.server.tls import bound_tls_buffers

KEEP_ALIVE_SECONDS = 2.0
"""How long a connection stays open for another request. A page asks for its files at once, and an idle connection
counts as one that is no WebSocket yet."""

_LIMITS_OF_FAULTS = {
    Fault.URI_TOO_LONG: Limit.HANDSHAKE_BYTES,
    Fault.TOO_LARGE: Limit.HANDSHAKE_BYTES,
    Fault.BODY_TOO_LARGE: Limit.BODY_BYTES,
}

_BUG = "a bug in the relay made a request fail"

logger = logging.getLogger(__name__)
_library_logger = logging.getLogger("websockets.server")


class Attendance(Protocol):
    """Keeps count of the connections that are not WebSockets yet."""

    def arrived(self, connection: Visitor) -> None:
        """Count a connection."""


class Reception(Protocol):
    """Takes over the transports of admitted clients."""

    def take_in(
        self, transport: asyncio.Transport, protocol: ServerProtocol, admitted: Admitted, accepted: bytes
    ) -> asyncio.Protocol:
        """Create a WebSocket. It sends the response that accepts the upgrade."""

    def take_in_stream(
        self, transport: asyncio.Transport, admitted: Admitted, head: bytes, *, is_chunked: bool
    ) -> asyncio.Protocol:
        """Create an HTTP stream. It sends the head of the response."""


class RelayProtocol(ServerProtocol):
    """The library's protocol, used after a handshake that this module has read, and for the frames that follow."""

    def __init__(self) -> None:
        """Begin after the opening handshake. The maximum message size is a broadcaster's."""
        super().__init__(state=State.OPEN, max_size=MAX_BROADCAST_BYTES, logger=_library_logger)

    def select_subprotocol(self, subprotocols: list[Subprotocol]) -> Subprotocol | None:  # type: ignore[override]
        """Select `relay.v1` if the client offers it. Nothing else is ever echoed, least of all a token."""
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in subprotocols else None


class HttpConnection(GuardedConnection):
    """One accepted connection and its requests.

    Attributes:
        peer_address: Address of the peer. Empty if unknown. It is stored because uvloop cannot return it after the
            connection is lost.
    """

    def __init__(
        self,
        door: Door,
        reception: Reception,
        endings: Endings,
        limits: LimitsInForce,
        attendance: Attendance,
        *,
        tasks: TaskRegistry,
    ) -> None:
        super().__init__(limits)
        self._door = door
        self._reception = reception
        self._endings = endings
        self._tasks = tasks
        self._attendance = attendance
        self._http = Http1()
        self._has_said_all = False
        self._is_full = False
        self._is_idle = False
        self.peer_address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start waiting for a request (called by the event loop)."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(0)
        bound_tls_buffers(self.transport)
        bound_receive_buffer(self.transport.get_extra_info("socket"), RECEIVE_BUFFER_BYTES)
        self.peer_address = (self.transport.get_extra_info("peername") or ("",))[0]
        self.timers.start(Timer.HTTP, self._timeout_seconds, self._end_request)
        self._attendance.arrived(self)

    @property
    def _timeout_seconds(self) -> float:
        return self.limits.settings.handshake_timeout_seconds

    def data_received(self, data: bytes) -> None:
        """Handle received data (called by the transport)."""
        if self._has_said_all:
            # Read and discard the data. Unread data would reset the connection and destroy the response.
            return
        if self._is_idle:
            self._is_idle = False
            self.timers.start(Timer.HTTP, self._timeout_seconds, self._end_request)
        limits = self.limits.settings
        try:
            head = self._http.receive(data, limits.max_handshake_bytes, limits.max_body_bytes)
        except UnreadableRequestError as error:
            self._refuse(error)
            return
        if head is not None:
            self._answer(head)

    def eof_received(self) -> None:
        """Handle the end of the peer's data (called by the transport, which then closes itself)."""
        if self._http.has_begun and not self._has_said_all:
            self._refuse(UnreadableRequestError(Fault.CUT_SHORT))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, because the connection is lost (called by the transport)."""
        self.timers.end()
        if exc is not None:
            exc.__traceback__ = None  # its frames refer to the connection

    def pause_writing(self) -> None:
        """Remember that the peer has not read all of a response (called by the transport)."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Go on, because the peer has read everything (called by the transport)."""
        self._is_full = False
        if self._is_idle and not self.transport.is_closing():
            self.transport.resume_reading()
        if self._is_idle or self._has_said_all:
            self._wait_for_peer()

    def _answer(self, head: RequestHead) -> None:
        request = Request(head.target, Headers(head.headers), head.method, head.protocol)
        try:
            found = self._door.answer(request, self.peer_address)
        except Exception:
            logger.exception(_BUG)
            found = _failure_response()
        if isinstance(found, Awaitable):
            self.timers.stop(Timer.HTTP)
            self.transport.pause_reading()
            self._tasks.start(self._respond_later(request, found), f"answer to {self.peer_address}")
        elif isinstance(found, Response):
            self._respond(request, found)
        elif found.opening is not None:
            self._stream(request, found, found.opening)
        elif (response := self._upgrade(request, found)) is not None:
            self._respond(request, response)

    def _respond(self, request: Request, response: Response) -> None:
        self._endings.note_answer(response.status_code)
        if self._http.rest and "Connection" not in response.headers:
            response.headers["Connection"] = "close"
        self._write(response, request)

    async def _respond_later(self, request: Request, found: Awaitable[Response]) -> None:
        """Wait for a response. What was asked for is done to its end, even if the peer leaves meanwhile."""
        try:
            response = await found
        except Exception:
            logger.exception(_BUG)
            response = _failure_response()
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._respond(request, response)

    def _upgrade(self, request: Request, admitted: Admitted) -> Response | None:
        """Hand the connection over to a new WebSocket. Return a response only if the handshake is malformed."""
        protocol = RelayProtocol()
        response = protocol.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            if protocol.handshake_exc is not None:
                protocol.handshake_exc.__traceback__ = None  # its frames refer to the request, which refers to it
            return response
        self._endings.note_answer(response.status_code)
        response.headers["Server"] = SERVER_HEADER
        self.timers.end()
        taken_in = self._reception.take_in(self.transport, protocol, admitted, response.serialize())
        if self._http.rest:
            taken_in.data_received(self._http.rest)
        return None

    def _stream(self, request: Request, admitted: Admitted, opening: Response) -> None:
        """Hand the connection over to a new stream."""
        self._endings.note_answer(opening.status_code)
        complete_response(opening, request, is_over_tls=self.is_over_tls)
        head = self._http.begin_answer(opening.status_code, opening.reason_phrase, opening.headers.raw_items())
        self.timers.end()
        is_chunked = request.protocol != "HTTP/1.0"
        self._reception.take_in_stream(self.transport, admitted, head, is_chunked=is_chunked)

    def _refuse(self, error: UnreadableRequestError) -> None:
        limit = _LIMITS_OF_FAULTS.get(error.fault)
        if limit is None:
            self.limits.could_not_read(error.fault, self.peer_address)
        else:
            self.limits.applied(limit, self.peer_address)
        self._write_last(text_response(error.status, str(error)))

    def _end_request(self) -> None:
        """Time out a request that is late."""
        self.limits.applied(Limit.HANDSHAKE_SECONDS, self.peer_address)
        self._write_last(
            text_response(HTTPStatus.REQUEST_TIMEOUT, "The request took longer than limits.handshake_timeout_seconds.")
        )

    def _end_answer(self) -> None:
        """Cut off a peer that does not read its response."""
        self.limits.applied(Limit.HANDSHAKE_SECONDS, self.peer_address)
        self.cut_off()

    def _write_last(self, response: Response) -> None:
        """Send a final response that belongs to no request, and cut the connection off soon after."""
        self._write(response, None)
        self.timers.start(Timer.HTTP, LAST_WORDS_SECONDS, self.cut_off)

    def _write(self, response: Response, request: Request | None) -> None:
        complete_response(response, request, is_over_tls=self.is_over_tls)
        headers, body = response.headers.raw_items(), bytes(response.body or b"")
        self.transport.write(self._http.answer(response.status_code, response.reason_phrase, headers, body))
        self._is_idle = self._http.is_open
        self._has_said_all = not self._is_idle
        if self._has_said_all:
            self.end_writing()
        if not self._is_full:
            self._wait_for_peer()
        else:
            self.timers.start(Timer.HTTP, self._timeout_seconds, self._end_answer)
            if self._is_idle:
                self.transport.pause_reading()

    def _wait_for_peer(self) -> None:
        """Wait for the next request, or for the peer to close."""
        if self._has_said_all:
            self.timers.start(Timer.HTTP, CLOSE_SECONDS, self.cut_off)
        else:
            self.timers.start(Timer.HTTP, KEEP_ALIVE_SECONDS, self.transport.close)


def _failure_response() -> Response:
    return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "The relay failed; try again.")
