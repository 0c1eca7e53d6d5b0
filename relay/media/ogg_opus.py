"""Reads Opus packets from Ogg, and writes them to Ogg, without decoding them.

Source: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relay.media.ogg import MAGIC
from relay.media.source import Readable

PRE_SKIP = 312
"""Ticks of 48 kHz that a decoder drops at the start: the look-ahead of libopus."""

HEAD_END = 47
"""How much of a stream with Opus says what it is: its first page up to the mapping of channels."""

_PAGE = struct.Struct("<4sBBqIIIB")
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_HEAD = struct.Struct("<8sBBHIhB")
_HEAD_START = _PAGE.size + 1
_MOST_SEGMENTS = 255
_VENDOR = b"audio-relay"
_READ_BYTES = 16 * 1024

_CHECKSUMS = []
for _number in range(256):
    _sum = _number << 24
    for _ in range(8):
        _sum = (_sum << 1) ^ (0x04C1_1DB7 if _sum & 0x8000_0000 else 0)
    _CHECKSUMS.append(_sum & 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class OpusHead:
    """What a stream says of itself.

    Attributes:
        channels: 1 or 2 with mapping family 0.
        pre_skip: Ticks of 48 kHz that a decoder drops at the start.
        input_rate: The sample rate of the original, in Hz; 0 if unknown.
        gain_db: How much louder a player should make it.
        family: The mapping of channels; 0 is mono or stereo in one Opus stream.
    """

    channels: int
    pre_skip: int = PRE_SKIP
    input_rate: int = 48_000
    gain_db: float = 0.0
    family: int = 0

    def pack(self) -> bytes:
        """Return the stream's first packet."""
        gain = round(self.gain_db * 256)
        return _HEAD.pack(b"OpusHead", 1, self.channels, self.pre_skip, self.input_rate, gain, self.family)


def read_head(packet: bytes) -> OpusHead | None:
    """Read the first packet of a stream. Return None if it is none of Opus, or of a version that nobody knows."""
    if len(packet) < _HEAD.size:
        return None
    magic, version, channels, pre_skip, input_rate, gain, family = _HEAD.unpack_from(packet)
    if magic != b"OpusHead" or version >> 4:
        return None
    return OpusHead(channels, pre_skip, input_rate, gain / 256, family)


def look_for_head(beginning: bytes) -> OpusHead | None:
    """Read the head from the first `HEAD_END` bytes of an Ogg stream; None if it holds something else."""
    return read_head(beginning[_HEAD_START:HEAD_END]) if beginning.startswith(MAGIC) else None


class OggPackets:
    """The packets of one link of Ogg. Damaged pages are left out.

    Attributes:
        damaged: Number of damaged or missing pages so far.
    """

    def __init__(self, link: Readable) -> None:
        """Read from `link`, which is at its first page."""
        self.damaged = 0
        self._link = link
        self._buffer = b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield each whole packet, the head and the tags first."""
        serial: int | None = None
        expected = 0
        partial: bytes | None = None
        while (page := self._next_page()) is not None:
            _, _, flags, _, its_serial, sequence, _, count = _PAGE.unpack_from(page)
            if serial is None:
                serial, expected = its_serial, sequence
            if its_serial != serial:
                continue  # another stream, which is multiplexed with this one
            if sequence != expected:
                self.damaged += 1
                partial = None
            expected = sequence + 1
            laces, at = page[_PAGE.size : _PAGE.size + count], _PAGE.size + count
            # The beginning of a packet that continues here may be lost.
            packet = partial if flags & _CONTINUED else b""
            for lace in laces:
                packet = None if packet is None else packet + page[at : at + lace]
                at += lace
                if lace < _MOST_SEGMENTS:
                    if packet is not None:
                        yield packet
                    packet = b""
            partial = packet if count and laces[-1] == _MOST_SEGMENTS else None

    def _next_page(self) -> bytes | None:
        """Return the next whole page with the right checksum; None at the end."""
        is_lost = False
        while True:
            start = self._buffer.find(MAGIC)
            if start > 0 or (start < 0 and len(self._buffer) >= len(MAGIC)):
                is_lost = True
                # The end may be the beginning of a mark.
                self._buffer = self._buffer[start if start > 0 else 1 - len(MAGIC) :]
            page = self._whole_page()
            if page is not None and _checksum(page[:22] + bytes(4) + page[26:]) == _PAGE.unpack_from(page)[6]:
                self.damaged += is_lost
                self._buffer = self._buffer[len(page) :]
                return page
            if page is not None:
                is_lost = True
                self._buffer = self._buffer[1:]
            elif data := self._link.read(_READ_BYTES):
                self._buffer += data
            elif self._buffer:
                # A page that is torn, or whose length is. Another one may begin within it.
                is_lost = True
                self._buffer = self._buffer[1:]
            else:
                self.damaged += is_lost
                return None

    def _whole_page(self) -> bytes | None:
        if len(self._buffer) < _PAGE.size or not self._buffer.startswith(MAGIC):
            return None
        body = _PAGE.size + self._buffer[_PAGE.size - 1]
        end = body + sum(self._buffer[_PAGE.size : body])
        return self._buffer[:end] if len(self._buffer) >= max(body, end) else None


class OggOpusStream:
    """Makes the pages of one stream of Opus.

    The position counts ticks of 48 kHz, and so do the lengths of packets.
    """

    def __init__(self, head: OpusHead, serial: int) -> None:
        self._head = head
        self._serial = serial
        self._sequence = 0
        self._position = 0

    def begin(self) -> bytes:
        """Return the first two pages: what the stream is, and its tags."""
        tags = b"OpusTags" + struct.pack("<I", len(_VENDOR)) + _VENDOR + bytes(4)
        return self._page([self._head.pack()], _FIRST, 0) + self._page([tags], 0, 0)

    def add(self, packets: Sequence[bytes], ticks: int, *, is_last: bool = False) -> bytes:
        """Return a page with packets that last `ticks` together. They have at most 255 segments."""
        self._position += ticks
        return self._page(packets, _LAST if is_last else 0, self._position)

    def _page(self, packets: Sequence[bytes], flags: int, position: int) -> bytes:
        laces = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
        fields = (MAGIC, 0, flags, position, self._serial, self._sequence)
        rest = laces + b"".join(packets)
        checksum = _checksum(_PAGE.pack(*fields, 0, len(laces)) + rest)
        self._sequence += 1
        return _PAGE.pack(*fields, checksum, len(laces)) + rest


def _checksum(page: bytes) -> int:
    total = 0
    for byte in page:
        total = (total << 8 & 0xFFFF_FFFF) ^ _CHECKSUMS[(total >> 24) ^ byte]
    return total
