"""An HTTP stream: a listener that gets its channel as the body of a response, until one side ends it.

Invariants: the head of the container comes before the first frame. A response that the relay ends has its last chunk,
so a client can tell it from one that broke. Whatever the peer sends is discarded, and counts against a limit.
"""

import asyncio
import uuid
from collections.abc import Callable

from relay.hub.framing import HttpFraming
from relay.hub.gate import Then
from relay.hub.hub import Hub
from relay.hub.listener import Listener
from relay.limits.in_force import LimitsInForce
from relay.limits.names import Limit
from relay.media.programme import head
from relay.protocol.requests import ConnectRequest
from relay.server.admission import Admitted
from relay.server.endings import By, Closing
from relay.server.guarded import CLOSE_SECONDS, Timer
from relay.server.ports import SocketPort, TlsPort
from relay.server.served import Conversation, ServedConnection
from relay.server.writable import WritableSockets
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import CloseCode, RelayError


class StreamConnection(ServedConnection):
    """The connection of a listener over HTTP, after the head of its response.

    `tell_end` is called once, when it has ended, with the transport's error if there was one.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        admitted: Admitted,
        limits: LimitsInForce,
        framing: HttpFraming,
        *,
        writable: WritableSockets,
        tell_end: "Callable[[StreamConnection, Exception | None], None]",
    ) -> None:
        super().__init__(transport, str(uuid.uuid4()), admitted, limits, writable=writable)
        self.framing = framing
        self._tell_end = tell_end
        self._closing: Closing | None = None
        self._received_bytes = 0

    @property
    def is_open(self) -> bool:
        """Whether the body goes on."""
        return self._closing is None

    def send_text(self, text: str) -> None:
        """Do nothing: there is no place for messages in a body of audio."""

    def write(self, data: bytes) -> None:
        """Write a part of the body that belongs before any frame."""
        if data:
            self.transport.write(self.framing.wrap(data))

    def close(self, code: CloseCode, reason: str) -> None:
        """End the body. The peer is cut off if it does not close in time."""
        if self.is_open:
            self._leave(Closing(code, reason, By.RELAY))
            self.transport.write(self.framing.end)
            self.end_writing()
            self.timers.start(Timer.CLOSING, CLOSE_SECONDS, self.cut_off)

    def refuse(self, error: RelayError) -> None:
        """End the body. The log says why."""
        self.close(error.close_code, str(error))

    def closing(self, loss: Exception | None) -> Closing:
        """Determine how the stream ended. A peer that closes its connection simply leaves."""
        return self._closing or self.closing_without_frame(loss)

    def data_received(self, data: bytes) -> None:
        """Discard what the peer sends (called by the transport)."""
        self._received_bytes += len(data)
        if self._received_bytes > self.limits.settings.max_handshake_bytes:
            self.limits.applied(Limit.HANDSHAKE_BYTES)
            self.cut_off(f"The client sent more data than {Limit.HANDSHAKE_BYTES} during an HTTP stream.")

    def eof_received(self) -> None:
        """Let a peer go that closes its half (called by the transport, which then closes itself)."""
        self._leave(Closing(CloseCode.GOING_AWAY, "The client closed the connection.", By.PEER))

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection is lost (called by the transport)."""
        self.timers.end()
        self._forget_room()
        self._conversation.leave()
        self._end_conversation()
        self._tell_end(self, exc)
        if exc is not None:
            exc.__traceback__ = None  # its frames refer to the connection

    def _leave(self, closing: Closing) -> None:
        self._closing = self._closing or closing
        self._conversation.leave()


class StreamConversation(Conversation):
    """Serves a listener over HTTP."""

    __slots__ = ("_connection", "_container", "_hub", "_listener", "_request")

    _listener: Listener

    def __init__(self, connection: StreamConnection, container: Container, request: ConnectRequest, hub: Hub) -> None:
        self._connection = connection
        self._container = container
        self._request = request
        self._hub = hub

    def prepare(self, then: Then) -> bool:
        """Bring the channel here."""
        return self._hub.gate.before_join(self._request.address, self._request.delivery, then)

    def begin(self) -> None:
        """Join the channel, and write what comes before the first frame."""
        connection, address = self._connection, self._request.address
        port = (TlsPort if connection.is_over_tls else SocketPort)(connection)
        join = self._hub.listening.join
        listener = self._listener = join(address, connection.id, port, connection.framing, self._request.delivery)
        title = self._hub.directory.title(address)
        connection.write(head(self._container, listener.buffer.audio_format, listener.place.epoch, title))
        if connection.is_full:
            self.block()

    def block(self) -> None:
        """Stop writing to the listener."""
        self._hub.listening.block(self._listener)

    def unblock(self) -> None:
        """Resume writing."""
        self._hub.listening.unblock(self._listener)

    def leave(self) -> None:
        """Leave the hub."""
        self._hub.listening.leave(self._listener)
