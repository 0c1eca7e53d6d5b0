"""A WebSocket to a relay, greeted and watched: the part that is the same for both roles.

Invariants: a connection is given out after the relay's `hello`, never before; whatever keeps it from coming, and
whatever ends it but the end of the session, is an error of one sentence whose class says whether to try again; a relay
that is gone without a word is noticed.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidURI, ProxyError
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
"""After a silence this long the relay is asked whether it is there."""

CLOSE_TIMEOUT_SECONDS = 2.0
"""How long leaving waits for the other side of the closing handshake."""

H = TypeVar("H", Hello, BroadcasterHello)

_SEND_BUFFER_BYTES = 64 * 1024
"""What the kernel takes of a broadcaster's audio before it is sent.

By itself it would take megabytes, minutes of speech, and nothing that waits there can be taken back.
"""

_MAX_MESSAGE_BYTES = MAX_BROADCAST_BYTES + HEADER_BYTES
"""The longest message that a client takes; a relay's frames are shorter."""

Token = str | Callable[[], str | Awaitable[str | None] | None]
"""What a relay lets its client in with; a function is asked for a fresh one at every connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a relay is, and what it lets its clients in with.

    Attributes:
        url: With the path under which a proxy serves it, if any; `http` and `https` mean `ws` and `wss`.
        token: None when none is needed.
    """

    url: str
    token: Token | None = None


class RelaySocket:
    """A connection that the relay greeted; made by `open_socket`.

    Attributes:
        url: Of the relay, for sentences.
        answers_by: When an answer to what was sent so far can be expected at the latest, in seconds of the relay's
            clock: a relay that holds its broadcaster back reads nothing meanwhile.
        retry_after_seconds: How long the relay asked its client to stay away after the close.
        notice: The last `error` message.
    """

    def __init__(self, websocket: ClientConnection, url: str, silence_seconds: float) -> None:
        """Take over a connection that was greeted; it counts as lost after `silence_seconds` without any answer."""
        self.url = url
        self.answers_by = 0.0
        self.retry_after_seconds = 0.0
        self.notice: ErrorNotice | None = None
        self._websocket = websocket
        self._silence_seconds = silence_seconds

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent."""
        return self._websocket.state is State.OPEN

    async def send(self, message: str | bytes) -> bool:
        """Send a message; waits while the relay takes no more.

        Returns:
            Whether the connection is open; when it is not, `receive` knows why.
        """
        try:
            await self._websocket.send(message)
        except ConnectionClosed:
            return False
        return True

    async def receive(self) -> str | bytes | None:
        """Give the next message, or None when the session ended. Cancelling it loses nothing.

        Raises:
            ConnectionLostError: The connection ended, and another is welcome.
            RelayError: It ended, and another is not.
        """
        heard = relay_clock()
        pong: asyncio.Future[float] | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        return await self._websocket.recv()
                except TimeoutError:
                    now = relay_clock()
                if pong is None or pong.done():
                    heard = now
                    pong = asyncio.ensure_future(await self._websocket.ping())
                elif now - max(heard, self.answers_by) >= self._silence_seconds:
                    self.abort()
                    raise ConnectionLostError(
                        f"The relay at {self.url} has not answered for {now - heard:.0f} s."
                    ) from None
        except ConnectionClosed as closed:
            if is_normal(closed):
                return None
            raise closing_error(self.url, closed, self.notice, self.retry_after_seconds) from closed

    async def close(self, patience_seconds: float = 0.0) -> None:
        """Close the connection; once it is, this does nothing. Cancelled, it is cut off.

        Args:
            patience_seconds: How much later than usually the other side may come to read of it. Who does not wait for
                it takes back what it has not read yet.
        """
        self._websocket.close_timeout = CLOSE_TIMEOUT_SECONDS + patience_seconds
        try:
            await self._websocket.close()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Cut the connection off, whatever was still to be sent."""
        self._websocket.transport.abort()


async def open_socket(
    endpoint: Endpoint, target: str, greeting: type[H], silence_seconds: float
) -> tuple[RelaySocket, H]:
    """Connect, and wait for the relay's greeting.

    Args:
        endpoint: The relay.
        target: Path and query.
        greeting: What kind of `hello` this is about.
        silence_seconds: When a relay that does not answer is given up.

    Raises:
        UserError: Nothing that speaks `relay.v1` answers there; an `UnreachableError` when later something may.
        ConnectionLostError: The relay closed the connection, and another is welcome.
        RelayError: The relay refused; the text is its own sentence.
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
            # `receive` asks by itself: only it knows how late an answer may be.
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
        # Nobody waits for the closing handshake of a connection that came to nothing.
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
            f"{url} accepts WebSockets, but does not speak {SUBPROTOCOL}: it is not a relay of this version."
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
            f"{url} accepted the connection and did not greet: it is not a relay, or it hangs."
        ) from error
    except PolicyError as error:
        raise UserError(f"{url} does not greet like a relay of this version: {error}") from error
    except ConnectionClosed as closed:
        raise closing_error(url, closed, notice) from closed
