"""A connection before TLS is agreed on: counted, bounded and cut off like any other that is no WebSocket yet.

Event loops report a connection with TLS only after its handshake. So the relay listens without TLS, counts each
connection when it is accepted, and hands its socket over to an event loop's TLS then.

Invariants: a socket is counted from its first moment to its last, here or as a connection, never as both; who cuts it
off needs nobody's help, since the event loop finds the end of the stream whatever it is doing. A handshake that
fails is counted once, by its own reason or by the limit that ended it.
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
from relay.limits.pending import Visitor
from relay.limits.tls_faults import TlsFault, read_tls_fault
from relay.process.tasks import TaskRegistry
from relay.server.guarded import CLOSE_SECONDS
from relay.server.http import Attendance, HttpConnection
from relay.server.kernel import RECEIVE_BUFFER_BYTES, bound_receive_buffer, discard_unsent
from relay.server.timers import Timer, Timers


class TlsHandshake(asyncio.Protocol):
    """One connection's.

    Attributes:
        peer_address: Of the other end, empty when it is unknown.
    """

    def __init__(
        self,
        connect: Callable[[Attendance], HttpConnection],
        context: ssl.SSLContext,
        attendance: Attendance,
        limits: LimitsInForce,
        tasks: TaskRegistry,
    ) -> None:
        """Make it (called by the event loop, for a socket that was accepted).

        Args:
            connect: Makes the connection that speaks TLS, which tells the attendance given to it that it is there.
            context: What it speaks TLS by.
            attendance: Keeps count of the connections.
            limits: How long a handshake may take.
            tasks: Runs it.
        """
        self._connect = connect
        self._context = context
        self._attendance = attendance
        self._limits = limits
        self._tasks = tasks
        self._timers = Timers(asyncio.get_running_loop())
        self.peer_address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over, before anything is read from it (called by the event loop)."""
        accepted = cast("asyncio.Transport", transport)
        self.peer_address = (accepted.get_extra_info("peername") or ("",))[0]
        try:
            self._socket = socket.socket(fileno=os.dup(accepted.get_extra_info("socket").fileno()))
        except OSError:  # no files are left
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
        """Do something once, when the handshake ends, well or not; at once when it has."""
        self._timers.at_end(action)

    def arrived(self, connection: Visitor) -> None:
        """Have the connection counted in place of the handshake."""
        self._timers.end()
        self._attendance.arrived(connection)

    def cut_off(self) -> None:
        """End it at once."""
        self._timers.end()
        discard_unsent(self._socket)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _end_handshake(self) -> None:
        self._limits.applied(Limit.HANDSHAKE_SECONDS)
        self.cut_off()

    async def _shake_hands(self, most_seconds: float) -> None:
        """Have the event loop do it; its own time-out is never reached, since it is not told apart from other ends."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connect(self),
                self._socket,
                ssl=self._context,
                ssl_handshake_timeout=most_seconds,
                ssl_shutdown_timeout=CLOSE_SECONDS,
            )
        except OSError as error:  # the peer's fault
            # Whose frames refer to the future that holds it.
            error.__traceback__ = None
            if not self._timers.have_ended:
                self._limits.could_not_agree(_fault(error), self.peer_address)
        finally:
            self._timers.end()


def _fault(error: OSError) -> TlsFault:
    """Read why TLS was not agreed on; at the end of the stream event loops raise a reset."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError):
        return read_tls_fault(error.reason or "")
    return TlsFault.TLS_LEFT
