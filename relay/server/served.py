"""A connection with a seat: a WebSocket or an HTTP stream. It has a conversation and flow control.

Invariants: the conversation learns at once when the socket accepts no more data, and when it accepts data again. It
leaves at the moment when writing becomes forbidden, and ends with the connection, whatever happens.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from relay.hub.gate import Then
from relay.limits.in_force import LimitsInForce
from relay.server.admission import Admitted
from relay.server.endings import By, Closing, describe_loss
from relay.server.guarded import GuardedConnection
from relay.server.writable import WritableSockets
from relay.vocabulary.errors import CloseCode, PeerError, RelayError

logger = logging.getLogger(__name__)


class Conversation:
    """The exchange of messages on an open connection.

    This base class serves a peer that is refused: it says nothing.
    """

    __slots__ = ()

    def prepare(self, then: Then) -> bool:  # noqa: ARG002 - this one needs nothing
        """Get ready for `begin`. Return True if it is ready; otherwise `then` is called later."""
        return True

    def begin(self) -> None:
        """Greet the peer.

        Raises:
            PeerError: The peer cannot be served. The connection reports the error to the peer and closes.
        """

    def receive(self, message: str | bytes) -> None:
        """Handle a message.

        Raises:
            PeerError: The peer violated a rule. The connection reports the error to the peer and closes.
        """

    def block(self) -> None:
        """Called when the socket accepts no more data."""

    def unblock(self) -> None:
        """Called when the socket accepts data again."""

    def leave(self) -> None:
        """Called when the relay may write no more. Idempotent."""

    def end(self) -> None:
        """Called when no more data will arrive. Idempotent."""


_NOBODY = Conversation()


class ServedConnection(GuardedConnection, ABC):
    """A connection with a seat.

    Attributes:
        id: Unique id, used in the log, in `hello`, and by operators.
        role: The role that the client asked for.
        address: The client's channel. None if it asked for an invalid one.
        client_address: Address of the client, behind any proxies. Empty if unknown.
        client_group: The group of its address, which limits count as one client. None if unknown.
        writable: Reports when a socket accepts data again.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        connection_id: str,
        admitted: Admitted,
        limits: LimitsInForce,
        *,
        writable: WritableSockets,
    ) -> None:
        super().__init__(limits)
        self.transport = transport
        self.id = connection_id
        self.role = admitted.role
        self.address = admitted.address
        self.client_address, self.client_group = admitted.client.address, admitted.client.group
        self.writable = writable
        self._conversation = _NOBODY
        self._awaits_room_at: int | None = None
        self._is_full = self._tells_later = False

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the relay may write messages."""

    @property
    def is_full(self) -> bool:
        """Whether data waits for room in the socket."""
        return self._is_full or self._awaits_room_at is not None

    @abstractmethod
    def send_text(self, text: str) -> None:
        """Write one control message, unless the peer does not read any or the connection is closing."""

    @abstractmethod
    def close(self, code: CloseCode, reason: str) -> None:
        """Begin to close. The peer is cut off if it does not close in time."""

    @abstractmethod
    def refuse(self, error: RelayError) -> None:
        """Report an error as far as the peer reads errors, and close with the error's code."""

    @abstractmethod
    def closing(self, loss: Exception | None) -> Closing:
        """Determine how the connection ended. `loss` is the transport's error, if there was one."""

    def closing_without_frame(self, loss: Exception | None) -> Closing:
        """Determine how a connection ended that neither side closed in an orderly way."""
        because = self.cut_off_because
        if isinstance(because, str):
            return Closing(CloseCode.CONNECTION_BROKE, because, By.RELAY)
        return Closing(CloseCode.CONNECTION_BROKE, describe_loss(because or loss), By.NETWORK)

    # The conversation

    def converse(self, conversation: Conversation) -> None:
        """Begin a conversation when it is ready. It receives the peer's messages until the connection ends."""
        self.when_ready(conversation.prepare, partial(self._begin, conversation))

    def when_ready(self, prepare: Callable[[Then], bool], action: Callable[[], None]) -> None:
        """Do something when it is prepared, unless the connection closes before. The peer's messages wait meanwhile."""
        if prepare(partial(self._go_on, action)):
            action()
        else:
            self.hold_messages(on=True)

    def _go_on(self, action: Callable[[], None], error: RelayError | None) -> None:
        self.hold_messages(on=False)
        if not self.is_open or self.transport.is_closing():
            return
        if error is not None:
            self.refuse(error)
        else:
            action()

    def hold_messages(self, *, on: bool) -> None:
        """Let messages wait from now on, or deliver them again. A stream has none."""

    def _begin(self, conversation: Conversation) -> None:
        if self._attempt(conversation, conversation.begin):
            self._conversation = conversation
            if not self.is_open:
                conversation.leave()

    def _attempt(self, conversation: Conversation, action: Callable[[], None]) -> bool:
        """Run one step of a conversation. If it raises, end the conversation and return False."""
        try:
            action()
        except PeerError as error:
            conversation.end()
            self.refuse(error)
        except Exception:
            logger.exception("a bug in the relay ended a connection", extra={"connection": self.id})
            conversation.end()
            self.close(CloseCode.INTERNAL, "The relay failed; try again.")
        else:
            return True
        return False

    def _end_conversation(self) -> None:
        self._conversation.end()
        self._conversation = _NOBODY

    # Flow control

    def pause_writing(self) -> None:
        """Block the conversation, because the socket is full (called by the transport)."""
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
        """Report a full socket only after the drain's current write to many listeners.

        An earlier report would change the order of that write.
        """
        self._tells_later = True
        try:
            yield
        finally:
            self._tells_later = False

    def resume_writing(self) -> None:
        """Unblock the conversation, because all data was written (called by the transport)."""
        self._is_full = False
        self._go_on_writing()

    def await_room(self) -> None:
        """Block the listener until its socket accepts data again. The transport holds no data meanwhile."""
        self._conversation.block()
        sock = self.transport.get_extra_info("socket")
        # A transport over TLS that is lost has none.
        if self._awaits_room_at is None and sock is not None:
            self._awaits_room_at = sock.fileno()
            self.writable.wait(self._awaits_room_at, self._note_room)

    def _note_room(self) -> None:
        self._awaits_room_at = None
        self._go_on_writing()

    def _go_on_writing(self) -> None:
        if not self.is_full:
            self._conversation.unblock()

    def _forget_room(self) -> None:
        if self._awaits_room_at is not None:
            self.writable.forget(self._awaits_room_at)
            self._awaits_room_at = None
