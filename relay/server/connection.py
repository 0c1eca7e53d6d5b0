"""One open WebSocket: frames from bytes and back, budgets for what its peer sends, and an end in time.

Invariants: `Intake` takes what a peer sends a little at a time, and each message is handed on at once and in order; a
peer that is over a budget is closed with 1008 and a reason that names the limit, but a broadcaster's audio is only read
no faster; the relay writes complete messages, and only while the connection is open; whatever the peer does, a
connection that is to end has ended within `CLOSE_SECONDS`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from relay.hub.hub import Hub
from relay.limits.in_force import LimitsInForce
from relay.limits.names import CONTROL, Limit
from relay.limits.rates import Budget
from relay.protocol.json_messages import ControlMessage
from relay.protocol.messages import ErrorNotice, Ping
from relay.protocol.wire import SUBPROTOCOL
from relay.server.admission import Admitted
from relay.server.guarded import CLOSE_SECONDS, LAST_WORDS_SECONDS, GuardedConnection
from relay.server.intake import Intake
from relay.server.timers import Timer
from relay.server.writable import WritableSockets
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode, PeerError, RelayError

BURST_SECONDS = 2.0
"""A budget may be spent at once for this much time."""

AUDIO_BURST_SECONDS = 5.0
"""The same for audio, of which synthesis sends a sentence in one burst."""

_REASON_BYTES = 123
"""What a close frame holds beside its code, RFC 6455 section 5.5."""

_INVALID_TEXT = 1007
"""The close code of a text message that is not UTF-8, RFC 6455 section 7.4.1."""

_HOLDS = (Timer.AUDIO_RATE, Timer.ADDRESS_RATE, Timer.AHEAD, Timer.SWITCH)

_CLOSING_LIMITS = {
    Opcode.PING: Limit.PING_RATE,
    Opcode.PONG: Limit.PING_RATE,
    Opcode.TEXT: Limit.TEXT_RATE,
    Opcode.CONT: Limit.FRAGMENT_RATE,
}

logger = logging.getLogger(__name__)


class Conversation:
    """What is said on an open connection. This one says nothing: it is of a peer that was refused."""

    __slots__ = ()

    def begin(self) -> None:
        """Greet the peer.

        Raises:
            PeerError: It can not be served. The connection tells it why, and closes.
        """

    def receive(self, message: str | bytes) -> None:
        """Take a message.

        Raises:
            PeerError: The peer did what it must not. The connection tells it so, and closes.
        """

    def block(self) -> None:
        """Take note that the socket takes no more."""

    def unblock(self) -> None:
        """Take note that the socket takes data again."""

    def leave(self) -> None:
        """Take note that nothing may be written any more; done twice, it changes nothing."""

    def end(self) -> None:
        """Take note that nothing more comes; done twice, it changes nothing."""


_NOBODY = Conversation()


def _do_nothing() -> None:
    """Only read on."""


def answer_common(connection: "RelayConnection", hub: Hub, message: ControlMessage) -> None:
    """Answer a `ping`, which every role may send; unknown messages are ignored, so newer clients can be served."""
    if message["type"] != "ping":
        hub.ignored_messages += 1
    elif connection.speaks_relay:
        connection.send_text(Ping.read(message).answer(hub.clock_ms))


class RelayConnection(GuardedConnection):
    """The connection of a listener or a broadcaster, or of a peer that is to learn why it is neither.

    Attributes:
        id: Unique; in the log and in `hello`.
        role: What the client is or wanted to be.
        address: Where it is or wanted to be; None when it asked for no channel that can be.
        client_address: Of the person or program, behind whatever proxies; empty when it is unknown.
        client_group: What limits count as one address; None when it is not known.
        intake: What the peer sends comes through it; it knows when something was heard last.
        asked_at: When it was asked last whether it is there, or was to be asked, by the relay's clock.
        protocol: The library's, which knows the state of the WebSocket.
        writable: Tells when a socket takes data again.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: ServerProtocol,
        admitted: Admitted,
        limits: LimitsInForce,
        *,
        writable: WritableSockets,
        tell_end: "Callable[[RelayConnection, Exception | None], None]",
    ) -> None:
        """Make a connection on which nothing is said yet.

        Args:
            transport: Where it takes over.
            protocol: The library's, behind the opening handshake.
            admitted: What the door knows of the client.
            limits: What the peer may.
            writable: Tells when a socket takes data again.
            tell_end: Is called once when the connection has ended, with what the transport says of a loss.
        """
        super().__init__(limits)
        self.transport = transport
        self.protocol = protocol
        self.id = str(protocol.id)
        self.role = admitted.role
        self.address = admitted.address
        self.client_address, self.client_group = admitted.client.address, admitted.client.group
        self.writable = writable
        self.intake = Intake(transport, self._take)
        self.asked_at = 0.0
        self._tell_end = tell_end
        self._conversation = _NOBODY
        self._budgets: dict[Limit, Budget] = {}
        self._frames: list[Frame] = []
        self._message: bytearray | None = None
        self._message_is_text = False
        self._awaits_room_at: int | None = None
        self._is_full = self._is_to_be_asked = self._tells_later = False

    @property
    def is_open(self) -> bool:
        """Whether messages may be written."""
        return self.protocol.state is State.OPEN

    @property
    def is_full(self) -> bool:
        """Whether something waits for the socket to take it."""
        return self._is_full or self._awaits_room_at is not None

    @property
    def speaks_relay(self) -> bool:
        """Whether the peer reads headers and control messages."""
        return self.protocol.subprotocol == SUBPROTOCOL

    def converse(self, conversation: Conversation) -> None:
        """Begin a conversation, which gets what the peer says until the connection ends."""
        if self._attempt(conversation, conversation.begin):
            self._conversation = conversation
            if not self.is_open:
                conversation.leave()

    def _attempt(self, conversation: Conversation, action: Callable[[], None]) -> bool:
        """Do something of a conversation; False when it raised, and the conversation has ended with that."""
        try:
            action()
        except PeerError as error:
            conversation.end()
            self.refuse(error)
        except Exception:
            logger.exception("a connection failed by our fault", extra={"connection": self.id})
            conversation.end()
            self.close(CloseCode.INTERNAL, "The relay failed; try again.")
        else:
            return True
        return False

    # What the peer sends

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent (called by the transport)."""
        self.intake.receive(data)

    def _take(self, piece: bytes) -> None:
        self.protocol.receive_data(piece)
        self._frames += self.protocol.events_received()  # type: ignore[arg-type] # behind the handshake all are frames
        self.send_data()
        self._take_frames()

    def _take_frames(self) -> None:
        """Take the frames that came, up to one that says to read no more for now."""
        while self._frames and not self.intake.is_held:
            self._take_frame(self._frames.pop(0))

    def _take_frame(self, frame: Frame) -> None:
        """Take one frame, on its budget."""
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
        """Hand a message on when its last fragment is there; all fragments together are bounded by the library."""
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
            self.protocol.fail(_INVALID_TEXT, f"{error.reason} at position {error.start}")
            self.send_data()
        else:
            self._attempt(self._conversation, partial(self._conversation.receive, said))

    def read_later(self, why: Timer, seconds: float, then: Callable[[], None]) -> None:
        """Read no more for a while. Then do something, which may say again to read later."""
        self.intake.hold(why)
        self.timers.start(why, seconds, partial(self._read_on, why, then))

    def _read_on(self, why: Timer, then: Callable[[], None]) -> None:
        self.timers.stop(why)
        self._attempt(self._conversation, then)
        if why not in self.timers:
            self.intake.let_go(why)

    def _read_audio_on(self) -> None:
        """Read on, when what came together with the message that was too much is paid for, too."""
        over_seconds = self._budgets[Limit.AUDIO_RATE].overdrawn_seconds(relay_clock(), AUDIO_BURST_SECONDS)
        if over_seconds and self.is_open:
            self.read_later(Timer.AUDIO_RATE, over_seconds, self._read_audio_on)

    def spend(self, limit: Limit, burst_seconds: float) -> float:
        """Spend one of this peer's budget for a limit; gives for how many seconds it is overdrawn, 0 for not."""
        budget = self._budgets.get(limit)
        if budget is None:
            budget = self._budgets[limit] = Budget()
        return budget.spend(relay_clock(), self.limits.most(limit), burst_seconds)

    # What the peer is sent

    def send_text(self, text: str) -> None:
        """Write one control message; nothing when the peer reads none, or the connection is closing."""
        if self.speaks_relay and self.is_open:
            self.protocol.send_text(text.encode())
            self.send_data()

    def send_data(self) -> None:
        """Write what the protocol has; a peer that lets too much wait is cut off.

        From a close frame on, of either side, the peer has `CLOSE_SECONDS`, and the relay writes nothing more.
        """
        if self.timers.have_ended:
            return
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.end_writing()
        if not self.is_open:
            self._conversation.leave()
            if self.protocol.state is State.CLOSING and Timer.CLOSING not in self.timers:
                self.timers.start(Timer.CLOSING, CLOSE_SECONDS, self.cut_off)
        if self._is_full and self.transport.get_write_buffer_size() > self.limits.settings.max_unread_bytes:
            self.limits.applied(Limit.UNREAD_BYTES)
            self.cut_off(f"More than {Limit.UNREAD_BYTES} wait for it.")

    def ask(self) -> None:
        """Ask the peer whether it is there; when its socket is full, as soon as it takes data again."""
        self.asked_at = relay_clock()
        self._is_to_be_asked = self.is_full
        if self.is_open and not self.is_full:
            self.protocol.send_ping(b"")
            self.send_data()

    # Flow control

    def pause_writing(self) -> None:
        """Take note that the socket is full (called by the transport)."""
        self._is_full = True
        if self._tells_later:
            asyncio.get_running_loop().call_soon(self._tell_full)
        else:
            self._tell_full()

    def _tell_full(self) -> None:
        if self._is_full:
            self._conversation.block()

    @contextmanager
    def telling_later(self) -> Iterator[None]:
        """Tell of a full socket only after the drain's present write to many, whose order it would change."""
        self._tells_later = True
        try:
            yield
        finally:
            self._tells_later = False

    def resume_writing(self) -> None:
        """Take note that everything was written (called by the transport)."""
        self._is_full = False
        self._go_on_writing()

    def await_room(self) -> None:
        """Block the listener until the socket takes data again; nothing is left in the transport for that."""
        self._conversation.block()
        if self._awaits_room_at is None:
            self._awaits_room_at = self.transport.get_extra_info("socket").fileno()
            self.writable.wait(self._awaits_room_at, self._note_room)

    def _note_room(self) -> None:
        self._awaits_room_at = None
        self._go_on_writing()

    def _go_on_writing(self) -> None:
        if not self.is_full:
            if self._is_to_be_asked:
                self.ask()
            self._conversation.unblock()

    # The end

    @property
    def _is_leaving(self) -> bool:
        """Whether this side began to close, so that nobody reads messages any more."""
        return self.protocol.close_sent is not None and self.protocol.close_rcvd is None

    def refuse(self, error: RelayError) -> None:
        """Tell the peer what was wrong in an `error` message, when it reads those, and close with the error's code."""
        self.send_text(ErrorNotice(error.close_code, str(error)).text())
        self.close(error.close_code, str(error))

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake; the peer is cut off when it does not answer in time.

        It is read on until it answers, although nobody wants messages any more: its own close frame comes behind them.

        Args:
            code: The close code.
            reason: Is shortened to what a close frame holds.
        """
        if self.is_open:
            for hold in _HOLDS:
                self.intake.let_go(hold)
            self.protocol.send_close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self.send_data()

    def end_over(self, limit: Limit) -> None:
        """Close the connection of a peer that is over a limit. It may read the reason, and is soon cut off."""
        if self.protocol.eof_sent:
            return
        self.limits.applied(limit)
        value = self.limits.most(limit)
        self.protocol.fail(CloseCode.POLICY, f"This is over the relay's limit {limit} of {value}.")
        self.intake.hold(Timer.OVER_A_LIMIT)
        self.timers.start(Timer.OVER_A_LIMIT, LAST_WORDS_SECONDS, self.cut_off)
        self.send_data()

    def eof_received(self) -> None:
        """Take note that the peer sends no more (called by the transport, which closes itself then)."""
        self.protocol.receive_eof()
        self.send_data()
        self.intake.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is gone (called by the transport).

        Nothing of it refers to itself from then on, so it goes at once and not with the next collection of all
        garbage, which would hold everybody up.
        """
        self.timers.end()
        self.intake.end()
        if self._awaits_room_at is not None:
            self.writable.forget(self._awaits_room_at)
            self._awaits_room_at = None
        self.protocol.receive_eof()
        self._conversation.leave()
        for frame in self._frames:
            if frame.opcode in DATA_OPCODES and not self._is_leaving:
                self._assemble(frame)
        self._conversation.end()
        self._conversation = _NOBODY
        self._tell_end(self, exc)
        self.protocol.parser.close()
        for error in (exc, self.protocol.parser_exc):
            if error is not None:
                error.__traceback__ = None
