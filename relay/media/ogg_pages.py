"""Pages of Ogg: what carries the packets of a codec in files and streams (RFC 3533, chapter 6)."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relay.media.source import Readable

MAGIC = b"OggS"
NO_GRANULE = -1
"""The granule position of a page on which no packet ends."""

MAX_SEGMENTS = 255
_SEGMENT_BYTES = 255
_HEADER = struct.Struct("<4sBBqIIIB")
_CHECKSUM_AT = 22
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_READ_BYTES = 16 * 1024
_WORD = 0xFFFF_FFFF

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in reverse order. Ogg's checksum is CRC-32 on such bytes, begun with 0 and not inverted."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        serial: The logical stream that it belongs to.
        number: Counts the pages of the stream. A hole shows a lost page. It wraps at 32 bits.
        granule: The position at the end of the last packet that ends here, in samples for audio; or `NO_GRANULE`.
        packets: The packets, or parts of packets, on the page.
        is_continued: Whether the first packet began on an earlier page.
        is_unfinished: Whether the last packet goes on, on the next page.
        is_first: Whether the page begins its stream.
        is_last: Whether the page ends its stream.
    """

    serial: int
    number: int
    granule: int
    packets: Sequence[bytes]
    is_continued: bool = False
    is_unfinished: bool = False
    is_first: bool = False
    is_last: bool = False

    def pack(self) -> bytes:
        """Return the bytes of the page.

        Raises:
            ValueError: The packets do not fit on one page: there are 255 segments for them (`segments`).
        """
        lacing = b"".join(map(_lacing, self.packets))
        if self.is_unfinished:
            lacing = lacing[:-1]
        if len(lacing) > MAX_SEGMENTS:
            raise ValueError(f"packets of {len(lacing)} segments do not fit on one page of {MAX_SEGMENTS}")
        flags = _CONTINUED * self.is_continued | _FIRST * self.is_first | _LAST * self.is_last
        header = _HEADER.pack(MAGIC, 0, flags, self.granule, self.serial, self.number & _WORD, 0, len(lacing))
        page = header + lacing + b"".join(self.packets)
        return page[:_CHECKSUM_AT] + _checksum(page) + page[_CHECKSUM_AT + 4 :]


def segments(packet: bytes) -> int:
    """Return how many of the 255 segments of a page a whole packet takes."""
    return len(packet) // _SEGMENT_BYTES + 1


class PageReader:
    """Reads the pages of a file or pipe. What is damaged is skipped.

    Attributes:
        damaged: How many times something was skipped.
    """

    def __init__(self, file: Readable) -> None:
        """Read from `file`, which should be at the first byte of a page."""
        self.damaged = 0
        self._file = file
        self._buffer = bytearray()

    def __iter__(self) -> Iterator[Page]:
        """Read to the end of the file. An incomplete last page is damaged."""
        is_lost = False
        while self._fill(_HEADER.size):
            page_bytes = self._page_bytes()
            page = self._read_page(page_bytes) if page_bytes and self._fill(page_bytes) else None
            if page is not None:
                is_lost = False
                yield page
                continue
            self.damaged += not is_lost
            is_lost = True
            found = self._buffer.find(MAGIC[:1], 1)
            del self._buffer[: found if found > 0 else len(self._buffer)]
        self.damaged += bool(self._buffer) and not is_lost

    def _page_bytes(self) -> int:
        """Return the length of the page at the front of the buffer; 0 if there is none."""
        if not self._buffer.startswith(MAGIC + b"\0"):
            return 0
        segments_end = _HEADER.size + self._buffer[_HEADER.size - 1]
        return segments_end + sum(self._buffer[_HEADER.size : segments_end]) if self._fill(segments_end) else 0

    def _read_page(self, page_bytes: int) -> Page | None:
        """Take the page at the front of the buffer; None if its checksum is wrong."""
        whole = bytes(self._buffer[:page_bytes])
        stated = whole[_CHECKSUM_AT : _CHECKSUM_AT + 4]
        if _checksum(whole[:_CHECKSUM_AT] + bytes(4) + whole[_CHECKSUM_AT + 4 :]) != stated:
            return None
        del self._buffer[:page_bytes]
        _, _, flags, granule, serial, number, _, count = _HEADER.unpack_from(whole)
        lacing = whole[_HEADER.size : _HEADER.size + count]
        packets, at, packet_bytes = list[bytes](), _HEADER.size + count, 0
        for length in lacing:
            packet_bytes += length
            if length < _SEGMENT_BYTES:
                packets.append(whole[at : at + packet_bytes])
                at, packet_bytes = at + packet_bytes, 0
        is_unfinished = bool(lacing) and lacing[-1] == _SEGMENT_BYTES
        if is_unfinished:
            packets.append(whole[at:])
        return Page(
            serial,
            number,
            granule,
            packets,
            bool(flags & _CONTINUED),
            is_unfinished,
            bool(flags & _FIRST),
            bool(flags & _LAST),
        )

    def _fill(self, wanted_bytes: int) -> bool:
        while len(self._buffer) < wanted_bytes and (data := self._file.read(_READ_BYTES)):
            self._buffer += data
        return len(self._buffer) >= wanted_bytes


def _lacing(packet: bytes) -> bytes:
    whole, rest = divmod(len(packet), _SEGMENT_BYTES)
    return bytes([_SEGMENT_BYTES]) * whole + bytes([rest])


def _checksum(page: bytes) -> bytes:
    reversed_sum = zlib.crc32(page.translate(_REVERSED), _WORD) ^ _WORD
    return reversed_sum.to_bytes(4, "big").translate(_REVERSED)
