"""Ogg Opus (RFC 7845): reads its packets, and writes pages for files and for streams.

    for packet in OpusPackets(file):       # reading; `head` and `comments` say more
        ...

    pages = OggOpusPages(serial, OpusHead(channels=1))   # writing
    file.write(pages.head())
    file.write(pages.pack(packets))            # as often as there is something
    file.write(pages.pack(last_packets, is_last=True, trim_ticks=300))

Pages that many readers share have numbers of their own. `head` always returns the two pages that come before the next
page. A reader that joins later gets them first, and its page numbers have no hole.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from relay.media.ogg_pages import MAX_SEGMENTS, Page, PageReader, segments
from relay.media.opus_grid import LOOK_AHEAD
from relay.media.source import Readable
from relay.vocabulary import opus_packet
from relay.vocabulary.errors import AudioFaultError, UserError

_HEAD_MAGIC, _TAGS_MAGIC = b"OpusHead", b"OpusTags"
_HEAD = struct.Struct("<8sBBHIhB")
_LENGTH = struct.Struct("<I")
_HEAD_AT = 28
"""The first page has nothing but the head, so it begins behind a page header with one segment."""

MIME_TYPE = "audio/ogg; codecs=opus"
"""The media type of a stream (RFC 5334, RFC 7845, chapter 9)."""

_VENDOR = "relay"


@dataclass(frozen=True, slots=True)
class OpusHead:
    """The head of a stream.

    Attributes:
        channels: 1 or 2.
        pre_skip: How many ticks of 48 kHz a player leaves out at the beginning.
        rate: The sample rate before encoding, in Hz, for information; 0 if unknown.
    """

    channels: int
    pre_skip: int = LOOK_AHEAD
    rate: int = opus_packet.CLOCK_RATE

    def pack(self) -> bytes:
        """Return the packet that begins a stream."""
        return _HEAD.pack(_HEAD_MAGIC, 1, self.channels, self.pre_skip, self.rate, 0, 0)

    @classmethod
    def unpack(cls, packet: bytes) -> "OpusHead":
        """Read the packet that begins a stream.

        Raises:
            UserError: It is damaged, or not mono or stereo.
        """
        if len(packet) < _HEAD.size:
            raise UserError("The head of this Ogg Opus stream is damaged.")
        _, version, channels, pre_skip, rate, _, family = _HEAD.unpack_from(packet)
        if version >> 4:
            raise UserError(f"This Ogg Opus stream has version {version}, which nobody can read yet.")
        if channels not in (1, 2) or family not in (0, 1):
            raise UserError(
                f"This Ogg Opus stream has {channels} channels. Opus is passed on in mono or stereo; "
                "PCM of it can be mixed to stereo."
            )
        return cls(channels, pre_skip, rate)


def is_ogg_opus(beginning: bytes) -> bool:
    """Return whether a file or pipe that begins like this is Ogg Opus. Its first 36 bytes say so."""
    return beginning.startswith(b"OggS\0") and beginning[_HEAD_AT:].startswith(_HEAD_MAGIC)


class OggOpusPages:
    """Writes the pages of one stream.

    Attributes:
        number: The number of the next page.
        granule: The position at the end of the last packet, in ticks of 48 kHz with the pre-skip. Raise it where audio
            is missing.
    """

    def __init__(
        self, serial: int, head: OpusHead, comments: Sequence[tuple[str, str]] = (), *, granule: int = 0
    ) -> None:
        """Begin a stream.

        Args:
            serial: Different from that of any other stream in the same file, 32 bits.
            head: Its head.
            comments: Names, such as TITLE, with their texts.
            granule: The position at which it begins.
        """
        self.number = 2
        self.granule = granule
        self._serial = serial
        self._head = head.pack()
        self._tags = _pack_tags(comments)

    def head(self) -> bytes:
        """Return the two pages that a reader needs first: the head and the comments, numbered before the next page."""
        pages = (
            Page(self._serial, self.number - 2, 0, [self._head], is_first=True),
            Page(self._serial, self.number - 1, 0, [self._tags]),
        )
        return b"".join(page.pack() for page in pages)

    def pack(self, packets: Iterable[bytes], *, is_last: bool = False, trim_ticks: int = 0) -> bytes:
        """Return the next page with these packets; several pages if they need more than 255 segments.

        Args:
            packets: Well-formed Opus packets.
            is_last: Whether they end the stream.
            trim_ticks: Ticks of 48 kHz at the end of the last packet that a player leaves out.
        """
        pages, held, held_segments = list[bytes](), list[bytes](), 0
        for packet in packets:
            if held_segments + segments(packet) > MAX_SEGMENTS:
                pages.append(self._page(held))
                held, held_segments = [], 0
            held.append(packet)
            held_segments += segments(packet)
            self.granule += opus_packet.measure(packet)
        if held or is_last:
            self.granule -= trim_ticks
            pages.append(self._page(held, is_last=is_last))
        return b"".join(pages)

    def _page(self, packets: Sequence[bytes], *, is_last: bool = False) -> bytes:
        page = Page(self._serial, self.number, self.granule, packets, is_last=is_last)
        self.number += 1
        return page.pack()


class OpusPackets:
    """Reads the packets of a file or pipe, unchanged. Consecutive streams are one sequence of packets.

    Streams of other codecs beside it, such as video, are skipped. So are damaged pages and malformed packets. The
    pre-skip is not left out, because a decoder that begins with it sounds right.

    Attributes:
        serial: The serial number of the present stream.
        head: Its head.
        comments: Its comments, such as ("TITLE", "…").
    """

    def __init__(self, file: Readable) -> None:
        """Read up to the first head.

        Raises:
            UserError: There is none, or it is neither mono nor stereo.
        """
        self.comments: list[tuple[str, str]] = []
        self._reader = PageReader(file)
        self._pages = iter(self._reader)
        self._damaged = 0
        self.serial = -1
        for page in self._pages:
            if self._begins(page):
                break
        else:
            raise UserError("There is no Ogg Opus in it.")

    @property
    def damaged(self) -> int:
        """How many times something was skipped because it is damaged."""
        return self._damaged + self._reader.damaged

    def __iter__(self) -> Iterator[bytes]:
        """Read to the end."""
        for page in self._pages:
            if page.is_first:
                self._begins(page)
            elif page.serial == self.serial:
                yield from self._read(page)

    def _begins(self, page: Page) -> bool:
        """Begin the stream of a page, if it begins one of Opus."""
        if not page.is_first or not page.packets or not page.packets[0].startswith(_HEAD_MAGIC):
            return False
        self.head = OpusHead.unpack(page.packets[0])
        self.serial, self._number = page.serial, page.number
        self._part: bytes | None = None  # of a packet that goes on, on the next page
        self._has_tags = False
        return True

    def _read(self, page: Page) -> Iterator[bytes]:
        is_next = page.number == (self._number + 1) % 2**32
        self._number = page.number
        packets = list(page.packets)
        part, self._part = self._part if is_next else None, None
        if page.is_continued and packets:
            if part is None:
                del packets[0]
                self._damaged += 1
            else:
                packets[0] = part + packets[0]
        if page.is_unfinished and packets:
            self._part = packets.pop()
        for packet in packets:
            if not self._has_tags:
                self._has_tags = True
                self.comments = _unpack_tags(packet)
            elif _is_well_formed(packet):
                yield packet
            else:
                self._damaged += 1


def _is_well_formed(packet: bytes) -> bool:
    try:
        opus_packet.measure(packet)
    except AudioFaultError:
        return False
    return True


def _pack_tags(comments: Sequence[tuple[str, str]]) -> bytes:
    texts = [_VENDOR, *(f"{name}={text}" for name, text in comments)]
    rows = [_LENGTH.pack(len(text.encode())) + text.encode() for text in texts]
    return _TAGS_MAGIC + rows[0] + _LENGTH.pack(len(comments)) + b"".join(rows[1:])


def _unpack_tags(packet: bytes) -> list[tuple[str, str]]:
    """Read comments. Damaged ones are left out: the audio can be heard without them."""
    comments, at = list[tuple[str, str]](), len(_TAGS_MAGIC)
    try:
        (vendor_bytes,) = _LENGTH.unpack_from(packet, at)
        (count,) = _LENGTH.unpack_from(packet, at + _LENGTH.size + vendor_bytes)
        at += 2 * _LENGTH.size + vendor_bytes
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(packet, at)
            name, _, text = (
                packet[at + _LENGTH.size : at + _LENGTH.size + length].decode(errors="replace").partition("=")
            )
            comments.append((name.upper(), text))
            at += _LENGTH.size + length
    except struct.error:
        pass
    return comments
