"""A connection during its TLS handshake: counted, limited and cut off like any other that is not a WebSocket yet.

Event loops report a TLS connection only after its handshake. So the relay listens without TLS, counts each connection
when it is accepted, and then hands its socket to the event loop's TLS.

Invariants: a socket is counted from its first moment to its last, either here or as a connection, never as both. To cut
it off, shutting down the socket suffices, because the event loop notices the end of the stream in any state. A failed
handshake is counted once, by its own reason or by the limit that ended it.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import cast

from relay.limits.in_force import LimitsInForce
from relay.limits.names import Limit
from relay.limits.seats import Visitor
from relay.limits.tls_faults import TlsFault, read_tls_fault
from relay.process.tasks import TaskRegistry
from relay.server.guarded import CLOSE_SECONDS, Timer, Timers
from relay.server.http import Attendance, HttpConnection
from relay.server.kernel import RECEIVE_BUFFER_BYTES, bound_receive_buffer, discard_unsent


class TlsHandshake(asyncio.Protocol):
    """The handshake of one connection.

    `connect` creates the connection that speaks TLS. That connection reports its arrival to the attendance passed to
    it.

    Attributes:
        peer_address: Address of the peer. Empty if unknown.
    """

    def __init__(
        self,
        connect: Callable[[Attendance], HttpConnection],
        context: ssl.SSLContext,
        attendance: Attendance,
        limits: LimitsInForce,
        tasks: TaskRegistry,
    ) -> None:
        self._connect = connect
        self._context = context
        self._attendance = attendance
        self._limits = limits
        self._tasks = tasks
        self._timers = Timers(asyncio.get_running_loop())
        self.peer_address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over before any data is read from it (called by the event loop)."""
        accepted = cast("asyncio.Transport", transport)
        self.peer_address = (accepted.get_extra_info("peername") or ("",))[0]
        try:
            self._socket = socket.socket(fileno=os.dup(accepted.get_extra_info("socket").fileno()))
        except OSError:  # no file descriptors are left
            self._limits.applied(Limit.PENDING_HANDSHAKES)
            return
        finally:
            accepted.abort()
        bound_receive_buffer(self._socket, RECEIVE_BUFFER_BYTES)
        timeout_seconds = self._limits.settings.handshake_timeout_seconds
        self._timers.start(Timer.HANDSHAKE, timeout_seconds, self._end_handshake)
        self._tasks.start(self._shake_hands(2 * timeout_seconds), "TLS handshake")
        self._attendance.arrived(self)

    def at_end(self, action: Callable[[], None]) -> None:
        """Call `action` once, when the handshake succeeds or fails. Call it immediately if it has ended."""
        self._timers.at_end(action)

    def arrived(self, connection: Visitor) -> None:
        """Count the connection in place of the handshake."""
        self._timers.end()
        self._attendance.arrived(connection)

    def cut_off(self) -> None:
        """End the handshake at once."""
        self._timers.end()
        discard_unsent(self._socket)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _end_handshake(self) -> None:
        self._limits.applied(Limit.HANDSHAKE_SECONDS, self.peer_address)
        self.cut_off()

    async def _shake_hands(self, most_seconds: float) -> None:
        """Run the handshake. The event loop's timeout looks like any other end, so a timer here always fires first."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connect(self),
                self._socket,
                ssl=self._context,
                ssl_handshake_timeout=most_seconds,
                ssl_shutdown_timeout=CLOSE_SECONDS,
            )
        except OSError as error:  # the peer's fault
            # Its frames refer to the future that holds it.
            error.__traceback__ = None
            if not self._timers.have_ended:
                self._limits.could_not_agree(_fault(error), self.peer_address)
        finally:
            self._timers.end()


def _fault(error: OSError) -> TlsFault:
    """Determine why the handshake failed. At the end of the stream, event loops raise a connection reset."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError):
        return read_tls_fault(error.reason or "")
    return TlsFault.TLS_LEFT
