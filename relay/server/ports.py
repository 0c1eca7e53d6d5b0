"""Sockets as the runtime sees them: what may be written to a broadcaster and to a listener."""

import asyncio
import socket

from websockets.frames import Frame, Opcode

from relay.limits.names import Limit
from relay.server.connection import RelayConnection
from relay.server.kernel import bound_kernel_buffer, room_bytes, without_bound
from relay.vocabulary.errors import CloseCode


def serialize_binary(payload: bytes) -> bytes:
    """Give the complete WebSocket message of a binary payload, as a server writes it without compression."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


class BroadcasterPort:
    """A broadcaster's socket (`relay.hub.port.Port`)."""

    __slots__ = ("_connection",)

    def __init__(self, connection: RelayConnection) -> None:
        """Make the port of an open connection."""
        self._connection = connection

    @property
    def client_address(self) -> str:
        """Of the person or program behind it; empty when it is unknown."""
        return self._connection.client_address

    def send_text(self, text: str) -> None:
        """Write one control message; nothing when the peer reads none, or the connection is closing."""
        self._connection.send_text(text)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection, in the event loop's next turn: the hub may be about to look at it."""
        asyncio.get_running_loop().call_soon(self._connection.close, code, reason)


class SocketPort(BroadcasterPort):
    """A listener's socket (`relay.hub.port.ListenerPort`).

    Audio goes to the socket by one system call while the transport holds nothing, which is the invariant of a
    listener that is not blocked: the transport's limit is 0, so it says when it holds a byte. The rest of a frame that
    the socket took in part goes to the kernel at once, whose bound is lifted for it. No other frame is begun until the
    socket takes data again (`WritableSockets`). A listener leaves the hub at the very moment at which its connection
    is no longer open (`RelayConnection.send_data`), and until then the descriptor is this connection's: event loops
    report a loss before they close it.

    Attributes:
        takes_parts: As `os.write` does.
    """

    __slots__ = ("_bytes_per_second", "_descriptor", "_socket", "_transport")

    takes_parts = True

    def __init__(self, connection: RelayConnection) -> None:
        """Make the port of an open connection."""
        super().__init__(connection)
        self._transport = connection.transport
        self._socket: socket.socket = connection.transport.get_extra_info("socket")
        self._descriptor = self._socket.fileno()
        self._bytes_per_second = 0

    @property
    def sink(self) -> object:
        """The descriptor, for `os.write`: there are millions of calls."""
        return self._descriptor

    def complete(self, rest: bytes) -> None:
        """Write the rest of a frame; a broken connection the transport notices by itself."""
        with without_bound(self._socket, self._bytes_per_second):
            self._transport.write(rest)

    def await_room(self) -> None:
        """Have the listener blocked until the socket takes data again."""
        self._connection.await_room()

    def fit_kernel(self, bytes_per_second: int) -> None:
        """Bound what the kernel holds, for audio of that rate."""
        self._bytes_per_second = bytes_per_second
        bound_kernel_buffer(self._socket, bytes_per_second)

    def abort(self, because: str | OSError, limit: Limit | None = None) -> None:
        """Cut the connection off, and count the limit by which it is."""
        if limit is not None:
            self._connection.limits.applied(limit)
        self._connection.cut_off(because)


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
