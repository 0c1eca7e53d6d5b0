"""The binary header of `relay.v1`, and the splitting of a broadcaster's audio into frames.

Source: docs/protocol.md. All fields are in network byte order. The header is 16 bytes, so the 16-bit samples after it
are aligned.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from relay.vocabulary.audio import AudioFormat, Codec, Piece
from relay.vocabulary.errors import AudioFaultError, PolicyError

SUBPROTOCOL = "relay.v1"
"""The WebSocket subprotocol with headers and control messages. Without it, framing is raw."""

TOKEN_SUBPROTOCOL_PREFIX = "relay.token."  # noqa: S105 - a prefix on the wire, not a secret
"""Browsers cannot set headers on a WebSocket, so they offer the token as a second subprotocol. It is never echoed."""

HEADER_BYTES = 16
"""Length of the header before the audio."""

MAX_FRAME_SECONDS = 0.25
"""Longer PCM messages are split, so that buffer limits and gaps stay fine-grained."""

MAX_BROADCAST_BYTES = 256 * 1024
"""The longest message that a broadcaster may send."""

MAX_TEXT_BYTES = 4096
"""The longest control message that the relay reads."""

MAX_RELAY_TEXT_BYTES = 64 * 1024
"""The longest control message that a client reads. A hello lists all channels of the session."""

WORD_MASK = 0xFFFF_FFFF
"""Sequence numbers, media times and due times wrap at 32 bits on the wire."""

_WORDS = WORD_MASK + 1

_Number = TypeVar("_Number", int, float)

_VERSION = 1
_HEADER = struct.Struct("!BBHIII")
_EPOCH_MASK = 0xFFFF
_PACKED = 0x01
"""The flag of a message that holds more than one packet."""
_LENGTH = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a message with audio. Every number wraps.

    Attributes:
        epoch: 16 bits.
        seq: 32 bits, consecutive within an epoch.
        media_time: Media time of the first sample, in ticks of the format's clock rate, 32 bits.
        due_ms: When the frame is due, in milliseconds of the relay's clock, 32 bits.
        is_packed: Whether the message is packed: it holds several packets, each behind its length. The numbers are
            those of the first one.
    """

    epoch: int
    seq: int
    media_time: int
    due_ms: int
    is_packed: bool = False

    def pack(self) -> bytes:
        """Return the 16 bytes of the header."""
        return _HEADER.pack(
            _VERSION,
            _PACKED if self.is_packed else 0,
            self.epoch & _EPOCH_MASK,
            self.seq & WORD_MASK,
            self.media_time & WORD_MASK,
            self.due_ms & WORD_MASK,
        )

    @classmethod
    def unpack(cls, message: bytes) -> "Header":
        """Read the header at the beginning of a binary message. Unknown flags are ignored.

        Raises:
            PolicyError: The message is shorter than a header, or its version is unknown.
        """
        if len(message) < HEADER_BYTES:
            raise PolicyError(f"A binary message of {len(message)} bytes is too short for the 16-byte header.")
        version, flags, epoch, seq, media_time, due_ms = _HEADER.unpack_from(message)
        if version != _VERSION:
            raise PolicyError(f"The header's version is {version}; this implementation knows {_VERSION}.")
        return cls(epoch, seq, media_time, due_ms, bool(flags & _PACKED))


@dataclass(frozen=True, slots=True)
class Audio:
    """One frame as a listener receives it: header and payload."""

    header: Header
    payload: bytes


def serial_difference(left: _Number, right: _Number) -> _Number:
    """Return `left - right` of numbers that wrap at 32 bits, from -2**31 to below 2**31 (RFC 1982)."""
    return (left - right + _WORDS // 2) % _WORDS - _WORDS // 2


def pack_audio(first: Header, packets: Iterable[bytes]) -> bytes:
    """Return a packed message: consecutive packets behind one header, which has the numbers of the first packet."""
    rows = (_LENGTH.pack(len(packet)) + packet for packet in packets)
    return replace(first, is_packed=True).pack() + b"".join(rows)


def unpack_audio(message: bytes, audio_format: AudioFormat) -> list[Audio]:
    """Read a binary message from the relay as its frames. A message that is not packed is one frame.

    In a packed message, the header of each further packet follows from the durations of those before it.

    Raises:
        PolicyError: The message has no valid header, or a packed message does not end with a whole packet.
        AudioFaultError: A packet in a packed message is malformed, so those after it cannot be placed.
    """
    header = Header.unpack(message)
    if not header.is_packed:
        return [Audio(header, message[HEADER_BYTES:])]
    frames, at, ticks = list[Audio](), HEADER_BYTES, 0
    while at < len(message):
        start = at + _LENGTH.size
        at = start + (_LENGTH.unpack_from(message, at)[0] if start <= len(message) else 0)
        if at > len(message) or start > len(message):
            raise PolicyError(f"A packed message of {len(message)} bytes ends inside a packet.")
        place = Header(
            header.epoch,
            header.seq + len(frames) & WORD_MASK,
            header.media_time + ticks & WORD_MASK,
            header.due_ms + ticks * 1000 // audio_format.clock_rate & WORD_MASK,
        )
        frames.append(Audio(place, message[start:at]))
        ticks += audio_format.measure(message[start:at]).ticks
    return frames


def split_audio(message: bytes, audio_format: AudioFormat) -> list[Piece]:
    """Split a broadcaster's message into frames, and measure each.

    PCM becomes frames of at most 250 ms, at sample boundaries. A message with Opus is one packet and one frame.

    Returns:
        The frames' audio, in order. Joined, it equals the message. An empty message has no frames.

    Raises:
        AudioFaultError: PCM does not end at a sample boundary, or an Opus packet is malformed.
    """
    if audio_format.codec is Codec.OPUS:
        return [audio_format.measure(message)] if message else []
    sample_bytes = audio_format.sample_bytes
    if len(message) % sample_bytes:
        raise AudioFaultError(
            f"An audio message of {len(message)} bytes is not whole samples: "
            f"{audio_format.codec} with {audio_format.channels} channel(s) needs a multiple of {sample_bytes}."
        )
    limit = audio_format.bytes_within(MAX_FRAME_SECONDS)
    if len(message) <= limit:
        return [audio_format.measure(message)] if message else []
    return [audio_format.measure(message[start : start + limit]) for start in range(0, len(message), limit)]
