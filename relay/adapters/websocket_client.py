"""The two clients of a relay: a broadcaster that sends one channel's audio, and a listener that receives it.

Invariants: a connection is given out after the relay's `hello`, never before; whatever keeps it from coming, and
whatever ends it but the end of the session, is one sentence: a `UserError` where nobody answered like a relay, and
the error of the close code where the relay refused or gave up; nothing reconnects.
"""

import asyncio
import errno
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_address
from socket import gaierror
from typing import Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.protocol import State
from websockets.typing import Subprotocol

from relay.core.listener_events import (
    ErrorNotice,
    Hello,
    ListenerEvent,
    check_protocol,
    read_error,
    read_hello,
    read_listener_event,
)
from relay.core.messages import ControlMessage, decode, encode
from relay.core.requests import Role
from relay.core.wire import HEADER_BYTES, MAX_BROADCAST_BYTES, SUBPROTOCOL
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import (
    BadRequestError,
    ChannelBusyError,
    CloseCode,
    NotAllowedError,
    PolicyError,
    RelayError,
    UserError,
)
from relay.vocabulary.names import ChannelAddress

OPEN_TIMEOUT_SECONDS = 10.0
"""How long a relay may take to accept a connection, and again to greet."""

END_TIMEOUT_SECONDS = 10.0
"""How long a relay may take to confirm the end of a session."""

_CLOSE_TIMEOUT_SECONDS = 2.0
"""How long leaving waits for the other side of the closing handshake; nothing depends on it any more."""

_BROADCASTER_PONG_SECONDS = 20.0
"""How late the answer to a broadcaster's ping may be; nothing waits in front of it."""

_LISTENER_PONG_SECONDS = 60.0
"""How late the answer to a listener's ping may be.

While a player does not take the audio, the pong waits behind it; and how long a listener may stall is the
relay's to decide. This only finds a relay that is gone without a word.
"""

_MAX_MESSAGE_BYTES = MAX_BROADCAST_BYTES + HEADER_BYTES
"""The longest message that a client takes; a relay's frames are shorter."""

_ERRORS: dict[int, type[RelayError]] = {
    error.close_code: error for error in (PolicyError, NotAllowedError, ChannelBusyError, BadRequestError)
}


class BroadcasterConnection:
    """A connection that may publish; made by `connect_broadcaster`."""

    def __init__(self, socket: ClientConnection, url: str, address: ChannelAddress) -> None:
        """Take over a connection that was greeted; `url` and `address` are for sentences."""
        self._socket = socket
        self._url = url
        self._address = address
        self._ending = False

    async def send_audio(self, audio: bytes) -> bool:
        """Send whole samples, at most 256 KiB; waits while the relay takes no more.

        Returns:
            Whether the connection is open; when it is not, `wait_closed` knows why.
        """
        try:
            await self._socket.send(audio)
        except ConnectionClosed:
            return False
        return True

    async def end(self) -> None:
        """End the session: listeners are told, and the relay closes the connection.

        Raises:
            RelayError: The relay did not confirm within 10 seconds. (`wait_closed` reports other failures.)
        """
        if self._socket.state is not State.OPEN:
            return
        self._ending = True
        try:
            async with asyncio.timeout(END_TIMEOUT_SECONDS):
                await self._socket.send(encode("end"))
                await self._socket.wait_closed()
        except ConnectionClosed:
            return
        except TimeoutError as error:
            raise RelayError(f"The relay at {self._url} did not confirm the end of {self._address}.") from error

    async def leave(self) -> None:
        """Close the connection without ending the session, so that a broadcaster may return."""
        if self._socket.state is State.OPEN:
            self._ending = True
            await self._socket.close()

    async def wait_closed(self) -> None:
        """Read what the relay says until the connection is closed; this must run all the while.

        Raises:
            RelayError: It was closed for another reason than `end` or `leave`.
        """
        notice: ErrorNotice | None = None
        try:
            while True:
                message = await self._socket.recv()
                if isinstance(message, str) and (control := decode(message))["type"] == "error":
                    notice = read_error(control)
        except ConnectionClosed as closed:
            if not _is_normal(closed):
                raise _closing_error(self._url, closed, notice) from closed
            if not self._ending:
                raise RelayError(f"{self._address} was ended at the relay.") from closed


