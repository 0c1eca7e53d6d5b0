"""One accepted connection with what keeps its peer from hurting others: budgets, a bound on what waits, an end in time.

Invariants: what a peer sends is taken by `Intake`, a little at a time; a peer that is over a budget is closed with
1008 and a reason that names the limit, but a broadcaster's audio is only read no faster; whatever the peer does, a
connection that is to end has ended within `CLOSE_SECONDS`; timers and whatever else it has taken end with it; a request
that can't be read gets an answer, too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event, State
from websockets.server import ServerProtocol
from websockets.typing import Data

from relay.adapters.server.credentials import select_subprotocol
from relay.adapters.server.http_response import text_response
from relay.adapters.server.intake import TURN_SECONDS, Intake
from relay.adapters.server.kernel import RECEIVE_BUFFER_BYTES, bound_receive_buffer, discard_unsent
from relay.adapters.server.lost import LostTransport
from relay.adapters.server.responses import secure_unread
from relay.adapters.server.timers import Timer, Timers
from relay.adapters.server.tls import bound_tls_buffers
from relay.core.limits.names import CONTROL, Limit
from relay.core.limits.pending import Visitor
from relay.core.limits.rates import Budget
from relay.core.request_head import Fault, HeadReader, UnreadableRequestError
from relay.core.wire import SUBPROTOCOL
from relay.runtime.limits import LimitsInForce
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode

CLOSE_SECONDS = 5.0
"""How long a closing handshake may take before the connection is cut off."""

LAST_WORDS_SECONDS = 1.0
"""How long who is over a limit may take to read the close frame that says so."""

BURST_SECONDS = 2.0
"""Of this much time a budget may be spent at once."""

AUDIO_BURST_SECONDS = 5.0
"""Likewise of audio: synthesis sends a sentence in one burst."""

_REASON_BYTES = 123
"""What a close frame holds beside its code, RFC 6455 section 5.5."""

_OVER_A_LIMIT, _AUDIO_RATE = "over a limit", "audio rate"
_ADDRESS_RATE, _UNANSWERED = "rate of the address", "unanswered request"
"""Who holds an intake, and why."""

_STAND_IN = b"GET / HTTP/1.1\r\n\r\n"
"""What the library reads in place of a request, whose head was read before: its own bounds are fixed, and what it can't
read it does not answer."""

_LIMITS_OF_HEADS = frozenset({Fault.URI_TOO_LONG, Fault.TOO_LARGE})

_CLOSING_LIMITS = {
    Opcode.PING: Limit.PING_RATE,
    Opcode.PONG: Limit.PING_RATE,
    Opcode.TEXT: Limit.TEXT_RATE,
    Opcode.CONT: Limit.FRAGMENT_RATE,
}


class Attendance(Protocol):
    """Who keeps count of the connections."""

    def arrived(self, connection: Visitor) -> None:
        """Note one that has not asked for anything yet."""
        ...


def _do_nothing() -> None:
    """Stand in for what a connection that is gone would do."""


class GuardedConnection(ServerConnection):
    """The library's connection, guarded.

    Attributes:
        intake: What the peer sends comes through it; it knows when something was heard last.
        limits: What the peer may.
        peer_address: Of the other end, empty when it is unknown; kept, since uvloop can not tell once it has gone.
        client_address: Of the person or program, behind whatever proxies; empty before the opening handshake.
        client_group: What limits count as one address; None when it is not known.
        asked_at: When it was asked last whether it is there, or was to be asked, by the relay's clock.
        cut_off_because: Why the relay cut it off: a sentence, or what failed; None while it did not.
    """

    # The library's own attributes fit into a dictionary whose keys all connections share. With these in it as well,
    # each connection would have keys of its own, which cost 1.2 KiB.
    __slots__ = (
        "_asked",
        "_attendance",
        "_budgets",
        "_head",
        "_timers",
        "_turn_end",
        "asked_at",
        "client_address",
        "client_group",
        "cut_off_because",
        "intake",
        "limits",
    )

    intake: Intake
    _asked: Request
    _head: HeadReader | None
    _is_refused = False
    _waits_for_rate = False
    _is_to_be_asked = False

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        attendance: Attendance,
        limits: LimitsInForce,
        **options: Any,  # noqa: ANN401 - the library's
    ) -> None:
        """Make it (called by the library, with options of its own)."""
        # Not by the library's option, whose closure would hold the connection in a circle.
        protocol.select_subprotocol = select_subprotocol  # type: ignore[method-assign, assignment]
        super().__init__(protocol, server, **options)
        # The library's is a deque, which costs 700 bytes also when nobody ever waits.
        self.drain_waiters = []  # type: ignore[assignment]
        self.limits = limits
        self.client_address = ""
        self.client_group: str | None = None
        self.asked_at = 0.0
        self.cut_off_because: str | OSError | None = None
        self._attendance = attendance
        self._head = HeadReader()
        self._timers = Timers(self.loop)
        self._budgets: dict[Limit, Budget] = {}
        self._turn_end = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to take what the peer sends (called by the event loop)."""
        super().connection_made(transport)
        bound_receive_buffer(self.transport.get_extra_info("socket"), RECEIVE_BUFFER_BYTES)
        bound_tls_buffers(self.transport)
        self.intake = Intake(self.transport, super().data_received)
        self.recv_messages.pause, self.recv_messages.resume = self.intake.pause, self.intake.resume
        timeout_seconds = self.limits.settings.handshake_timeout_seconds
        self._timers.start(Timer.HANDSHAKE, timeout_seconds, self._end_handshake)
        self.peer_address = (self.remote_address or ("",))[0]
        self._attendance.arrived(self)

    @property
    def has_ended(self) -> bool:
        """Whether it is lost."""
        return self._timers.have_ended

    def at_end(self, action: Callable[[], None]) -> None:
        """Do something once, when the connection is lost; at once when it is."""
        self._timers.at_end(action)

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent (called by the transport)."""
        if self._head is None:
            # What comes behind a request that is refused is read and thrown away: unread, it would reset the
            # connection, and the answer with it.
            if not self._is_refused:
                self.intake.receive(data)
            return
        try:
            found = self._head.receive(data, self.limits.settings.max_handshake_bytes)
        except UnreadableRequestError as error:
            self._refuse_request(error)
            return
        if found is None:
            return
        head, rest = found
        self._head = None
        self._timers.start(Timer.HANDSHAKE, self.limits.settings.handshake_timeout_seconds, self._end_answer)
        self._asked = Request(head.target, Headers(head.headers), head.method, head.protocol)
        super().data_received(_STAND_IN)
        # Behind a request that is not upgraded comes no frame, so what comes is only read when it is answered.
        self.intake.hold(_UNANSWERED)
        if rest:
            self.intake.receive(rest)

    def eof_received(self) -> None:
        """Take note that the peer sends no more (called by the transport)."""
        if self._head is not None and self._head.has_begun:
            self._refuse_request(UnreadableRequestError(Fault.CUT_SHORT))
            return
        if self._head is not None:
            self._head, self._is_refused = None, True
            self._timers.stop(Timer.HANDSHAKE)
        super().eof_received()

    def _refuse_request(self, error: UnreadableRequestError) -> None:
        """Answer a request that can't be read."""
        if error.fault in _LIMITS_OF_HEADS:
            self.limits.applied(Limit.HANDSHAKE_BYTES, self.peer_address)
        else:
            self.limits.could_not_read(error.fault, self.peer_address)
        self._end_with(text_response(error.status, str(error)))

    def _end_handshake(self) -> None:
        """Answer a request that does not come."""
        self.limits.applied(Limit.HANDSHAKE_SECONDS)
        self._end_with(text_response(HTTPStatus.REQUEST_TIMEOUT, "The request took too long."))

    def _end_answer(self) -> None:
        """Cut off who does not take the answer."""
        self.limits.applied(Limit.HANDSHAKE_SECONDS)
        self.cut_off()

    def _end_with(self, response: Response) -> None:
        """Answer in the library's place, and soon cut the connection off."""
        self._head, self._is_refused = None, True
        self.transport.write(secure_unread(self, response).serialize())
        if self.transport.can_write_eof():
            with suppress(OSError, RuntimeError):  # uvloop raises the latter
                self.transport.write_eof()
        self._timers.stop(Timer.HANDSHAKE)
        self._timers.start(Timer.LAST_WORDS, LAST_WORDS_SECONDS, self.cut_off)

    def forget_handshake(self) -> None:
        """Let the headers of the handshake go, kilobytes that nobody reads again; the library needs the objects."""
        self._timers.stop(Timer.HANDSHAKE)
        del self._asked
        for message in (self.request, self.response):
            if message is not None:
                message.headers.clear()

    def process_event(self, event: Event) -> None:
        """Take one frame of what the peer sent (called by the library), on its budget."""
        if isinstance(event, Request):
            super().process_event(self._asked)
            return
        assert isinstance(event, Frame)  # noqa: S101 - the library's own invariant
        if event.opcode not in DATA_OPCODES or not self._is_leaving:
            super().process_event(event)
        if event.opcode is Opcode.BINARY:
            over_seconds = self.spend(Limit.AUDIO_RATE, AUDIO_BURST_SECONDS)
            if over_seconds and self._is_leaving:
                self.cut_off()
            elif over_seconds and not self._waits_for_rate:
                self.limits.applied(Limit.AUDIO_RATE)
                self._waits_for_rate = True
                self.intake.hold(_AUDIO_RATE)
                self._timers.start(Timer.AUDIO_RATE, over_seconds, self._go_on)
        elif (limit := _CLOSING_LIMITS.get(event.opcode)) is not None:
            if self.spend(limit, BURST_SECONDS):
                self.end_over(limit)
            elif wait_seconds := self.limits.overdraw(CONTROL, self.client_group):
                self.wait_for_address(wait_seconds)

    def wait_for_address(self, seconds: float) -> None:
        """Read no more for a while: the address as a whole says too much."""
        if Timer.ADDRESS_RATE not in self._timers:
            self.intake.hold(_ADDRESS_RATE)
            self._timers.start(Timer.ADDRESS_RATE, seconds, self._go_on_for_address)

    def _go_on_for_address(self) -> None:
        self._timers.stop(Timer.ADDRESS_RATE)
        self.intake.let_go(_ADDRESS_RATE)

    def _go_on(self) -> None:
        """Read on, when what came together with the message that was too much is paid for, too."""
        over_seconds = self._budgets[Limit.AUDIO_RATE].overdrawn_seconds(relay_clock(), AUDIO_BURST_SECONDS)
        if over_seconds and not self._is_leaving:
            self._timers.start(Timer.AUDIO_RATE, over_seconds, self._go_on)
        else:
            self._waits_for_rate = False
            self.intake.let_go(_AUDIO_RATE)

    def spend(self, limit: Limit, burst_seconds: float) -> float:
        """Spend one of this peer's budget for a limit; gives for how many seconds it is overdrawn, 0 for not."""
        budget = self._budgets.get(limit)
        if budget is None:
            budget = self._budgets[limit] = Budget()
        return budget.spend(relay_clock(), self.limits.most(limit), burst_seconds)

    @property
    def _is_leaving(self) -> bool:
        """Whether this side began to close, so that nobody reads messages any more."""
        return self.protocol.close_sent is not None and self.protocol.close_rcvd is None

    def end_over(self, limit: Limit) -> None:
        """Close the connection of a peer that is over a limit: it is told, read no more, and soon cut off."""
        if self.protocol.eof_sent:
            return
        self.limits.applied(limit)
        value = self.limits.most(limit)
        self.protocol.fail(CloseCode.POLICY, f"This is over the relay's limit {limit} of {value}.")
        self.send_data()
        self.intake.hold(_OVER_A_LIMIT)
        self._timers.start(Timer.LAST_WORDS, LAST_WORDS_SECONDS, self.cut_off)

    async def __aiter__(self) -> AsyncIterator[Data]:
        """Give the messages, as the library does; who has many of them gives others a turn in between."""
        async for message in super().__aiter__():
            if relay_clock() > self._turn_end:
                await asyncio.sleep(0)
                self._turn_end = relay_clock() + TURN_SECONDS
            yield message

    def send_data(self) -> None:
        """Write what the protocol has (called by the library); who lets too much wait is cut off.

        From the close frame on, whoever's fault it was, the peer has `CLOSE_SECONDS`.
        """
        super().send_data()
        if self.protocol.state is State.CLOSING and Timer.CLOSING not in self._timers:
            self._timers.start(Timer.CLOSING, CLOSE_SECONDS, self.cut_off)
        if self.response is not None and self.intake.is_held:
            self.intake.let_go(_UNANSWERED)
        if self.paused and self.transport.get_write_buffer_size() > self.limits.settings.max_unread_bytes:
            self.limits.applied(Limit.UNREAD_BYTES)
            self.cut_off(f"More than {Limit.UNREAD_BYTES} wait for it.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is gone (called by the transport)."""
        self._timers.end()
        self.intake.end()
        super().connection_lost(exc)
        self.transport = LostTransport(self.transport)
        # Nothing of it refers to itself any more, so it goes at once and not with the next collection of all garbage,
        # which would hold everybody up.
        self.recv_messages.pause = self.recv_messages.resume = _do_nothing
        for error in (exc, self.protocol.parser_exc):
            if error is not None:
                error.__traceback__ = None

    @property
    def is_full(self) -> bool:
        """Whether something waits for the socket to take it."""
        return self.paused

    @property
    def speaks_relay(self) -> bool:
        """Whether the peer reads headers and control messages."""
        return self.subprotocol == SUBPROTOCOL

    def ask(self) -> None:
        """Ask the peer whether it is there; when its socket is full, as soon as it takes data again."""
        self.asked_at = relay_clock()
        self._is_to_be_asked = self.is_full
        if self.protocol.state is State.OPEN and not self.is_full:
            self.protocol.send_ping(b"")
            self.send_data()

    def ask_if_due(self) -> None:
        """Ask a peer that was to be asked while its socket was full, if it is so no more."""
        if self._is_to_be_asked and not self.is_full:
            self.ask()

    def cut_off(self, because: str | OSError = "It did not end in time.") -> None:
        """End the connection at once; what was not sent is thrown away, by the kernel, too."""
        if self.protocol.state is not State.CLOSED:
            self.cut_off_because = self.cut_off_because or because
            discard_unsent(self.transport.get_extra_info("socket"))
            self.transport.abort()

    async def close_in_time(self, code: CloseCode, reason: str) -> None:
        """Close with `code` and `reason` (shortened to what a close frame holds), cutting off who does not answer.

        The library's own timeout begins only after its close frame was written, which a stalled peer prevents.
        Cancelled, it leaves the connection half closed; whoever cancels cuts it off.
        """
        self._listen_for_answer()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close(code, _shortened(reason))
        except TimeoutError:
            self.cut_off()

    def begin_to_close(self, code: CloseCode, reason: str) -> None:
        """Send the close frame to a connection that is open, and wait for nothing."""
        self._listen_for_answer()
        self.protocol.send_close(code, _shortened(reason))
        self.send_data()

    def _listen_for_answer(self) -> None:
        """Read on, although nobody wants messages any more: behind what waits comes the peer's own close frame."""
        self.intake.resume()
        self.intake.let_go(_AUDIO_RATE)
        self.intake.let_go(_ADDRESS_RATE)


def _shortened(reason: str) -> str:
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore")
