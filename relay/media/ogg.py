"""Splits Ogg into its links: consecutive streams, each with its own format (RFC 3533, chapter 4).

A radio station begins a link with each song. FFmpeg gives up at a link with another rate or channel count, so it gets
each link as a separate stream.
"""

from collections.abc import Iterator

from relay.media.source import Readable

MAGIC = b"OggS"
_HEADER_BYTES = 27
_FIRST_PAGE = 2
"""The flag of a page that begins a logical stream."""
_READ_BYTES = 16 * 1024


class OggLinks:
    """Splits a readable into links."""

    def __init__(self, file: Readable) -> None:
        """Read from `file`, which is at the first byte of the first link."""
        self._file = file
        self._buffer = b""
        self._left_bytes = 0  # of the current page
        self._is_past_headers = False

    def __iter__(self) -> Iterator[Readable]:
        """Advance to the next link, and skip what was not read of the last one."""
        while self._fill(1):
            self._is_past_headers = False
            yield self
            while self.read(_READ_BYTES):
                pass

    def read(self, most_bytes: int) -> bytes:
        """Read available data of the current link, and wait for the first byte; return nothing at its end."""
        if self._left_bytes == 0 and not self._begin_page():
            return b""
        self._fill(1)
        data = self._buffer[: min(self._left_bytes, most_bytes)]
        self._left_bytes -= len(data)
        self._buffer = self._buffer[len(data) :]
        return data

    def _begin_page(self) -> bool:
        """Determine the length of the next page; False if this link has no more."""
        if not self._fill(_HEADER_BYTES):
            self._left_bytes = len(self._buffer)
            return bool(self._buffer)
        if not self._buffer.startswith(MAGIC):
            # Damaged: FFmpeg finds the next page by itself.
            found = self._buffer.find(MAGIC[:1], 1)
            self._left_bytes = found if found > 0 else len(self._buffer)
            return True
        segments_end = _HEADER_BYTES + self._buffer[26]
        self._fill(segments_end)
        is_first = bool(self._buffer[5] & _FIRST_PAGE) and not any(self._buffer[18:22])
        if is_first and self._is_past_headers:
            return False
        self._is_past_headers = self._is_past_headers or not is_first
        self._left_bytes = segments_end + sum(self._buffer[_HEADER_BYTES:segments_end])
        return True

    def _fill(self, wanted_bytes: int) -> bool:
        """Fill the buffer to `wanted_bytes`, if the file has that many."""
        while len(self._buffer) < wanted_bytes and (data := self._file.read(_READ_BYTES)):
            self._buffer += data
        return len(self._buffer) >= wanted_bytes
