"""What kept a connection from coming or ended it, as the error to raise: its class says whether to try again.

Invariant: the text is one sentence for the person, and what another machine said in it can not steer a terminal.
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
"""What a relay that has too much to do answers, or a proxy whose relay is being restarted."""

_SCHEMES = "check the address: ws:// is without TLS, wss:// is with it."

_TARGET = re.compile(r"(.*?)/v1/(?:listen|broadcast)/[^/]+(?:/[^/]+)?")
"""Where a relay is asked for a WebSocket, behind the path under which a proxy serves it."""


def is_normal(closed: ConnectionClosed) -> bool:
    """Tell whether a connection ended with its session."""
    return closed.rcvd is not None and closed.rcvd.code == CloseCode.SESSION_ENDED


def closing_error(
    url: str, closed: ConnectionClosed, notice: ErrorNotice | None = None, retry_after_seconds: float = 0.0
) -> RelayError:
    """Give the error for a connection that ended otherwise than with the session.

    Args:
        url: For the sentence.
        closed: How it ended.
        notice: The last `error` message before.
        retry_after_seconds: How long the relay asked to stay away.
    """
    received, sent = closed.rcvd, closed.sent
    if received is None:
        # Without the other side's close frame; when ours says why, it is something that the other side sent, unless
        # it says that we leave.
        if sent is not None and sent.code != CloseCode.SESSION_ENDED and not may_reconnect(sent.code):
            return RelayError(f"The connection to {url} was lost ({sent.reason or f'code {sent.code}'}).")
        return ConnectionLostError(f"The connection to {url} was lost.", retry_after_seconds)
    sentence = notice.message if notice is not None and notice.code == received.code else received.reason
    text = printable(sentence) if sentence else f"{url} closed the connection with code {received.code}."
    if may_reconnect(received.code):
        return ConnectionLostError(text, retry_after_seconds)
    return _ERRORS.get(received.code, RelayError)(text)


def handshake_error(url: str, error: Exception) -> UserError:
    """Give the error for an answer that is not a relay's, or for an address that can not have one."""
    match error:
        case InvalidStatus() if error.response.status_code in _PASSING:
            return _passing_error(url, error)
        case InvalidStatus():
            sentence = f"{url} answered HTTP {error.response.status_code} and no relay; check the address."
        case InvalidMessage() if isinstance(error.__cause__, EOFError):
            return UnreachableError(f"{url} broke the connection off before it answered; {_SCHEMES}")
        case InvalidHandshake():
            sentence = f"{url} did not answer like a relay ({error}); check the address."
        case InvalidURI() if error.uri.startswith("http"):
            # What is connected to begins with ws, so it is where a proxy in front of the relay sends its clients.
            parts = urlsplit(error.uri)
            under = _TARGET.fullmatch(parts.path)
            path = under[1] if under else ""
            address = printable(f"{parts.scheme.replace('http', 'ws')}://{parts.netloc}{path}")
            sentence = f"{url} redirects to {address}; name that address instead."
        case _:
            sentence = f"{url} is not the address of a relay; one looks like ws://127.0.0.1:8080."
    return UserError(sentence)


def _passing_error(url: str, error: InvalidStatus) -> UnreachableError:
    status = error.response.status_code
    retry_after_seconds = 0
    # The other form of the header is a date.
    with suppress(ValueError):
        retry_after_seconds = min(max(0, int(error.response.headers.get("Retry-After", ""))), LONGEST_ASKED_SECONDS)
    what = "is overloaded" if status == HTTPStatus.SERVICE_UNAVAILABLE else "can not be reached for now"
    return UnreachableError(f"{url} {what} (HTTP {status}); try again later.", retry_after_seconds)


def network_error(url: str, error: OSError, timeout_seconds: float) -> UserError:
    """Give the error for an address that nobody answers at."""
    match error:
        case TimeoutError():
            sentence = f"{url} did not answer within {timeout_seconds:g} s."
        case ssl.SSLCertVerificationError():
            return UserError(f"The certificate of {url} is not trusted: {error.verify_message}.")
        case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError):
            return UserError(
                f"{url} did not answer with TLS ({error.reason}); a relay without TLS has a ws:// address."
            )
        case gaierror():
            sentence = f"The host of {url} is unknown: {error.strerror}."
        case OSError() if is_refused(error):
            sentence = f"Nothing listens at {url}: start it with `relay serve`, or name another address with --url."
        case ConnectionError() | ssl.SSLError():
            sentence = f"{url} broke the connection off; {_SCHEMES}"
        case _:
            sentence = f"{url} can not be reached: {error.strerror or error}."
    return UnreachableError(sentence)


def is_refused(error: OSError) -> bool:
    """Tell a refused connection, of one address or of all that a name has; asyncio joins the texts of those."""
    return error.errno == errno.ECONNREFUSED or f"[Errno {errno.ECONNREFUSED}]" in str(error)
