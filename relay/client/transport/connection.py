"""A WebSocket to a relay, greeted and supervised: the part that both roles share.

Invariants: callers get a connection only after the relay's `hello`. Any failure to connect, and any end of a connection
other than the end of the session, is a one-sentence error, whose class says whether to try again. A relay that
disappears silently is noticed.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidURI,
    ProxyError,
)
from websockets.protocol import State
from websockets.typing import Subprotocol

from relay.client.transport.failures import closing_error, handshake_error, is_normal, network_error
from relay.client.transport.proxy import find_proxy, proxy_error
from relay.protocol.json_messages import decode
from relay.protocol.messages import BroadcasterHello, ErrorNotice, Hello, check_protocol
from relay.protocol.wire import HEADER_BYTES, MAX_BROADCAST_BYTES, MAX_RELAY_TEXT_BYTES, SUBPROTOCOL
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import ConnectionLostError, PolicyError, UnreachableError, UserError

OPEN_TIMEOUT_SECONDS = 10.0
"""How long a relay may take to accept a connection, and again to greet."""

PING_SECONDS = 2.0
"""After this much silence, the client sends the relay a ping."""

CLOSE_TIMEOUT_SECONDS = 2.0
"""How long leaving waits for the other side of the closing handshake."""

H = TypeVar("H", Hello, BroadcasterHello)

_SEND_BUFFER_BYTES = 64 * 1024
"""Size of the kernel's send buffer for a connection.

By default the kernel would buffer megabytes, which are minutes of speech, and nothing can be taken back from there.
"""

_MAX_MESSAGE_BYTES = MAX_BROADCAST_BYTES + HEADER_BYTES
"""The longest message that a client accepts. A relay's frames are shorter."""

_PING = b"?"
"""The content of each ping. The library refuses to send the same ping again before it is answered."""

Token = str | Callable[[], str | Awaitable[str | None] | None]
"""A key or token for the relay. A function is called for a fresh one at every connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a relay, and the credential for it.

    Attributes:
        url: Address, with the path under which a proxy serves it, if any; `http` and `https` mean `ws` and `wss`.
        token: None if the relay needs none.
    """

    url: str
    token: Token | None = None


