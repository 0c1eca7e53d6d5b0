"""A server under test: its address, what it sends, and the request with which a listener joins.

The latency of a frame counts from a time that the frame carries. A relay writes one into its header. The load test's
own broadcasters write another into the first bytes of the audio (`stamp`), so that the test can measure any server,
from the moment of sending.

Invariant: a refusal is a short reason, the same for all listeners with the same problem, so that it can be counted.

Source: RFC 6455 section 4; docs/protocol.md, "Framing".
"""

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from relay.protocol.wire import HEADER_BYTES, SUBPROTOCOL, Header
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.clock import wire_milliseconds
from relay.vocabulary.errors import PeerError
from relay.vocabulary.text import printable

MAX_RESPONSE_BYTES = 16 * 1024
"""The longest response to the request that is read."""

STREAM_EPOCH = 0x5EED
"""The epoch of stamps in a stream. Quiet audio contains no bytes like it."""

STREAM_MARK = Header(STREAM_EPOCH, 0, 0, 0).pack()[:4]
"""The first bytes of each frame in a stream."""

_KEY = base64.b64encode(b"relay load test!").decode()
"""One key for all connections. It only guards against caches that do not understand WebSocket."""

_ACCEPT = base64.b64encode(
    hashlib.sha1(f"{_KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
).decode()
_OK, _SWITCHING_PROTOCOLS = "200", "101"
_LONGEST_REASON = 100


class LatencyFrom(StrEnum):
    """The start of a frame's latency."""

    BROADCASTER = "broadcaster"
    """When the broadcaster sent it, by this machine's clock."""

    RELAY = "relay"
    """When it arrived at the relay, by the relay's clock. Used for audio from other broadcasters."""


class Expect(StrEnum):
    """What a server sends, and where each frame carries the time from which its latency counts."""

    RELAY_V1 = "relay.v1"
    """Control messages, and audio behind a header with the time of the frame's arrival at the relay."""

    RELAY_V1_STAMPED = "relay.v1, stamped"
    """The same, but the audio has the sender's stamp with the time of sending: PCM begins with it, and an Opus packet
    ends with it."""

    STAMPED = "stamped"
    """WebSocket messages as the sender made them. Each begins with a stamp of epoch 0."""

    STREAM = "stream"
    """The endless body of an HTTP response: frames by `stamp_for_stream`, from anywhere. Other bytes are skipped."""

    @property
    def is_websocket(self) -> bool:
        """Whether the connection is upgraded to a WebSocket."""
        return self is not Expect.STREAM

    @property
    def is_relay_v1(self) -> bool:
        """Whether the server sends a greeting, control messages, and a close frame at the end."""
        return self in (Expect.RELAY_V1, Expect.RELAY_V1_STAMPED)

    @property
    def is_stamped(self) -> bool:
        """Whether latencies count from the sender's stamp, by the receiver's own clock."""
        return self is not Expect.RELAY_V1

    @property
    def latency_from(self) -> LatencyFrom:
        """The start of a latency."""
        return LatencyFrom.BROADCASTER if self.is_stamped else LatencyFrom.RELAY


@dataclass(frozen=True, slots=True)
class Target:
    """Where a listener connects to.

    Attributes:
        host: An IP address, resolved once, before the test.
        port: TCP port.
        path: Request target of the WebSocket.
        host_header: The value of the `Host` header.
        tls_name: The name that the certificate must have; None disables TLS.
        expect: What the server sends.
        token: The token for the server, if any.
        codec: The codec that the path asks for; None where there is no choice.
    """

    host: str
    port: int
    path: str
    host_header: str
    tls_name: str | None = None
    expect: Expect = Expect.RELAY_V1
    token: str | None = field(default=None, repr=False)
    codec: Codec | None = None


class JoinError(PeerError):
    """A listener cannot join. The text is the reason, in a few words."""


def stamp(seq: int, now: float, audio: bytes) -> bytes:
    """Replace the first 16 bytes of `audio` with a header, for the stamped kinds of `Expect`.

    Args:
        seq: Consecutive from 0 in each channel.
        now: When the frame leaves, in seconds of this machine's clock. Its latency counts from there.
        audio: At least 16 bytes.
    """
    return Header(0, seq, 0, wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]


def stamp_for_stream(seq: int, now: float, audio: bytes) -> bytes:
    """Stamp a frame so that a receiver finds it in a stream. Its length replaces the media time."""
    return Header(STREAM_EPOCH, seq, len(audio), wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]


def check_codec(target: Target, audio_format: AudioFormat | None) -> None:
    """Check that a relay greets with the codec that it was asked for. An older relay may know only PCM.

    Raises:
        JoinError: It sends another one.
    """
    if audio_format is not None and target.codec not in (None, audio_format.codec):
        raise JoinError(f"asked for {target.codec}, and the relay sends {audio_format.codec}")


def stamp_opus(seq: int, now: float, packet: bytes) -> bytes:
    """Replace the last 16 bytes of an Opus packet with a header. They are padding, which decoders skip."""
    return packet[:-HEADER_BYTES] + Header(0, seq, 0, wire_milliseconds(now)).pack()


def read_opus_stamp(packet: bytes) -> Header:
    """Read what `stamp_opus` wrote.

    Raises:
        PolicyError: The packet does not end with a stamp.
    """
    return Header.unpack(packet[-HEADER_BYTES:])


def upgrade_request(target: Target) -> bytes:
    """Return the request for a WebSocket or a stream."""
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
    """Read the server's response to the request.

    Args:
        response: Everything received so far.
        expect: The kind of server.
        is_all: Whether nothing more will come.

    Returns:
        The bytes after the response; None while it is incomplete.

    Raises:
        JoinError: The server refuses, or this is no response to the request.
    """
    head, end, rest = response.partition(b"\r\n\r\n")
    if not end:
        if is_all or len(response) > MAX_RESPONSE_BYTES:
            raise JoinError(
                "the answer is not HTTP" if response else "the server closed the connection without an answer"
            )
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
        raise JoinError("the answer is not that of a WebSocket server")
    if expect.is_relay_v1 and headers.get("sec-websocket-protocol") != SUBPROTOCOL:
        raise JoinError(f"the server does not speak {SUBPROTOCOL}")
    return rest