class ListenerConnection:
    """A connection that receives one channel, made by `connect_listener`; an asynchronous iterator of events.

    The iteration ends when the session ended. Audio that nobody takes from here stays with the relay, whose bound
    on it applies. Cancelling it loses nothing.

    Attributes:
        hello: How the relay greeted.
    """

    def __init__(self, socket: ClientConnection, url: str, hello: Hello) -> None:
        """Take over a connection that was greeted; `url` is for sentences."""
        self.hello = hello
        self._socket = socket
        self._url = url
        self._notice: ErrorNotice | None = None

    def __aiter__(self) -> Self:
        """Give the iterator, which is the connection."""
        return self

    async def __anext__(self) -> ListenerEvent:
        """Give what the relay sends next after its `hello`.

        Raises:
            RelayError: The connection ended otherwise than with the session, or what came is not of the protocol.
        """
        try:
            while (event := read_listener_event(await self._socket.recv())) is None:
                pass
        except ConnectionClosed as closed:
            if _is_normal(closed):
                raise StopAsyncIteration from None
            raise _closing_error(self._url, closed, self._notice) from closed
        if isinstance(event, ErrorNotice):
            self._notice = event
        return event


@asynccontextmanager
async def connect_broadcaster(
    url: str, address: ChannelAddress, audio_format: AudioFormat, key: str | None = None
) -> AsyncIterator[BroadcasterConnection]:
    """Become the broadcaster of a channel.

    Args:
        url: Of the relay, without a path; `http` and `https` mean `ws` and `wss`.
        address: The channel.
        audio_format: Of the audio that will be sent.
        key: The relay's broadcast key, if it has one.

    Raises:
        UserError: Nothing that speaks `relay.v1` answers there.
        RelayError: The relay refused; the text is its own sentence.
    """
    query = f"codec={audio_format.codec}&rate={audio_format.rate}&channels={audio_format.channels}"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    target = f"/v1/{Role.BROADCASTER}/{address}?{query}"
    async with _greeted(url, target, headers, _BROADCASTER_PONG_SECONDS) as (socket, _):
        yield BroadcasterConnection(socket, url, address)


@asynccontextmanager
async def connect_listener(url: str, address: ChannelAddress) -> AsyncIterator[ListenerConnection]:
    """Become a listener of a channel, which need not have a broadcaster yet.

    Args:
        url: Of the relay, without a path; `http` and `https` mean `ws` and `wss`.
        address: The channel.

    Raises:
        UserError: Nothing that speaks `relay.v1` answers there.
        RelayError: The relay refused; the text is its own sentence.
    """
    target = f"/v1/{Role.LISTENER}/{address}"
    async with _greeted(url, target, {}, _LISTENER_PONG_SECONDS) as (socket, greeting):
        yield ListenerConnection(socket, url, read_hello(greeting))


@asynccontextmanager
async def _greeted(
    url: str, target: str, headers: dict[str, str], pong_seconds: float
) -> AsyncIterator[tuple[ClientConnection, ControlMessage]]:
    """Connect and give the connection with the relay's `hello`."""
    websocket_url = re.sub("^http", "ws", url).rstrip("/") + target
    try:
        socket = await connect(
            websocket_url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            additional_headers=headers,
            proxy=None if _is_this_machine(url) else True,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            ping_timeout=pong_seconds,
            close_timeout=_CLOSE_TIMEOUT_SECONDS,
            max_size=_MAX_MESSAGE_BYTES,
        )
    except OSError as error:
        raise UserError(_network_failure(url, error)) from error
    except (InvalidHandshake, InvalidProxy, InvalidURI, ImportError, ValueError) as error:
        raise UserError(_handshake_failure(url, error)) from error
    async with socket:
        yield socket, await _read_greeting(socket, url)


