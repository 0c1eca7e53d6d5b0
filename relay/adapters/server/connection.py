"""One accepted WebSocket, between the library's connection and the runtime.

Invariants: whatever is written is a complete message and only while the connection is open; flow control reaches
the hub at once; closing ends in bounded time, whatever the peer does.
"""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from relay.adapters.server.kernel_buffer import bound_kernel_buffer
from relay.core import messages
from relay.core.requests import ConnectRequest
from relay.core.wire import SUBPROTOCOL
from relay.runtime.hub import Hub
from relay.runtime.listener import Listener
from relay.runtime.tasks import TaskRegistry
from relay.vocabulary.errors import CloseCode, RelayError

CLOSE_SECONDS = 5.0
"""How long a closing handshake may take before the connection is cut off."""

_REASON_BYTES = 123
"""What a close frame holds beside its code, RFC 6455 section 5.5."""

_OPEN = State.OPEN


def serialize_binary(payload: bytes) -> bytes:
    """Give the complete WebSocket message of a binary payload, as a server writes it without compression."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


class RelayConnection(ServerConnection):
    """The library's connection, which also tells the hub when its socket takes no more data and when it does again.

    Attributes:
        admission: What the opening handshake found: a request to serve, or a refusal to tell after the upgrade.
    """

    admission: ConnectRequest | RelayError
    _listener: Listener | None = None
    _hub: Hub | None = None

    def attach(self, hub: Hub, listener: Listener) -> None:
        """Begin to tell `hub` of the flow control of `listener`, who is served here."""
        self._hub, self._listener = hub, listener
        if self.paused:
            hub.block(listener)

    def pause_writing(self) -> None:
        """Take note that the socket is full (called by the transport)."""
        super().pause_writing()
        if self._listener is not None and self._hub is not None:
            self._hub.block(self._listener)

    def resume_writing(self) -> None:
        """Take note that everything was written (called by the transport)."""
        super().resume_writing()
        if self._listener is not None and self._hub is not None:
            self._hub.unblock(self._listener)

    @property
    def speaks_relay(self) -> bool:
        """Whether the peer reads headers and control messages."""
        return self.subprotocol == SUBPROTOCOL

    async def close_in_time(self, code: CloseCode, reason: str) -> None:
        """Close with `code` and `reason` (shortened to what a close frame holds), cutting off who does not answer.

        The library's own timeout begins only after its close frame was written, which a stalled peer prevents.
        Cancelled, it leaves the connection half closed; whoever cancels cuts it off.
        """
        shortened = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close(code, shortened)
        except TimeoutError:
            self.transport.abort()

    async def refuse(self, error: RelayError) -> None:
        """Tell the peer what was wrong in an `error` message, when it reads those, and close with the error's code."""
        if self.speaks_relay:
            broadcast((self,), messages.error_message(error.close_code, str(error)))
        await self.close_in_time(error.close_code, str(error))


class SocketPort:
    """A listener's socket as the runtime sees it (`relay.runtime.listener.ListenerPort`)."""

    __slots__ = ("_connection", "_protocol", "_tasks", "_transport")

    def __init__(self, connection: RelayConnection, tasks: TaskRegistry) -> None:
        """Make the port of an open connection; `tasks` runs its closing handshake."""
        self._connection = connection
        self._protocol = connection.protocol
        self._transport = connection.transport
        self._tasks = tasks

    def write(self, wire: bytes) -> None:
        """Write complete messages; nothing when the connection is closing."""
        if self._protocol.state is _OPEN:
            self._transport.write(wire)

    def send_text(self, text: str) -> None:
        """Write one control message; nothing when the connection is closing."""
        broadcast((self._connection,), text)

    def fit_kernel(self, bytes_per_second: int) -> None:
        """Bound what the kernel holds, for audio of that rate."""
        bound_kernel_buffer(self._transport.get_extra_info("socket"), bytes_per_second)

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake."""
        self._tasks.start(self._connection.close_in_time(code, reason), f"close {self._connection.id}")

    def abort(self) -> None:
        """Cut the connection off."""
        self._transport.abort()
