"""One listener's socket: connecting, TLS, the WebSocket upgrade, and the few messages that a listener sends.

Invariants: nothing here waits; every failure to join is a `JoinError`.
"""

import errno
import os
import socket
import ssl
from select import EPOLLIN, EPOLLOUT

from relay.loadtest.frame_reader import Stream
from relay.loadtest.plan import Visit
from relay.loadtest.relay_clock import RelayClock
from relay.loadtest.target import MAX_RESPONSE_BYTES, Expect, JoinError, Target, read_upgrade, upgrade_request

SLOW_RECEIVE_BUFFER_BYTES = 4096
"""The receive buffer of a listener that does not read: so small that the server notices within a second."""

_TEXT, _CLOSE, _PONG = 0x81, 0x88, 0x8A
_MASKED = 0x80
_MAX_PAYLOAD_BYTES = 125


class ListenerSocket:
    """A listener's socket.

    Attributes:
        visit: The planned connection that it serves.
        stream: The reader's state for it.
        fileno: The file descriptor of the socket.
        began: When connecting began, in seconds.
        clock: The clock of its relay. The greeting says which connections share it.
        upgraded: Whether received bytes go to the reader.
        streaming: Whether frames are measured and arrive without TLS, so that one read per event is enough.
        joined: Whether the greeting arrived. For a server without one: whether it accepted the upgrade.
        reading: Whether it reads at all.
        closing: Whether a close frame was sent.
        trouble: The relay's error message, if any.
        outcome: How the connection ends, once that is decided.
        registered: The events that epoll waits for.
        receive_into: The socket's `recv_into`, bound once.
    """

    __slots__ = (
        "_out",
        "_response",
        "_socket",
        "_target",
        "_tls",
        "_waits_for",
        "began",
        "clock",
        "closing",
        "fileno",
        "joined",
        "outcome",
        "reading",
        "receive_into",
        "registered",
        "stream",
        "streaming",
        "trouble",
        "upgraded",
        "visit",
    )

    def __init__(self, visit: Visit, target: Target, began: float) -> None:
        """Begin to connect.

        Raises:
            JoinError: This machine has no socket left, or no route to the server.
        """
        self.visit = visit
        self.stream = Stream(target.expect, measured=visit.reads)
        self.began = began
        self.clock = RelayClock()
        self.upgraded = self.streaming = self.joined = self.closing = False
        self.reading = True
        self.trouble: str | None = None
        self.outcome: str | None = None
        self.registered = 0
        self._target = target
        self._tls: ssl.SSLSocket | None = None
        self._waits_for = EPOLLOUT
        self._out = upgrade_request(target)
        self._response = b""
        try:
            self._socket = socket.socket(socket.AF_INET6 if ":" in target.host else socket.AF_INET)
        except OSError as error:
            raise JoinError(_reason(error)) from error
        self.fileno = self._socket.fileno()
        self.receive_into = self._socket.recv_into
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not visit.reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BUFFER_BYTES)
        code = self._socket.connect_ex((target.host, target.port))
        if code not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise JoinError(os.strerror(code).lower())

    @property
    def interest(self) -> int:
        """The events to wait for, as an epoll mask."""
        if not self.upgraded:
            return self._waits_for
        return (EPOLLIN if self.reading else 0) | (EPOLLOUT if self._out else 0)

    @property
    def expect(self) -> Expect:
        """What the server sends."""
        return self.stream.expect

    def advance(self, context: ssl.SSLContext | None) -> bytes | None:
        """Continue connecting as far as possible without waiting.

        Args:
            context: For a target with TLS.

        Returns:
            The bytes after the response, once the server accepted the upgrade; None until then.

        Raises:
            JoinError: Connecting failed.
        """
        try:
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise JoinError(os.strerror(code).lower())
            if context is not None and self._target.tls_name is not None:
                self._shake_hands(context, self._target.tls_name)
            self.flush()
            self._waits_for = EPOLLOUT if self._out else EPOLLIN
            return None if self._out else self._read_response()
        except (BlockingIOError, ssl.SSLWantReadError):
            self._waits_for = EPOLLIN
        except ssl.SSLWantWriteError:
            self._waits_for = EPOLLOUT
        except ssl.SSLCertVerificationError as error:
            raise JoinError(f"the certificate is not trusted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise JoinError(f"TLS failed: {error.reason}") from error
        except OSError as error:
            raise JoinError(_reason(error)) from error
        return None

    def _shake_hands(self, context: ssl.SSLContext, server_name: str) -> None:
        if self._tls is None:
            self._tls = context.wrap_socket(self._socket, do_handshake_on_connect=False, server_hostname=server_name)
            self._socket = self._tls
            self.receive_into = self._tls.recv_into
        self._tls.do_handshake()

    def _read_response(self) -> bytes:
        while True:
            received = self._socket.recv(MAX_RESPONSE_BYTES)
            self._response += received
            rest = read_upgrade(self._response, self._target.expect, is_all=not received)
            if rest is not None:
                self._response = b""
                self.upgraded = True
                self.streaming = self._tls is None and self.visit.reads
                return rest

    def send_text(self, text: str) -> None:
        """Send a text message of at most 125 bytes."""
        self._send(_TEXT, text.encode())

    def send_pong(self, payload: bytes) -> None:
        """Answer a ping of the WebSocket layer, unless output is pending: only the latest ping needs an answer."""
        if not self._out:
            self._send(_PONG, payload)

    def send_close(self, code: int) -> None:
        """Send a close frame, once. The server then closes the socket. A stream has no close frame."""
        if not self.closing and self.expect.is_websocket:
            self.closing = True
            self._send(_CLOSE, code.to_bytes(2))

    def _send(self, first_byte: int, payload: bytes) -> None:
        """Send a masked frame, as a client must. What the socket does not accept waits for `flush`."""
        assert len(payload) <= _MAX_PAYLOAD_BYTES  # noqa: S101 - neither control frames nor our texts are longer
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[number % 4] for number, byte in enumerate(payload))
        self._out += bytes((first_byte, _MASKED | len(masked))) + mask + masked
        try:
            self.flush()
        except OSError:
            # The connection is lost. The next read reports it.
            self._out = b""

    def flush(self) -> None:
        """Write pending output until the socket accepts no more.

        Raises:
            OSError: The connection is lost.
        """
        while self._out:
            try:
                self._out = self._out[self._socket.send(self._out) :]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return

    def close(self) -> None:
        """Close the socket at once."""
        self._socket.close()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
