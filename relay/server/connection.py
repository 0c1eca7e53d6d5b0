"""One open WebSocket: it parses and serializes frames, enforces the peer's limits, and ends in time.

Invariants: `Intake` takes a peer's data in small pieces, and each message is delivered immediately and in order. A peer
that exceeds a limit is closed with 1008 and a reason that names the limit. Excess audio of a broadcaster is only read
more slowly. The relay writes complete messages, and only while the connection is open. Once a connection begins to
close, it ends within `CLOSE_SECONDS`, whatever the peer does.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from relay.hub.hub import Hub
from relay.limits.in_force import LimitsInForce
from relay.limits.names import CONTROL, Limit
from relay.limits.rates import Budget
from relay.protocol.json_messages import ControlMessage
from relay.protocol.messages import ErrorNotice, Ping
from relay.protocol.wire import SUBPROTOCOL
from relay.server.admission import Admitted
from relay.server.endings import By, Closing
from relay.server.guarded import CLOSE_SECONDS, LAST_WORDS_SECONDS, Timer
from relay.server.intake import Intake
from relay.server.served import ServedConnection
from relay.server.writable import WritableSockets
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode, RelayError

BURST_SECONDS = 2.0
"""A peer may spend the budget of this period at once."""

AUDIO_BURST_SECONDS = 5.0
"""The same for audio. Speech synthesis sends a sentence in one burst."""

_REASON_BYTES = 123
"""Bytes in a close frame after the code, RFC 6455 section 5.5."""

_HOLDS = (Timer.AUDIO_RATE, Timer.ADDRESS_RATE, Timer.AHEAD, Timer.SWITCH, Timer.GATE)

_CLOSING_LIMITS = {
    Opcode.PING: Limit.PING_RATE,
    Opcode.PONG: Limit.PING_RATE,
    Opcode.TEXT: Limit.TEXT_RATE,
    Opcode.CONT: Limit.FRAGMENT_RATE,
}

logger = logging.getLogger(__name__)


def _do_nothing() -> None:
    """Resume reading without any other action."""


def answer_common(connection: "RelayConnection", hub: Hub, message: ControlMessage) -> None:
    """Answer a `ping`, which both roles may send. Ignore and count unknown messages, so that newer clients work."""
    if message["type"] != "ping":
        hub.ignored_messages += 1
    elif connection.speaks_relay:
        connection.send_text(Ping.read(message).answer(hub.clock_ms))


class RelayConnection(ServedConnection):
    """The WebSocket of a listener, a broadcaster, or a peer that is connected only to learn why it is refused.

    It begins when the opening handshake succeeded. `accepted`, the response that says so, leaves with the first
    message, in one system call. `tell_end` is called once, when the connection has ended, with the transport's error if
    there was one.

    Attributes:
        intake: Receives the peer's data, and knows when the peer was last heard.
        asked_at: When the relay last pinged the peer or decided to, by the relay's clock.
        protocol: The library's protocol object, which holds the state of the WebSocket.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: ServerProtocol,
        admitted: Admitted,
        accepted: bytes,
        limits: LimitsInForce,
        *,
        writable: WritableSockets,
        tell_end: "Callable[[RelayConnection, Exception | None], None]",
    ) -> None:
        super().__init__(transport, str(protocol.id), admitted, limits, writable=writable)
        self.protocol = protocol
        self.intake = Intake(transport, self._take)
        self.asked_at = 0.0
        self._accepted = accepted
        self._tell_end = tell_end
        self._budgets: dict[Limit, Budget] = {}
        self._frames: list[Frame] = []
        self._message: bytearray | None = None
        self._message_is_text = False
        self._is_to_be_asked = False

    @property
    def is_open(self) -> bool:
        """Whether the relay may write messages."""
        return self.protocol.state is State.OPEN

    @property
    def speaks_relay(self) -> bool:
        """Whether the peer understands headers and control messages."""
        return self.protocol.subprotocol == SUBPROTOCOL

    # Receiving

    def data_received(self, data: bytes) -> None:
        """Handle received data (called by the transport)."""
        self.intake.receive(data)

    def _take(self, piece: bytes) -> None:
        self.protocol.receive_data(piece)
        self._frames += self.protocol.events_received()  # type: ignore[arg-type] # after the handshake all are frames
        self.send_data()
        self._take_frames()

    def _take_frames(self) -> None:
        """Handle the received frames until one of them pauses reading."""
        while self._frames and not self.intake.is_held:
            self._take_frame(self._frames.pop(0))

    def _take_frame(self, frame: Frame) -> None:
        """Handle one frame and charge it to its budget."""
        if frame.opcode in DATA_OPCODES and not self._is_leaving:
            self._assemble(frame)
        if frame.opcode is Opcode.BINARY:
            over_seconds = self.spend(Limit.AUDIO_RATE, AUDIO_BURST_SECONDS)
            if over_seconds and self._is_leaving:
                self.cut_off()
            elif over_seconds and Timer.AUDIO_RATE not in self.timers:
                self.limits.applied(Limit.AUDIO_RATE)
                self.read_later(Timer.AUDIO_RATE, over_seconds, self._read_audio_on)
        elif (limit := _CLOSING_LIMITS.get(frame.opcode)) is not None:
            if self.spend(limit, BURST_SECONDS):
                self.end_over(limit)
            elif wait_seconds := self.limits.overdraw(CONTROL, self.client_group):
                self.read_later(Timer.ADDRESS_RATE, wait_seconds, _do_nothing)

    def _assemble(self, frame: Frame) -> None:
        """Deliver a message when its last fragment arrives. The library limits the size of all fragments together."""
        if frame.fin and self._message is None:
            self._deliver(bytes(frame.data), is_text=frame.opcode is Opcode.TEXT)
            return
        if self._message is None:
            self._message, self._message_is_text = bytearray(), frame.opcode is Opcode.TEXT
        self._message += frame.data
        if frame.fin:
            message, self._message = bytes(self._message), None
            self._deliver(message, is_text=self._message_is_text)

    def _deliver(self, message: bytes, *, is_text: bool) -> None:
        try:
            said = message.decode() if is_text else message
        except UnicodeDecodeError as error:
            self.protocol.fail(CloseCode.NOT_UTF8, f"{error.reason} at position {error.start}")
            self.send_data()
        else:
            self._attempt(self._conversation, partial(self._conversation.receive, said))

    def hold_messages(self, *, on: bool) -> None:
        """Let messages wait from now on, or deliver them again."""
        if on:
            self.intake.hold(Timer.GATE)
        else:
            self.intake.let_go(Timer.GATE)

    def read_later(self, why: Timer, seconds: float, then: Callable[[], None]) -> None:
        """Pause reading, then call `then`, which may pause it again."""
        self.intake.hold(why)
        self.timers.start(why, seconds, partial(self._read_on, why, then))

    def _read_on(self, why: Timer, then: Callable[[], None]) -> None:
        self.timers.stop(why)
        self._attempt(self._conversation, then)
        if why not in self.timers:
            self.intake.let_go(why)

    def _read_audio_on(self) -> None:
        """Resume reading once the messages that arrived in the same piece are within the budget, too."""
        over_seconds = self._budgets[Limit.AUDIO_RATE].overdrawn_seconds(relay_clock(), AUDIO_BURST_SECONDS)
        if over_seconds and self.is_open:
            self.read_later(Timer.AUDIO_RATE, over_seconds, self._read_audio_on)

    def spend(self, limit: Limit, burst_seconds: float) -> float:
        """Charge one unit to this peer's budget. Return how many seconds it is overdrawn. 0 if it is not."""
        budget = self._budgets.get(limit)
        if budget is None:
            budget = self._budgets[limit] = Budget()
        return budget.spend(relay_clock(), self.limits.most(limit), burst_seconds)

    # Sending

    def send_text(self, text: str) -> None:
        """Write one control message, unless the peer does not read any or the connection is closing."""
        if self.speaks_relay and self.is_open:
            self.protocol.send_text(text.encode())
            self.send_data()

    def send_data(self) -> None:
        """Write the pending data in one system call. Cut off a peer for which too much data waits.

        After the first close frame of either side, the relay writes nothing more, and the peer has `CLOSE_SECONDS` to
        close.
        """
        if self.timers.have_ended:
            return
        pending = self.protocol.data_to_send()
        if data := self._accepted + b"".join(pending):
            self._accepted = b""
            self.transport.write(data)
        if SEND_EOF in pending:
            self.end_writing()
        if not self.is_open:
            self._conversation.leave()
            if self.protocol.state is State.CLOSING and Timer.CLOSING not in self.timers:
                self.timers.start(Timer.CLOSING, CLOSE_SECONDS, self.cut_off)
        if self._is_full and self.transport.get_write_buffer_size() > self.limits.settings.max_unread_bytes:
            self.limits.applied(Limit.UNREAD_BYTES)
            self.cut_off(f"The client did not read its answers: more than {Limit.UNREAD_BYTES} wait for it.")

    def ask(self) -> None:
        """Ping the peer. If its socket is full, ping it as soon as the socket accepts data again."""
        self.asked_at = relay_clock()
        self._is_to_be_asked = self.is_full
        if self.is_open and not self.is_full:
            self.protocol.send_ping(b"")
            self.send_data()

    def _go_on_writing(self) -> None:
        if self._is_to_be_asked and not self.is_full:
            self.ask()
        super()._go_on_writing()

    # Closing

    @property
    def _is_leaving(self) -> bool:
        """Whether this side began to close, so that messages are ignored."""
        return self.protocol.close_sent is not None and self.protocol.close_rcvd is None

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake. The peer is cut off if it does not answer in time.

        The relay goes on reading and ignores messages, because the peer's close frame comes after them. The reason is
        shortened to what fits into a close frame.
        """
        if self.is_open:
            for hold in _HOLDS:
                self.intake.let_go(hold)
            self.protocol.send_close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self.send_data()

    def refuse(self, error: RelayError) -> None:
        """Report an error in an `error` message if the peer reads those, and close with the error's code."""
        self.send_text(ErrorNotice(error.close_code, str(error)).text())
        self.close(error.close_code, str(error))

    def end_over(self, limit: Limit) -> None:
        """Close the connection of a peer that is over a limit. It has a moment to read the reason, then is cut off."""
        if self.protocol.eof_sent:
            return
        self.limits.applied(limit)
        value = self.limits.most(limit)
        self.protocol.fail(CloseCode.POLICY, f"This exceeds the relay's limit {limit} of {value}.")
        self.intake.hold(Timer.OVER_A_LIMIT)
        self.timers.start(Timer.OVER_A_LIMIT, LAST_WORDS_SECONDS, self.cut_off)
        self.send_data()

    def eof_received(self) -> None:
        """Handle the end of the peer's data (called by the transport, which then closes itself)."""
        self.protocol.receive_eof()
        self.send_data()
        self.intake.end()

    def closing(self, loss: Exception | None) -> Closing:
        """Determine how the connection ended. The first close frame decides."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        if received is not None and (sent is None or self.protocol.close_rcvd_then_sent):
            return Closing(received.code, received.reason, By.PEER)
        if sent is not None:
            return Closing(sent.code, sent.reason, By.RELAY)
        return self.closing_without_frame(loss)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection is lost (called by the transport).

        This breaks all reference cycles. So the connection is freed at once, not by the garbage collector, which would
        delay every client.
        """
        self.timers.end()
        self.intake.end()
        self._forget_room()
        self.protocol.receive_eof()
        self._conversation.leave()
        for frame in self._frames:
            if frame.opcode in DATA_OPCODES and not self._is_leaving:
                self._assemble(frame)
        self._end_conversation()
        self._tell_end(self, exc)
        self.protocol.parser.close()
        for error in (exc, self.protocol.parser_exc):
            if error is not None:
                error.__traceback__ = None
