"""One accepted WebSocket, between the guarded connection and the runtime.

Invariants: whatever is written is a complete message and only while the connection is open; flow control reaches
the hub at once.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, broadcast
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from relay.access.rules import Permit
from relay.hub.listener import Listener
from relay.hub.listening import Listening
from relay.limits.names import Limit
from relay.process.tasks import TaskRegistry
from relay.protocol import messages
from relay.protocol.requests import ConnectRequest, Role
from relay.server.guarded import GuardedConnection
from relay.server.kernel import bound_kernel_buffer, room_bytes, without_bound
from relay.server.writable import WritableSockets
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode, RelayError
from relay.vocabulary.names import ChannelAddress

WAITED_SECONDS = 0.05
"""A socket that took nothing for longer, and then all, has a reader. Sooner, it may have been the kernel or TLS."""


def serialize_binary(payload: bytes) -> bytes:
    """Give the complete WebSocket message of a binary payload, as a server writes it without compression."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


class RelayConnection(GuardedConnection):
    """A guarded connection, which also tells the hub when its socket takes no more data and when it does again.

    Attributes:
        address: Where the client is or wanted to be; None when it asked for no channel that can be.
        admission: What the opening handshake found: a request to serve, or a refusal to tell after the upgrade.
        permit: What let the client in; only beside a request to serve.
        role: What the client is or wanted to be; only behind the opening handshake.
        writable: Tells when a socket takes data again.
    """

    __slots__ = ("_listener", "_listening", "_tell_end", "address", "admission", "permit", "role", "writable")

    admission: ConnectRequest | RelayError
    permit: Permit
    role: Role
    _awaits_room_at: int | None = None
    _tells_later = False
    _listener: Listener | None
    _listening: Listening | None

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        writable: WritableSockets,
        tell_end: "Callable[[RelayConnection, Exception | None], None]",
        **options: Any,  # noqa: ANN401 - the library's
    ) -> None:
        """Make it (called by the library, with options of its own and the guard's).

        Args:
            protocol: The library's.
            server: The library's.
            writable: Tells when a socket takes data again.
            tell_end: Is called once when a WebSocket has ended, with what the transport says of a loss.
            options: The library's and the guard's.
        """
        super().__init__(protocol, server, **options)
        self.writable = writable
        self._tell_end = tell_end
        self.address: ChannelAddress | None = None
        self._listener = None
        self._listening = None

    def attach(self, listening: Listening, listener: Listener) -> None:
        """Begin to tell `listening` of the flow control of `listener`, who is served here."""
        self._listening, self._listener = listening, listener
        if self.is_full:
            listening.block(listener)

    @property
    def is_full(self) -> bool:
        """Whether something waits for the socket to take it."""
        return self.paused or self._awaits_room_at is not None

    def await_room(self) -> None:
        """Block the listener until the socket takes data again; nothing is left in the transport for that."""
        if self._listener is None or self._listening is None:
            return
        self._listening.block(self._listener)
        if self._awaits_room_at is None:
            self._awaits_room_at = self.transport.get_extra_info("socket").fileno()
            self.writable.wait(self._awaits_room_at, self._note_room)

    def _note_room(self) -> None:
        self._awaits_room_at = None
        self._go_on_writing()

    def send_data(self) -> None:
        """Write what the protocol has (called by the library); after a close frame nothing of ours may follow."""
        super().send_data()
        self._leave_unless_open()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is gone (called by the transport)."""
        if self._awaits_room_at is not None:
            self.writable.forget(self._awaits_room_at)
            self._awaits_room_at = None
        super().connection_lost(exc)
        self._leave_unless_open()
        self._listener = None
        if self.response is not None and self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self._tell_end(self, exc)

    async def refuse(self, error: RelayError) -> None:
        """Tell the peer what was wrong in an `error` message, when it reads those, and close with the error's code."""
        if self.speaks_relay:
            broadcast((self,), messages.ErrorNotice(error.close_code, str(error)).text())
        await self.close_in_time(error.close_code, str(error))

    def _leave_unless_open(self) -> None:
        if self._listener is not None and self._listening is not None and self.protocol.state is not State.OPEN:
            self._listening.leave(self._listener)

    def pause_writing(self) -> None:
        """Take note that the socket is full (called by the transport)."""
        super().pause_writing()
        if self._tells_later:
            self.loop.call_soon(self._tell_full)
        else:
            self._tell_full()

    def _tell_full(self) -> None:
        if self._listener is not None and self._listening is not None and self.paused:
            self._listening.block(self._listener)

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
        super().resume_writing()
        self._go_on_writing()

    def _go_on_writing(self) -> None:
        self.ask_if_due()
        if self._listener is not None and self._listening is not None and not self.is_full:
            blocked_since = self._listener.blocked_since
            if blocked_since is not None and relay_clock() - blocked_since > WAITED_SECONDS:
                self.intake.note_life()
            self._listening.unblock(self._listener)


