"""How a listener that is measured asks for its audio: one request, and what the answer means.

Invariant: a refusal is a short reason, the same for all listeners with the same trouble, so that it can be counted.

Source: RFC 6455 section 4.
"""

import base64
import hashlib

from relay.loadtest.expect import Expect
from relay.loadtest.worker_messages import Target
from relay.protocol.wire import SUBPROTOCOL
from relay.vocabulary.errors import PeerError
from relay.vocabulary.text import printable

MAX_RESPONSE_BYTES = 16 * 1024
"""The longest answer that is read."""

_KEY = base64.b64encode(b"relay load test!").decode()
"""One key for all connections: it only guards against caches that know nothing of WebSocket."""

_ACCEPT = base64.b64encode(
    hashlib.sha1(f"{_KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
).decode()
_OK, _SWITCHING_PROTOCOLS = "200", "101"
_LONGEST_REASON = 100


class JoinError(PeerError):
    """A listener can not join; the text is why, in a few words."""


def upgrade_request(target: Target) -> bytes:
    """Give the request that asks for a WebSocket, or for a stream."""
    if not target.expect.is_websocket:
        # With HTTP/1.1 the body could come in chunks.
        return f"GET {target.path} HTTP/1.0\r\nHost: {target.host_header}\r\n\r\n".encode()
    lines = [
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
        "User-Agent: relay-loadtest",
    ]
    if target.expect.is_relay_v1:
        lines.append(f"Sec-WebSocket-Protocol: {SUBPROTOCOL}")
    if target.token is not None:
        lines.append(f"Authorization: Bearer {target.token}")
    return "\r\n".join([*lines, "", ""]).encode()


def read_upgrade(response: bytes, expect: Expect, *, is_all: bool) -> bytes | None:
    """Read the server's answer.

    Args:
        response: What was received so far.
        expect: What was asked for.
        is_all: Whether nothing more will come.

    Returns:
        What came after the answer; None while it is not complete.

    Raises:
        JoinError: It is no, or no answer to this request.
    """
    head, end, rest = response.partition(b"\r\n\r\n")
    if not end:
        if is_all or len(response) > MAX_RESPONSE_BYTES:
            raise JoinError("the answer is not HTTP" if response else "closed without an answer")
        return None
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    version, _, status = status_line.partition(" ")
    if not version.startswith("HTTP/"):
        raise JoinError("the answer is not HTTP")
    if status[:3] != (_SWITCHING_PROTOCOLS if expect.is_websocket else _OK):
        missing = int(headers["content-length"]) - len(rest) if headers.get("content-length", "").isdecimal() else 0
        if missing > 0 and not is_all and len(response) <= MAX_RESPONSE_BYTES:
            return None
        sentence = rest.decode(errors="replace").strip().split("\n", 1)[0][:_LONGEST_REASON]
        raise JoinError(printable(f"HTTP {status[:3]} {sentence}").rstrip())
    if expect.is_websocket and headers.get("sec-websocket-accept") != _ACCEPT:
        raise JoinError("the answer is not of a WebSocket server")
    if expect.is_relay_v1 and headers.get("sec-websocket-protocol") != SUBPROTOCOL:
        raise JoinError(f"does not speak {SUBPROTOCOL}")
    return rest
