"""A server under test: where it is, what it sends, and the request by which a listener asks for it.

The latency of a frame counts from a time that the frame carries. A relay writes one into its header. The load test's
own broadcasters write another into the first bytes of the audio (`stamp`), so that any server can be measured, from
the moment of sending.

Invariant: a refusal is a short reason, the same for all listeners with the same trouble, so that it can be counted.

Source: RFC 6455 section 4; docs/protocol.md, "Framing".
"""

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from relay.protocol.wire import HEADER_BYTES, SUBPROTOCOL, Header
from relay.vocabulary.clock import wire_milliseconds
from relay.vocabulary.errors import PeerError
from relay.vocabulary.text import printable

MAX_RESPONSE_BYTES = 16 * 1024
"""The longest answer to the request that is read."""

STREAM_EPOCH = 0x5EED
"""The epoch of stamps in a stream; quiet audio has nothing that looks like it."""

STREAM_MARK = Header(STREAM_EPOCH, 0, 0, 0).pack()[:4]
"""How each frame of a stream begins."""

_KEY = base64.b64encode(b"relay load test!").decode()
"""One key for all connections: it only guards against caches that know nothing of WebSocket."""

_ACCEPT = base64.b64encode(
    hashlib.sha1(f"{_KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
).decode()
_OK, _SWITCHING_PROTOCOLS = "200", "101"
_LONGEST_REASON = 100


class LatencyFrom(StrEnum):
    """What the latency of a frame counts from."""

    BROADCASTER = "broadcaster"
    """When the broadcaster sent it, by the clock of this machine."""

    RELAY = "relay"
    """When it arrived at the relay, by the relay's clock: the broadcaster is somebody else's."""


class Expect(StrEnum):
    """What a server sends, and where the time stands from which a frame's latency counts."""

    RELAY_V1 = "relay.v1"
    """Control messages, and audio behind a header, which has the time of the frame's arrival at the relay."""

    RELAY_V1_STAMPED = "relay.v1, stamped"
    """The same, but the audio begins with a stamp of the sender, which has the time."""

    STAMPED = "stamped"
    """WebSocket messages as the sender made them, each beginning with a stamp of epoch 0."""

    STREAM = "stream"
    """The endless body of an HTTP answer, made of frames by `stamp_for_stream`. It may begin anywhere; what is no
    frame is passed over."""

    @property
    def is_websocket(self) -> bool:
        """Whether the connection is upgraded to a WebSocket."""
        return self is not Expect.STREAM

    @property
    def is_relay_v1(self) -> bool:
        """Whether there are a greeting, control messages and a close at the end."""
        return self in (Expect.RELAY_V1, Expect.RELAY_V1_STAMPED)

    @property
    def is_stamped(self) -> bool:
        """Whether latencies count from the sender's stamp, by the receiver's own clock."""
        return self is not Expect.RELAY_V1

    @property
    def latency_from(self) -> LatencyFrom:
        """What latencies count from."""
        return LatencyFrom.BROADCASTER if self.is_stamped else LatencyFrom.RELAY


@dataclass(frozen=True, slots=True)
class Target:
    """Where a listener connects to.

    Attributes:
        host: An IP address; the name was resolved once, before the test.
        port: TCP port.
        path: Request target of the WebSocket.
        host_header: What the request says in `Host`.
        tls_name: The name that the certificate must have; None is without TLS.
        expect: What the server sends.
        token: Shown to the server, if any.
    """

    host: str
    port: int
    path: str
    host_header: str
    tls_name: str | None = None
    expect: Expect = Expect.RELAY_V1
    token: str | None = field(default=None, repr=False)


class JoinError(PeerError):
    """A listener can not join; the text is why, in a few words."""


def stamp(seq: int, now: float, audio: bytes) -> bytes:
    """Replace the first 16 bytes of `audio` by a header, for the stamped kinds of `Expect`.

    Args:
        seq: Consecutive from 0 in each channel.
        now: When the frame leaves, in seconds of this machine's clock; its latency counts from there.
        audio: At least 16 bytes.
    """
    return Header(0, seq, 0, wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]


def stamp_for_stream(seq: int, now: float, audio: bytes) -> bytes:
    """Stamp a frame so that a receiver finds it in a stream: its length stands where the media time would."""
    return Header(STREAM_EPOCH, seq, len(audio), wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]


def upgrade_request(target: Target) -> bytes:
    """Return the request that asks for a WebSocket, or for a stream."""
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
    """Read the server's answer to the request.

    Args:
        response: What was received so far.
        expect: What was asked for.
        is_all: Whether nothing more will come.

    Returns:
        What came after the answer; None while the answer is not complete.

    Raises:
        JoinError: The server refuses, or this is no answer to the request.
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
