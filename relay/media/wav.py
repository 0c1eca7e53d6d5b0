"""WAV, read by its actual length: writers that crashed, or wrote to a pipe, left wrong sizes behind.

This module reads only 16-bit PCM in formats that a channel can carry unchanged. PyAV reads everything else.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from relay.media.pipe import PcmInput, Pipe
from relay.media.source import AudioSource
from relay.vocabulary.audio import BYTES_PER_SAMPLE, CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat
from relay.vocabulary.errors import UserError

_BLOCK_SECONDS = 0.25
"""Length of a block."""

_FORMS = (b"RIFF", b"RF64", b"BW64")
_SIZE_IN_DS64 = 0xFFFF_FFFF
"""The data size of a file over 4 GiB (EBU Tech 3306), and of many writers that do not know the size."""

_STREAMED_BYTES = 0x7FFF_0000
"""Programs that write WAV to a pipe do not know its length. They declare this or more, or 0."""

_PCM = 1
_EXTENSIBLE = 0xFFFE
_EXTENSIBLE_PCM = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
_FORMAT_BYTES = 16
_EXTENSIBLE_BYTES = 40

_MAX_PIPE_HEADER_BYTES = 1 << 20
"""How much of a pipe is kept while its reader is not yet chosen."""


class _Forward(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int, /) -> object: ...


@dataclass(frozen=True, slots=True)
class WavHeader:
    """The header of 16-bit WAV that a channel can carry unchanged."""

    audio_format: AudioFormat
    declared_bytes: int

    @property
    def is_streamed(self) -> bool:
        """Whether the writer did not know the length of the audio."""
        return self.declared_bytes == 0 or self.declared_bytes >= _STREAMED_BYTES


def read_header(file: _Forward) -> WavHeader | None:
    """Read up to the first byte of audio; None if it is broken or not plain 16-bit WAV."""
    beginning = file.read(12)
    if beginning[:4] not in _FORMS or beginning[8:] != b"WAVE":
        return None
    audio_format: AudioFormat | None = None
    long_bytes: int | None = None
    chunk = file.read(8)
    while len(chunk) == 8:  # noqa: PLR2004 - an id and a size
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        taken = b""
        if name == b"data":
            declared_bytes = long_bytes if size == _SIZE_IN_DS64 and long_bytes is not None else size
            return None if audio_format is None else WavHeader(audio_format, declared_bytes)
        if name == b"fmt ":
            taken = file.read(min(size, _EXTENSIBLE_BYTES))
            audio_format = _plain_format(taken)
            if audio_format is None:
                return None
        elif name == b"ds64":
            taken = file.read(min(size, 16))
            long_bytes = int.from_bytes(taken[8:], "little")
        file.seek(size - len(taken), os.SEEK_CUR)
        chunk = _next_chunk(file, padded=size % 2 == 1)
    return None


def _plain_format(fmt: bytes) -> AudioFormat | None:
    if len(fmt) < _FORMAT_BYTES:
        return None
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    is_pcm = tag == _PCM or (tag == _EXTENSIBLE and fmt[24:] == _EXTENSIBLE_PCM)
    if not is_pcm or bits != BYTES_PER_SAMPLE * 8 or rate not in SAMPLE_RATES or channels not in CHANNEL_COUNTS:
        return None
    return AudioFormat(rate=rate, channels=channels)


def _next_chunk(file: _Forward, *, padded: bool) -> bytes:
    """Read an id and a size, after the byte that pads an odd chunk. Some writers omit that byte."""
    chunk = file.read(8)
    if padded and (chunk[:1] == b"\0" or not _is_id(chunk[:4])):
        chunk = chunk[1:] + file.read(1)
    return chunk


def _is_id(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)  # noqa: PLR2004 - printable ASCII


def fits(audio_format: AudioFormat, rate: int | None, channels: int | None) -> bool:
    """Whether the format needs no conversion. None accepts any rate, or any number of channels."""
    return rate in (None, audio_format.rate) and channels in (None, audio_format.channels)


class WavFile(AudioSource):
    """A WAV file that a channel can carry unchanged. Another file of the same format may replace it."""

    def __init__(self, path: Path, audio_format: AudioFormat) -> None:
        """Open a file whose header has this format.

        Raises:
            UserError: The file has no audio.
        """
        self.name = path.name
        self.audio_format = audio_format
        self.damaged_packets = 0
        self.remark: str | None = None
        self._path = path
        with path.open("rb") as file:
            present_bytes = self._enter(file)
        self.duration_seconds: float | None = present_bytes / audio_format.bytes_per_second
        if present_bytes == 0:
            raise UserError(f"{path} has no audio: it is a WAV file without samples.")

    def blocks(self) -> Iterator[bytes]:
        """Read the file from the beginning."""
        block_bytes = int(self.audio_format.rate * _BLOCK_SECONDS) * self.audio_format.sample_bytes
        try:
            with self._path.open("rb") as file:
                left_bytes = self._enter(file)
                while left_bytes and (block := file.read(min(block_bytes, left_bytes))):
                    left_bytes -= len(block)
                    yield block[: len(block) - len(block) % self.audio_format.sample_bytes]
        except OSError as error:
            raise unreadable(self._path, error) from error
        if left_bytes:
            lost_seconds = left_bytes / self.audio_format.bytes_per_second
            raise UserError(f"{self._path} is damaged: its last {lost_seconds:.2f} s cannot be read.")

    def _enter(self, file: BinaryIO) -> int:
        """Go to the first byte of audio, and return how many bytes there are."""
        header = read_header(file)
        if header is None or header.audio_format != self.audio_format:
            raise UserError(
                f"{self._path} was replaced by a file that is not 16-bit WAV of {self.audio_format.rate} Hz "
                f"and {self.audio_format.channels} channel(s); start again to send the new one."
            )
        start = file.tell()
        there_bytes = max(0, file.seek(0, os.SEEK_END) - start)
        present_bytes = min(header.declared_bytes, there_bytes)
        if header.is_streamed and not _has_only_chunks(file, start, there_bytes):
            present_bytes = there_bytes
        elif header.declared_bytes > there_bytes:
            self.remark = _truncated(self._path, header, there_bytes)
        file.seek(start)
        return present_bytes - present_bytes % self.audio_format.sample_bytes


class WavInput(PcmInput):
    """16-bit WAV from a pipe, after its header."""

    def __init__(self, pipe: Pipe, header: WavHeader) -> None:
        """Read from `pipe`, which is at the first byte of audio."""
        super().__init__(pipe, header.audio_format, "standard input as WAV")
        self._header = header

    def _wanted_bytes(self) -> int:
        wanted_bytes = super()._wanted_bytes()
        if self._header.is_streamed:
            return wanted_bytes
        return min(wanted_bytes, self._header.declared_bytes - self._total_bytes)

    def _check_end(self, rest: bytes) -> None:  # noqa: ARG002 - half a sample at the end is no fault
        if not self._header.is_streamed and self._total_bytes < self._header.declared_bytes:
            self.remark = _truncated("Standard input", self._header, self._total_bytes)


def enter_wav(pipe: Pipe, rate: int | None, channels: int | None) -> WavHeader | None:
    """Read the header of 16-bit WAV with this format. None leaves the pipe unchanged for PyAV."""
    reading = _Kept(pipe)
    header = read_header(reading)
    if header is not None and fits(header.audio_format, rate, channels):
        return header
    pipe.put_back(bytes(reading.kept))
    return None


class _Kept:
    """Reads from a pipe and keeps what it read. It ends at `_MAX_PIPE_HEADER_BYTES`."""

    def __init__(self, pipe: Pipe) -> None:
        self.kept = bytearray()
        self._pipe = pipe

    def read(self, size: int, /) -> bytes:
        start = len(self.kept)
        end = min(start + size, _MAX_PIPE_HEADER_BYTES)
        while len(self.kept) < end and (data := self._pipe.read(end - len(self.kept))):
            self.kept += data
        return bytes(self.kept[start:])

    def seek(self, offset: int, _: int, /) -> None:
        self.read(offset)


def _has_only_chunks(file: BinaryIO, start: int, there_bytes: int) -> bool:
    """Whether only chunks follow an empty `data` to the very end, and so no audio."""
    end = start + there_bytes
    while start < end:
        file.seek(start)
        chunk = file.read(8)
        if len(chunk) < 8 or not _is_id(chunk[:4]):  # noqa: PLR2004 - an id and a size
            return False
        start += 8 + int.from_bytes(chunk[4:], "little")
        start += start % 2 if start < end else 0
    return start == end


def _truncated(name: object, header: WavHeader, there_bytes: int) -> str:
    per_second = header.audio_format.bytes_per_second
    return (
        f"{name} is truncated: its header declares {header.declared_bytes / per_second:.2f} s of audio, but it has "
        f"{there_bytes / per_second:.2f} s."
    )


def unreadable(path: Path, error: OSError | ValueError) -> UserError:
    """Return the error for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UserError(f"{path} cannot be read: {reason}.")
