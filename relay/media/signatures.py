"""Recognises the format of a stream by its first bytes, so that files and raw PCM are not mistaken for each other.

Invariant: naming a format takes at least 30 bits that raw PCM contains only by chance. FFmpeg's own guess is not used,
since it finds a format in anything.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 4096
"""How much of a stream is examined: three frames of the formats that have no header for the whole stream."""

TEXT = "text"
"""The name for data that is no audio: a web server's response, or the wrong file."""

_MAGICS = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"RIF[FX]....WAVE|(RF64|BW64)....WAVE", "WAV"),
        (rb"RIFF....AVI ", "AVI"),
        (rb"riff\x2e\x91\xcf\x11", "Sony Wave64"),
        (rb"ID3[\x02-\x04][^\xff].[\x00-\x7f]{4}", "MP3"),
        (rb"fLaC", "FLAC"),
        (rb"OggS\x00", "Ogg"),
        (rb"....(ftyp|styp|moov|moof|mdat|wide|free|skip)", "MP4"),
        (rb"\x1a\x45\xdf\xa3", "Matroska or WebM"),
        (rb"FORM....(AIF[FC]|8SVX)", "AIFF"),
        (rb"\.snd", "AU"),
        (rb"caff\x00", "CAF"),
        (rb"#!AMR", "AMR"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF or WMA"),
        (rb"FLV\x01", "FLV"),
        (rb"ADIF", "AAC"),
        (rb"wvpk", "WavPack"),
        (rb"MAC ", "Monkey's Audio"),
        (rb"TTA1", "True Audio"),
        (rb"MPCK|MP\+[\x07\x17]", "Musepack"),
        (rb"DSD [\x1c]|FRM8", "DSD"),
        (rb"Creative Voice File", "VOC"),
        (rb"\x7f\xfe\x80\x01", "DTS"),
        (rb"\x00\x00\x01\xba[\x21\x31\x44-\x7f]", "MPEG program stream"),
    )
)

_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{64,}")
_TEXT_BYTES = 512
_TEXT_DISTINCT = 10
"""Text has this many different characters. A steady level of PCM has fewer."""

_HEADER_BYTES = 7
"""The longest frame header of the formats that consist only of frames."""

_MPEG_1_RATES = (44_100, 48_000, 32_000)
_LAYER_1, _LAYER_2, _LAYER_3 = 3, 2, 1
_MPEG_1 = 3
_BITRATES_KBPS = {
    (True, _LAYER_1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, _LAYER_2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, _LAYER_3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, _LAYER_1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, _LAYER_2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, _LAYER_3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_LAST_ID = 10
"""Larger bit stream ids belong to E-AC-3, whose header contains the frame's length."""

_TS_PACKET_BYTES = 188
_TS_PACKETS = 5
_TS_TABLE = re.compile(rb"\x47[\x40\x60]\x00[\x10-\x3f]", re.DOTALL)
"""The header of a packet that begins the program table, which a stream repeats."""


@dataclass(frozen=True, slots=True)
class _Framed:
    """A format that consists only of frames, each with its length in its header.

    Attributes:
        name: For a person.
        sync: The first bytes of a header.
        frame_bytes: Returns the length of a header's frame; None if it is no header.
        kind: Returns what all headers of a stream have in common.
        at_start: How many consecutive headers identify the format when the stream begins with one.
        elsewhere: The same when the stream begins in the middle of a frame, as a live one does; None does not search.
    """

    name: str
    sync: re.Pattern[bytes]
    frame_bytes: Callable[[bytes], int | None]
    kind: Callable[[bytes], object]
    at_start: int
    elsewhere: int | None

    def is_in(self, head: bytes) -> bool:
        if self._headers(head, 0, self.at_start) >= self.at_start:
            return True
        return self.elsewhere is not None and any(
            self._headers(head, found.start(), self.elsewhere) >= self.elsewhere for found in self.sync.finditer(head)
        )

    def _headers(self, head: bytes, start: int, most: int) -> int:
        """Count consecutive headers from `start`, up to `most`."""
        count = 0
        first = head[start : start + _HEADER_BYTES]
        while count < most:
            header = head[start : start + _HEADER_BYTES]
            if len(header) < _HEADER_BYTES or not self.sync.match(header) or self.kind(header) != self.kind(first):
                break
            frame_bytes = self.frame_bytes(header)
            if frame_bytes is None:
                break
            count += 1
            start += frame_bytes
        return count


def _mpeg_frame_bytes(header: bytes) -> int | None:
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate == len(_MPEG_1_RATES):
        return None
    is_first = version == _MPEG_1
    # The table is for MPEG-1. MPEG-2 halves the rates, MPEG-2.5 quarters them.
    hertz = _MPEG_1_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = _BITRATES_KBPS[is_first, layer][bitrate - 1] * 1000
    padding = header[2] >> 1 & 1
    if layer == _LAYER_1:
        return (12 * bits // hertz + padding) * 4
    return (144 if is_first or layer == _LAYER_2 else 72) * bits // hertz + padding


def _adts_frame_bytes(header: bytes) -> int | None:
    if header[2] >> 2 & 15 > 12:  # noqa: PLR2004 - the last rate
        return None
    frame_bytes = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return frame_bytes if frame_bytes > _HEADER_BYTES else None


def _loas_frame_bytes(header: bytes) -> int | None:
    return ((header[1] & 0x1F) << 8 | header[2]) + 3


def _ac3_frame_bytes(header: bytes) -> int | None:
    if header[5] >> 3 > _AC3_LAST_ID:
        return ((header[2] & 7) << 8 | header[3]) * 2 + 2
    rate, size = header[4] >> 6, header[4] & 0x3F
    if rate == 3 or size >= 2 * len(_AC3_KBPS):  # noqa: PLR2004 - reserved
        return None
    kbps = _AC3_KBPS[size // 2]
    words = {0: kbps * 2, 1: kbps * 96_000 // 44_100 + size % 2, 2: kbps * 3}[rate]
    return words * 2


_FRAMED = (
    _Framed("MP3", re.compile(rb"\xff[\xe0-\xff]"), _mpeg_frame_bytes, lambda h: (h[1] & 0xFE, h[2] & 0x0C), 2, 3),
    _Framed(
        "AAC", re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), _adts_frame_bytes, lambda h: (h[1], h[2], h[3] & 0xF0), 2, 3
    ),
    _Framed("AAC (LOAS)", re.compile(rb"\x56[\xe0-\xff]"), _loas_frame_bytes, lambda _: None, 4, None),
    _Framed("AC-3", re.compile(rb"\x0b\x77"), _ac3_frame_bytes, lambda h: (h[4] >> 6, h[5] >> 3), 2, None),
)


def recognise(head: bytes) -> str | None:
    """Return the format of a stream that begins with `head` (at most `HEAD_BYTES`); None if it is unknown."""
    for pattern, name in _MAGICS:
        if pattern.match(head):
            return name
    for framed in _FRAMED:
        if framed.is_in(head):
            return framed.name
    if _is_transport_stream(head):
        return "MPEG transport stream"
    beginning = head[:_TEXT_BYTES]
    if _TEXT.fullmatch(beginning) and len(set(beginning)) >= _TEXT_DISTINCT:
        return TEXT
    return None


def _is_transport_stream(head: bytes) -> bool:
    for found in _TS_TABLE.finditer(head):
        packets = head[found.start() % _TS_PACKET_BYTES :: _TS_PACKET_BYTES]
        if len(packets) >= _TS_PACKETS and not packets.strip(b"\x47"):
            return True
    return False
