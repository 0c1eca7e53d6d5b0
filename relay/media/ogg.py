"""Ogg as what it may be: links, one after another, each with a format of its own (RFC 3533, chapter 4).

A radio begins a link with each song. FFmpeg gives up at a link whose rate or channels are others, so it is given each
link as a stream of its own.
"""

from collections.abc import Iterator

from relay.media.source import Readable

MAGIC = b"OggS"
_HEADER_BYTES = 27
_FIRST_PAGE = 2
"""The flag of a page that begins a logical stream."""
_READ_BYTES = 16 * 1024


class OggLinks:
    """Cuts what is read into links."""

    def __init__(self, file: Readable) -> None:
        """Take what is at the first byte of the first link."""
        self._file = file
        self._buffer = b""
        self._left_bytes = 0  # of the page that was begun
        self._is_past_headers = False

    def __iter__(self) -> Iterator[Readable]:
        """Go to the next link; what of the last one was not read is left out."""
        while self._fill(1):
            self._is_past_headers = False
            yield self
            while self.read(_READ_BYTES):
                pass

    def read(self, most_bytes: int) -> bytes:
        """Read what is there of the present link, waiting for the first byte; nothing at its end."""
        if self._left_bytes == 0 and not self._begin_page():
            return b""
        self._fill(1)
        data = self._buffer[: min(self._left_bytes, most_bytes)]
        self._left_bytes -= len(data)
        self._buffer = self._buffer[len(data) :]
        return data

    def _begin_page(self) -> bool:
        """Find out how long the next page is; false when there is none in this link."""
        if not self._fill(_HEADER_BYTES):
            self._left_bytes = len(self._buffer)
            return bool(self._buffer)
        if not self._buffer.startswith(MAGIC):
            # Damaged: FFmpeg looks for the next page by itself.
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
        """Have so much in the buffer, if it comes."""
        while len(self._buffer) < wanted_bytes and (data := self._file.read(_READ_BYTES)):
            self._buffer += data
        return len(self._buffer) >= wanted_bytes
