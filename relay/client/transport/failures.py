"""Turns failures of a connection into errors to raise; an error's class says whether to try again.

Invariant: the text is one sentence for the person. Words from another machine in it cannot control a terminal.
"""

import errno
import re
import ssl
from contextlib import suppress
from http import HTTPStatus
from socket import gaierror
from urllib.parse import urlsplit

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from relay.protocol.messages import LONGEST_ASKED_SECONDS, ErrorNotice
from relay.vocabulary.errors import (
    BadRequestError,
    ChannelBusyError,
    CloseCode,
    ConnectionLostError,
    NotAllowedError,
    PolicyError,
    RelayError,
    UnreachableError,
    UserError,
    may_reconnect,
)
from relay.vocabulary.text import printable

_ERRORS: dict[int, type[RelayError]] = {
    error.close_code: error for error in (PolicyError, NotAllowedError, ChannelBusyError, BadRequestError)
}

_PASSING = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses of an overloaded relay, or of a proxy whose relay restarts."""

_SCHEMES = "check the address: ws:// is for relays without TLS, wss:// for relays with TLS."

_TARGET = re.compile(r"(.*?)/v1/(?:listen|broadcast)/[^/]+(?:/[^/]+)?")
"""The path at which a relay accepts WebSockets, after the path under which a proxy serves it."""


def is_normal(closed: ConnectionClosed) -> bool:
    """Return whether the connection ended with its session."""
    return closed.rcvd is not None and closed.rcvd.code == CloseCode.SESSION_ENDED


def closing_error(
    url: str, closed: ConnectionClosed, notice: ErrorNotice | None = None, retry_after_seconds: float = 0.0
) -> RelayError:
    """Return the error for a connection that ended before its session.

    Args:
        url: Address for the sentence.
        closed: How the connection ended.
        notice: The last `error` message before the end.
        retry_after_seconds: How long the relay asked the client to stay away.
    """
    received, sent = closed.rcvd, closed.sent
    if received is None:
        # The relay sent no close frame. Unless ours says that we leave, something that the relay sent is to blame.
        if sent is not None and sent.code != CloseCode.SESSION_ENDED and not may_reconnect(sent.code):
            return RelayError(f"The connection to {url} was lost ({sent.reason or f'code {sent.code}'}).")
        return ConnectionLostError(f"The connection to {url} was lost.", retry_after_seconds)
    sentence = notice.message if notice is not None and notice.code == received.code else received.reason
    text = printable(sentence) if sentence else f"{url} closed the connection with code {received.code}."
    if may_reconnect(received.code):
        return ConnectionLostError(text, retry_after_seconds)
    return _ERRORS.get(received.code, RelayError)(text)


def handshake_error(url: str, error: Exception) -> UserError:
    """Return the error for an answer that is not a relay's, or for an address that cannot be a relay's."""
    match error:
        case InvalidStatus() if error.response.status_code in _PASSING:
            return _passing_error(url, error)
        case InvalidStatus():
            sentence = (
                f"The server at {url} answered HTTP {error.response.status_code}, not like a relay; check the address."
            )
        case InvalidMessage() if isinstance(error.__cause__, EOFError):
            return UnreachableError(f"The server at {url} closed the connection before it answered; {_SCHEMES}")
        case InvalidHandshake():
            sentence = f"The server at {url} did not answer like a relay ({error}); check the address."
        case InvalidURI() if error.uri.startswith("http"):
            # The client connects to ws addresses only, so this is a redirect from a proxy in front of the relay.
            parts = urlsplit(error.uri)
            under = _TARGET.fullmatch(parts.path)
            path = under[1] if under else ""
            address = printable(f"{parts.scheme.replace('http', 'ws')}://{parts.netloc}{path}")
            sentence = f"{url} redirects to {address}; use that address instead."
        case _:
            sentence = f"{url} is not the address of a relay, such as ws://127.0.0.1:8080."
    return UserError(sentence)


def _passing_error(url: str, error: InvalidStatus) -> UnreachableError:
    status = error.response.status_code
    retry_after_seconds = 0
    # The header may be a date, which is ignored.
    with suppress(ValueError):
        retry_after_seconds = min(max(0, int(error.response.headers.get("Retry-After", ""))), LONGEST_ASKED_SECONDS)
    what = "is overloaded" if status == HTTPStatus.SERVICE_UNAVAILABLE else "cannot be reached at present"
    return UnreachableError(f"The relay at {url} {what} (HTTP {status}); try again later.", retry_after_seconds)


def network_error(url: str, error: OSError, timeout_seconds: float) -> UserError:
    """Return the error for an address at which nothing answers."""
    match error:
        case TimeoutError():
            sentence = f"{url} did not answer within {timeout_seconds:g} s; check the address and the network."
        case ssl.SSLCertVerificationError():
            return UserError(
                f"The certificate of {url} is not trusted: {error.verify_message}. If a private authority issued it, "
                "set SSL_CERT_FILE to that authority's certificate."
            )
        case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError):
            return UserError(
                f"{url} did not answer with TLS ({error.reason}). If the relay has no TLS, its address begins with ws://."
            )
        case gaierror():
            sentence = f"The host of {url} is unknown ({error.strerror}); check the address and the network."
        case OSError() if is_refused(error):
            sentence = (
                f"Nothing listens at {url}. Start a relay there with `relay serve`, or give another address with --url."
            )
        case ConnectionError() | ssl.SSLError():
            sentence = f"The server at {url} broke the connection; {_SCHEMES}"
        case _:
            sentence = f"{url} cannot be reached ({error.strerror or error}); check the address and the network."
    return UnreachableError(sentence)


def is_refused(error: OSError) -> bool:
    """Return whether a connection was refused, by one address or by all of a name, whose errors asyncio joins."""
    return error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error)
