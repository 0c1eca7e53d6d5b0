"""One accepted WebSocket, between the guarded connection and the runtime.

Invariants: whatever is written is a complete message and only while the connection is open; flow control reaches
the hub at once.
"""

from typing import Any

from websockets.asyncio.server import Server, broadcast
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from relay.adapters.server.guarded import GuardedConnection
from relay.adapters.server.kernel import bound_kernel_buffer
from relay.core.access import Permit
from relay.core.requests import ConnectRequest
from relay.runtime.listener import Listener
from relay.runtime.listening import Listening
from relay.runtime.tasks import TaskRegistry
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode, RelayError

WAITED_SECONDS = 0.05
"""A socket that took nothing for longer, and then all, has a reader. Sooner, it may have been the kernel or TLS."""


def serialize_binary(payload: bytes) -> bytes:
    """Give the complete WebSocket message of a binary payload, as a server writes it without compression."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


class RelayConnection(GuardedConnection):
    """A guarded connection, which also tells the hub when its socket takes no more data and when it does again.

    Attributes:
        admission: What the opening handshake found: a request to serve, or a refusal to tell after the upgrade.
        permit: What let the client in; only beside a request to serve.
    """

    __slots__ = ("_listener", "_listening", "admission", "permit")

    admission: ConnectRequest | RelayError
    permit: Permit
    _listener: Listener | None
    _listening: Listening | None

    def __init__(self, protocol: ServerProtocol, server: Server, **options: Any) -> None:  # noqa: ANN401 - the library's
        """Make it (called by the library, with options of its own and the guard's)."""
        super().__init__(protocol, server, **options)
        self._listener = None
        self._listening = None

    def attach(self, listening: Listening, listener: Listener) -> None:
        """Begin to tell `listening` of the flow control of `listener`, who is served here."""
        self._listening, self._listener = listening, listener
        if self.paused:
            listening.block(listener)

    def send_data(self) -> None:
        """Write what the protocol has (called by the library); after a close frame nothing of ours may follow."""
        super().send_data()
        self._leave_unless_open()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is gone (called by the transport)."""
        super().connection_lost(exc)
        self._leave_unless_open()
        self._listener = None

    def _leave_unless_open(self) -> None:
        if self._listener is not None and self._listening is not None and self.protocol.state is not State.OPEN:
            self._listening.leave(self._listener)

    def pause_writing(self) -> None:
        """Take note that the socket is full (called by the transport)."""
        super().pause_writing()
        if self._listener is not None and self._listening is not None:
            self._listening.block(self._listener)

    def resume_writing(self) -> None:
        """Take note that everything was written (called by the transport)."""
        super().resume_writing()
        if self._listener is not None and self._listening is not None:
            blocked_since = self._listener.blocked_since
            if blocked_since is not None and relay_clock() - blocked_since > WAITED_SECONDS:
                self.intake.note_life()
            self._listening.unblock(self._listener)


class SocketPort:
    """A listener's socket as the runtime sees it (`relay.runtime.listener.ListenerPort`).

    Audio goes to the socket by one system call while the transport holds nothing, which is the invariant of a
    listener that is not blocked: the transport's limit is 0, so it says when it holds a byte. Only what the socket
    does not take goes to the transport. A listener leaves the hub at the very moment at which its connection is no
    longer open (`RelayConnection.send_data`), and until then the descriptor is this connection's: event loops
    report a loss before they close it. Under TLS all goes through the transport (`send_nothing`).

    Attributes:
        sink: The descriptor, for `os.write`: there are millions of calls.
    """

    __slots__ = ("_connection", "_tasks", "_transport", "sink")

    def __init__(self, connection: RelayConnection, tasks: TaskRegistry) -> None:
        """Make the port of an open connection; `tasks` runs its closing handshake."""
        self._connection = connection
        self._transport = connection.transport
        self._tasks = tasks
        self.sink: int = connection.transport.get_extra_info("socket").fileno()

    @property
    def client_address(self) -> str:
        """Of the person or program behind it; empty when it is unknown."""
        return self._connection.client_address

    def write_rest(self, rest: bytes) -> None:
        """Give the transport what the socket did not take; a broken connection it notices by itself."""
        self._transport.write(rest)

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
        self._connection.cut_off()


class BroadcasterPort:
    """A broadcaster's socket as the runtime sees it (`relay.runtime.live_channel.SourcePort`)."""

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


def send_nothing(sink: int, wire: bytes) -> int:  # noqa: ARG001 - the signature of `os.write`
    """Leave all to the transport: what TLS takes is not what the socket takes."""
    return 0