def _is_this_machine(url: str) -> bool:
    """Tell whether a URL is of loopback, which a proxy of the environment would look for on its own machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def _read_greeting(socket: ClientConnection, url: str) -> ControlMessage:
    if socket.subprotocol != SUBPROTOCOL:
        raise UserError(
            f"{url} accepts WebSockets, but does not speak {SUBPROTOCOL}: it is not a relay of this version."
        )
    notice: ErrorNotice | None = None
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            while True:
                control = decode(await socket.recv(decode=True))
                if control["type"] == "hello":
                    check_protocol(control)
                    return control
                if control["type"] == "error":
                    notice = read_error(control)
    except TimeoutError as error:
        raise UserError(f"{url} accepted the connection and did not greet: it is not a relay, or it hangs.") from error
    except PolicyError as error:
        raise UserError(f"{url} does not greet like a relay of this version: {error}") from error
    except ConnectionClosed as closed:
        raise _closing_error(url, closed, notice) from closed


def _is_normal(closed: ConnectionClosed) -> bool:
    return closed.rcvd is not None and closed.rcvd.code == CloseCode.SESSION_ENDED


def _closing_error(url: str, closed: ConnectionClosed, notice: ErrorNotice | None) -> RelayError:
    """Give the error for a connection that ended otherwise than with the session.

    Args:
        url: For the sentence.
        closed: How it ended.
        notice: The last `error` message before.
    """
    received = closed.rcvd
    if received is None:
        ours = f" ({closed.sent.reason})" if closed.sent is not None and closed.sent.reason else ""
        return RelayError(f"The connection to {url} was lost{ours}.")
    kind = _ERRORS.get(received.code, RelayError)
    sentence = notice.message if notice is not None and notice.code == received.code else received.reason
    if not sentence:
        return kind(f"{url} closed the connection with code {received.code}.")
    # It is another machine's text: it must not steer the person's terminal.
    return kind("".join(character if character.isprintable() else "?" for character in sentence))


def _handshake_failure(url: str, error: Exception) -> str:
    """Give the sentence for an answer that is not a relay's, or for an address that can not have one."""
    match error:
        case InvalidStatus() if error.response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return f"{url} is overloaded (HTTP 503); try again later."
        case InvalidStatus():
            return f"{url} answered HTTP {error.response.status_code} and no relay; check the address."
        case InvalidProxy() | ProxyError() | ImportError():
            return f"{url} can not be reached through the proxy of the environment: {error}."
        case InvalidHandshake():
            return f"{url} did not answer like a relay ({error}); check the address."
        case _:
            return f"{url} is not the address of a relay; one looks like ws://127.0.0.1:8080."


def _network_failure(url: str, error: OSError) -> str:
    """Give the sentence for an address that nobody answers at."""
    match error:
        case TimeoutError():
            sentence = f"{url} did not answer within {OPEN_TIMEOUT_SECONDS:g} s."
        case ssl.SSLCertVerificationError():
            sentence = f"The certificate of {url} is not trusted: {error.verify_message}."
        case ssl.SSLError():
            sentence = f"{url} did not answer with TLS ({error.reason}); a relay without TLS has a ws:// address."
        case gaierror():
            sentence = f"The host of {url} is unknown: {error.strerror}."
        case OSError() if _is_refused(error):
            sentence = f"Nothing listens at {url}: start it with `relay serve`, or name another address with --url."
        case ConnectionError():
            sentence = f"{url} broke the connection off; check the address: ws:// is without TLS, wss:// is with it."
        case _:
            sentence = f"{url} can not be reached: {error.strerror or error}."
    return sentence


def _is_refused(error: OSError) -> bool:
    """Tell a refused connection, of one address or of all that a name has; asyncio joins the texts of those."""
    return error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error)
