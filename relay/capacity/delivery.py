"""The traffic of one listener or one broadcaster: messages, writes and bytes.

Sources: docs/protocol.md, "Framing" and "Packed messages"; docs/guides/large-audiences.md, "The bill".
"""

import math
from dataclasses import dataclass

from relay.protocol.wire import HEADER_BYTES
from relay.vocabulary.audio import Codec

SEGMENT_BYTES = 78
"""The headers of one TCP segment: 20 for IPv4, 32 for TCP with timestamps, 26 for Ethernet with its preamble."""

SEGMENT_PAYLOAD_BYTES = 1448
"""The most that one segment carries on Ethernet with TCP timestamps."""

PCM_BITS_PER_SECOND = 256_000
"""16-bit mono PCM at 16 kHz."""

OPUS_BITS_PER_SECOND = 24_000
"""The default of the setting `opus.bitrate`, for mono."""

_PACKET_LENGTH_BYTES = 2
_SHORT_MESSAGE_BYTES, _LONG_MESSAGE_BYTES = 125, 65_535


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the audio of one channel reaches one client.

    Attributes:
        codec: The codec.
        bits_per_second: The audio alone, without headers.
        frame_ms: The length of a frame.
        packet_ms: How much Opus the client requests in one message; 0 for one frame.
        coalesce_ms: How long messages wait to be written together; 0 writes each at once.
    """

    codec: Codec
    bits_per_second: int
    frame_ms: int = 20
    packet_ms: int = 0
    coalesce_ms: int = 0

    @property
    def frames_per_second(self) -> float:
        """Frames of the channel."""
        return 1000 / self.frame_ms

    @property
    def frame_bytes(self) -> int:
        """The audio of a frame, rounded up."""
        return math.ceil(self.bits_per_second * self.frame_ms / 8000)

    @property
    def frames_per_message(self) -> int:
        """Frames that one message holds. Only Opus is packed."""
        return max(1, self.packet_ms // self.frame_ms) if self.codec is Codec.OPUS else 1

    @property
    def messages_per_write(self) -> int:
        """Messages that one system call writes."""
        return max(1, self.coalesce_ms // (self.frame_ms * self.frames_per_message))

    @property
    def frames_per_write(self) -> int:
        """Frames that one system call writes."""
        return self.frames_per_message * self.messages_per_write

    @property
    def writes_per_second(self) -> float:
        """System calls for each client."""
        return self.frames_per_second / self.frames_per_write

    @property
    def message_bytes(self) -> int:
        """A message with the headers of the protocol and of WebSocket."""
        packed = self.frames_per_message > 1
        payload = self.frames_per_message * (self.frame_bytes + _PACKET_LENGTH_BYTES * packed)
        return with_websocket_header(HEADER_BYTES + payload)

    @property
    def segments_per_second(self) -> float:
        """TCP segments for each client."""
        return self.writes_per_second * math.ceil(self.message_bytes * self.messages_per_write / SEGMENT_PAYLOAD_BYTES)

    @property
    def message_bytes_per_second(self) -> float:
        """What `relay loadtest` counts: everything but the headers of segments."""
        return self.writes_per_second * self.messages_per_write * self.message_bytes

    @property
    def wire_bytes_per_second(self) -> float:
        """Everything that crosses the network for each client."""
        return self.message_bytes_per_second + self.segments_per_second * SEGMENT_BYTES


def with_websocket_header(payload_bytes: int) -> int:
    """Return the length of an unmasked WebSocket message with this payload (RFC 6455, section 5.2)."""
    if payload_bytes <= _SHORT_MESSAGE_BYTES:
        return payload_bytes + 2
    return payload_bytes + (4 if payload_bytes <= _LONG_MESSAGE_BYTES else 10)