class SocketPort:
    """A listener's socket as the runtime sees it (`relay.hub.listener.ListenerPort`).

    Audio goes to the socket by one system call while the transport holds nothing, which is the invariant of a
    listener that is not blocked: the transport's limit is 0, so it says when it holds a byte. The rest of a frame that
    the socket took in part goes to the kernel at once, whose bound is lifted for it. No other frame is begun until the
    socket takes data again (`WritableSockets`). A listener leaves the hub at the very moment at which its connection
    is no longer open (`RelayConnection.send_data`), and until then the descriptor is this connection's: event loops
    report a loss before they close it.

    Attributes:
        takes_parts: As `os.write` does.
    """

    __slots__ = ("_bytes_per_second", "_connection", "_descriptor", "_socket", "_tasks", "_transport")

    takes_parts = True

    def __init__(self, connection: RelayConnection, tasks: TaskRegistry) -> None:
        """Make the port of an open connection; `tasks` runs its closing handshake."""
        self._connection = connection
        self._transport = connection.transport
        self._tasks = tasks
        self._socket: socket.socket = connection.transport.get_extra_info("socket")
        self._descriptor = self._socket.fileno()
        self._bytes_per_second = 0

    @property
    def sink(self) -> object:
        """The descriptor, for `os.write`: there are millions of calls."""
        return self._descriptor

    @property
    def client_address(self) -> str:
        """Of the person or program behind it; empty when it is unknown."""
        return self._connection.client_address

    def complete(self, rest: bytes) -> None:
        """Write the rest of a frame; a broken connection the transport notices by itself."""
        with without_bound(self._socket, self._bytes_per_second):
            self._transport.write(rest)

    def await_room(self) -> None:
        """Have the listener blocked until the socket takes data again."""
        self._connection.await_room()

    def send_text(self, text: str) -> None:
        """Write one control message; nothing when the connection is closing."""
        broadcast((self._connection,), text)

    def fit_kernel(self, bytes_per_second: int) -> None:
        """Bound what the kernel holds, for audio of that rate."""
        self._bytes_per_second = bytes_per_second
        bound_kernel_buffer(self._socket, bytes_per_second)

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake."""
        self._tasks.start(self._connection.close_in_time(code, reason), f"close {self._connection.id}")

    def abort(self, because: str | OSError, limit: Limit | None = None) -> None:
        """Cut the connection off, and count the limit by which it is."""
        if limit is not None:
            self._connection.limits.applied(limit)
        self._connection.cut_off(because)


class BroadcasterPort:
    """A broadcaster's socket as the runtime sees it (`relay.hub.channel.SourcePort`)."""

    __slots__ = ("_connection", "_tasks")

    def __init__(self, connection: RelayConnection, tasks: TaskRegistry) -> None:
        """Make the port of an open connection; `tasks` runs its closing handshake."""
        self._connection = connection
        self._tasks = tasks

    @property
    def client_address(self) -> str:
        """Of the person or program behind it; empty when it is unknown."""
        return self._connection.client_address

    def send_text(self, text: str) -> None:
        """Write one control message; nothing when the peer reads none, or the connection is closing."""
        if self._connection.speaks_relay:
            broadcast((self._connection,), text)

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake."""
        self._tasks.start(self._connection.close_in_time(code, reason), f"close {self._connection.id}")


class TlsPort(SocketPort):
    """The same under TLS: what the transport was given can't be taken back, so the socket is asked before.

    Attributes:
        takes_parts: Never: all that is written goes to the kernel at once.
    """

    __slots__ = ()

    takes_parts = False

    @property
    def sink(self) -> object:
        """The port itself, for `send_whole`."""
        return self

    def take(self, wire: bytes) -> int:
        """Write all of it, when the socket takes data; else nothing."""
        connection = self._connection
        if connection.is_full or not connection.writable.is_writable(self._descriptor):
            return 0
        with connection.telling_later():
            if len(wire) <= room_bytes(self._bytes_per_second):
                self._transport.write(wire)
            else:
                self.complete(wire)
        return len(wire)


def send_whole(port: TlsPort, wire: bytes) -> int:
    """Write to a port of a TLS connection, as `os.write` does to a descriptor."""
    return port.take(wire)