class RelaySocket:
    """A connection that the relay has greeted; created by `open_socket`.

    Attributes:
        url: Address of the relay, for error messages.
        answers_by: Latest time at which an answer to what was sent can be expected, in seconds of `relay_clock`. A
            relay that holds its broadcaster back reads nothing meanwhile.
        retry_after_seconds: How long the relay asked the client to stay away after the close.
        notice: The last `error` message.
    """

    def __init__(self, websocket: ClientConnection, url: str, silence_seconds: float) -> None:
        """The connection counts as lost after `silence_seconds` without any answer."""
        self.url = url
        self.answers_by = 0.0
        self.retry_after_seconds = 0.0
        self.notice: ErrorNotice | None = None
        self._websocket = websocket
        self._silence_seconds = silence_seconds
        # A call of `receive` may be cancelled at any time, so the next one goes on with these times.
        self._heard_at = relay_clock()
        self._check_at = self._heard_at + PING_SECONDS

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return self._websocket.state is State.OPEN

    async def send(self, message: str | bytes) -> bool:
        """Send a message. Waits while the relay takes no more.

        Returns:
            Whether the connection is open. If it is not, `receive` raises the reason.
        """
        try:
            await self._websocket.send(message)
        except ConnectionClosed:
            return False
        return True

    async def receive(self) -> str | bytes | None:
        """Return the next message, or None if the session ended. Cancelling it loses nothing.

        Raises:
            ConnectionLostError: The connection ended, and the client may reconnect.
            RelayError: The connection ended, and the client must not reconnect.
        """
        try:
            while True:
                try:
                    async with asyncio.timeout(max(0.0, self._check_at - relay_clock())):
                        message = await self._websocket.recv()
                except TimeoutError:
                    await self._check()
                else:
                    self._heard_at = relay_clock()
                    self._check_at = self._heard_at + PING_SECONDS
                    return message
        except ConnectionClosed as closed:
            if is_normal(closed):
                return None
            raise closing_error(self.url, closed, self.notice, self.retry_after_seconds) from closed

    async def _check(self) -> None:
        """Ping a relay that is silent. Disconnect if it has left the last ping unanswered for too long.

        Raises:
            ConnectionLostError: It has.
            ConnectionClosed: The relay closed the connection.
        """
        now = relay_clock()
        late_seconds = max(0.0, now - self._check_at)
        self._check_at = now + PING_SECONDS
        try:
            # If the socket is full, the ping follows the audio. Messages from the relay must not wait for that.
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if self.is_open else None):
                    await self._websocket.ping(_PING)
        except ConcurrencyError:
            # While the program received nothing, an answer could not be noticed either.
            self._heard_at += late_seconds
            if now - max(self._heard_at, self.answers_by) >= self._silence_seconds:
                self.abort()
                raise ConnectionLostError(
                    f"The relay at {self.url} has not answered for {now - self._heard_at:.0f} s, so the client "
                    "disconnected."
                ) from None
        else:
            self._heard_at = now

    async def close(self, patience_seconds: float = 0.0) -> None:
        """Close the connection; a second call does nothing. Cancelling this cuts the connection off.

        Args:
            patience_seconds: How much longer than usual to wait until the other side reads the close. Closing earlier
                withdraws everything that it has not read.
        """
        self._websocket.close_timeout = CLOSE_TIMEOUT_SECONDS + patience_seconds
        try:
            await self._websocket.close()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Cut the connection off, discarding anything unsent."""
        self._websocket.transport.abort()


async def open_socket(
    endpoint: Endpoint, target: str, greeting: type[H], silence_seconds: float
) -> tuple[RelaySocket, H]:
    """Connect, and wait for the relay's greeting.

    Args:
        endpoint: The relay.
        target: Path and query.
        greeting: The expected type of `hello`.
        silence_seconds: How long a relay may leave a ping unanswered.

    Raises:
        UserError: Nothing there speaks `relay.v1`. It is an `UnreachableError` if a later attempt may succeed.
        ConnectionLostError: The relay closed the connection, and the client may reconnect.
        RelayError: The relay refused; the text is the relay's own sentence.
    """
    url = endpoint.url
    headers = await _headers(endpoint.token)
    proxy = find_proxy(url)
    try:
        websocket = await connect(
            re.sub("^http", "ws", url).rstrip("/") + target,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            additional_headers=headers,
            proxy=None if proxy is None else proxy.address,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            # `receive` sends pings itself, because only it knows how late an answer may be.
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            max_size=_MAX_MESSAGE_BYTES,
        )
    except (OSError, ProxyError, InvalidProxy, ImportError) as error:
        if proxy is not None and not isinstance(error, ssl.SSLError):
            raise proxy_error(url, proxy, error, OPEN_TIMEOUT_SECONDS) from error
        if isinstance(error, OSError):
            raise network_error(url, error, OPEN_TIMEOUT_SECONDS) from error
        raise
    except (InvalidHandshake, InvalidURI, ValueError) as error:
        raise handshake_error(url, error) from error
    try:
        hello = await _read_greeting(websocket, url, greeting)
    except BaseException:
        # A connection that failed needs no closing handshake.
        websocket.transport.abort()
        raise
    sock = websocket.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return RelaySocket(websocket, url, silence_seconds), hello


async def _headers(token: Token | None) -> dict[str, str]:
    if callable(token):
        fresh = token()
        token = await fresh if isawaitable(fresh) else fresh
    return {} if token is None else {"Authorization": f"Bearer {token}"}


async def _read_greeting(websocket: ClientConnection, url: str, greeting: type[H]) -> H:
    if websocket.subprotocol != SUBPROTOCOL:
        raise UserError(
            f"The server at {url} accepts WebSockets but does not speak {SUBPROTOCOL}, so it is not a relay of this "
            "version; check the address."
        )
    notice: ErrorNotice | None = None
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            while True:
                control = decode(await websocket.recv(decode=True), MAX_RELAY_TEXT_BYTES)
                if control["type"] == greeting.TYPE:
                    check_protocol(control)
                    return greeting.read(control)
                if control["type"] == ErrorNotice.TYPE:
                    notice = ErrorNotice.read(control)
    except TimeoutError as error:
        raise UnreachableError(
            f"The server at {url} accepted the connection but sent no greeting: it is not a relay, or it does not "
            "respond."
        ) from error
    except PolicyError as error:
        raise UserError(f"The server at {url} does not greet like a relay of this version: {error}") from error
    except ConnectionClosed as closed:
        raise closing_error(url, closed, notice) from closed
