"""The sockets of broadcasters and listeners, as the hub sees them."""

import asyncio
import socket

from websockets.frames import Frame, Opcode

from relay.limits.names import Limit
from relay.server.kernel import bound_kernel_buffer, room_bytes, without_bound
from relay.server.served import ServedConnection
from relay.vocabulary.errors import CloseCode


def serialize_binary(payload: bytes) -> bytes:
    """Return the complete WebSocket message with a binary payload, as a server writes it without compression."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


class BroadcasterPort:
    """A broadcaster's socket (`relay.hub.port.Port`)."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ServedConnection) -> None:
        self._connection = connection

    @property
    def client_address(self) -> str:
        """Address of the client, behind any proxies. Empty if unknown."""
        return self._connection.client_address

    def send_text(self, text: str) -> None:
        """Write one control message, unless the peer does not read any or the connection is closing."""
        self._connection.send_text(text)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection in the next turn of the event loop, because the hub may be about to use it."""
        asyncio.get_running_loop().call_soon(self._connection.close, code, reason)


class SocketPort(BroadcasterPort):
    """A listener's socket (`relay.hub.port.ListenerPort`).

    One system call writes audio to the socket while the transport is empty. A listener that is not blocked always has
    an empty transport: the transport's limit is 0, so it reports when it holds a byte. If the socket accepts a part of
    a frame, the rest goes to the kernel at once, whose bound is lifted for it. The next frame waits until the socket
    accepts data again (`WritableSockets`).

    A listener leaves the hub at the very moment when its connection is no longer open (`ServedConnection`).
    Until then, the descriptor belongs to this connection, because event loops report a loss before they close the
    descriptor. Under TLS, the report comes one turn after that, and the transport is closing meanwhile.

    Attributes:
        takes_parts: Whether a write may be partial, as with `os.write`.
    """

    __slots__ = ("_bytes_per_second", "_descriptor", "_socket", "_transport")

    takes_parts = True

    def __init__(self, connection: ServedConnection) -> None:
        super().__init__(connection)
        self._transport = connection.transport
        self._socket: socket.socket = connection.transport.get_extra_info("socket")
        self._descriptor = self._socket.fileno()
        self._bytes_per_second = 0

    @property
    def sink(self) -> object:
        """The descriptor, for `os.write`, which is called millions of times."""
        return self._descriptor

    def complete(self, rest: bytes) -> None:
        """Write the rest of a frame. The transport itself notices a broken connection."""
        with without_bound(self._socket, self._bytes_per_second):
            self._transport.write(rest)

    def await_room(self) -> None:
        """Block the listener until the socket accepts data again."""
        self._connection.await_room()

    def fit_kernel(self, bytes_per_second: int) -> None:
        """Bound what the kernel holds, for audio of this rate."""
        self._bytes_per_second = bytes_per_second
        if not self._transport.is_closing():
            bound_kernel_buffer(self._socket, bytes_per_second)

    def abort(self, because: str | OSError, limit: Limit | None = None) -> None:
        """Cut the connection off, and count the limit that was the reason."""
        if limit is not None:
            self._connection.limits.applied(limit)
        self._connection.cut_off(because)


class TlsPort(SocketPort):
    """A listener's socket under TLS. Data given to the transport cannot be taken back, so the socket is asked first.

    Attributes:
        takes_parts: Always False: a write goes to the kernel as a whole.
    """

    __slots__ = ()

    takes_parts = False

    @property
    def sink(self) -> object:
        """The port itself, for `send_whole`."""
        return self

    def take(self, wire: bytes) -> int:
        """Write all of the data if the socket accepts any. Otherwise write nothing and return 0."""
        connection = self._connection
        if connection.is_full or self._transport.is_closing():
            return 0
        if not connection.writable.is_writable(self._descriptor):
            return 0
        with connection.telling_later():
            if len(wire) <= room_bytes(self._bytes_per_second):
                self._transport.write(wire)
            else:
                self.complete(wire)
        return len(wire)


def send_whole(port: TlsPort, wire: bytes) -> int:
    """Write to the port of a TLS connection, as `os.write` writes to a descriptor."""
    return port.take(wire)
