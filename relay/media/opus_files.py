"""Ogg Opus as a source of packets, and as a recording of them. Nothing is decoded or encoded.

source = OpusFile(path)             # or OpusInput(descriptor): an `AudioSource` whose blocks are packets
with OpusRecorder(path) as recorder:
    recorder.set_format(audio_format)
    recorder.write(packet)
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from relay.media.ogg_opus import OggOpusPages, OpusHead, OpusPackets
from relay.media.ogg_pages import NO_GRANULE, PageReader
from relay.media.pipe import Pipe
from relay.media.recording import explained, open_recording
from relay.media.source import AudioSource
from relay.media.wav import unreadable
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import OPUS_RATES, AudioFormat, Codec
from relay.vocabulary.errors import UserError

_PAGE_TICKS = opus_packet.CLOCK_RATE
"""A page has about a second, as RFC 7845, chapter 3, wants it at most."""

_TAIL_BYTES = 128 * 1024
"""The end of a file that has its last page for certain: a page has less than half of it."""


class _Packets(AudioSource):
    def __init__(self, name: str, head: OpusHead, rate: int | None, duration_seconds: float | None) -> None:
        self.name = name
        wanted = rate or head.rate or OPUS_RATES[-1]
        known = rate or next((each for each in OPUS_RATES if each >= wanted), OPUS_RATES[-1])
        self.audio_format = AudioFormat(Codec.OPUS, known, head.channels)
        self.duration_seconds = duration_seconds
        self.damaged_packets = 0
        self.remark: str | None = None

    def _read(self, packets: OpusPackets) -> Iterator[bytes]:
        for packet in packets:
            self.damaged_packets = packets.damaged
            yield packet
        self.damaged_packets = packets.damaged


class OpusFile(_Packets):
    """A file whose blocks are Opus packets."""

    def __init__(self, path: Path, rate: int | None = None) -> None:
        """Read the beginning and the end of the file.

        Args:
            path: The file.
            rate: The rate in Hz to which the relay decodes it for listeners of PCM; None takes the file's.

        Raises:
            UserError: The file cannot be read, or is not Ogg Opus of one or two channels.
        """
        self._path = path
        try:
            with path.open("rb") as file:
                packets = _begin(file, str(path))
                duration_seconds = _duration_seconds(file, packets)
        except OSError as error:
            raise unreadable(path, error) from error
        super().__init__(path.name, packets.head, rate, duration_seconds)

    def blocks(self) -> Iterator[bytes]:
        """Read the packets from the beginning."""
        try:
            with self._path.open("rb") as file:
                yield from self._read(_begin(file, str(self._path)))
        except OSError as error:
            raise unreadable(self._path, error) from error


class OpusInput(_Packets):
    """A pipe whose blocks are Opus packets."""

    def __init__(self, pipe: Pipe, rate: int | None = None) -> None:
        """Read up to the head of the stream; `rate` as for a file.

        Raises:
            UserError: The pipe cannot be read, or is not Ogg Opus of one or two channels.
        """
        self._packets = _begin(pipe, "Standard input")
        super().__init__("standard input as Ogg Opus", self._packets.head, rate, None)

    def blocks(self) -> Iterator[bytes]:
        """Read the packets as they arrive, once."""
        return self._read(self._packets)


class OpusRecorder:
    """Writes packets to an Ogg Opus file. A context manager.

    A new file is valid from the moment it is opened. However the process ends, at most a second of audio is missing.
    When the format changes, another stream begins in the same file, as Ogg allows.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. An existing file keeps its contents until the first audio.

        Raises:
            UserError: The file cannot be written.
        """
        self.path = path
        self._audio_format = AudioFormat(Codec.OPUS, opus_packet.CLOCK_RATE)
        self._held = list[bytes]()
        self._held_ticks = 0
        self._stream: OggOpusPages | None = None  # None while the file holds older contents
        self._stream_at = 0
        self._file = open_recording(path, "Ogg Opus")
        if not self._file.seek(0, os.SEEK_END):
            self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stream and close the file.

        Raises:
            UserError: The rest could not be written.
        """
        with explained(self.path), self._file:
            if self._stream is not None:
                self._write_page(self._stream, is_last=True)

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the packets that follow.

        Raises:
            UserError: The file cannot be written.
        """
        if audio_format == self._audio_format:
            return
        self._audio_format = audio_format
        if self._stream is not None:
            if self._held or self._stream.granule:
                self._write_page(self._stream, is_last=True)
                self._stream_at = self._file.tell()
            self._begin()

    def write(self, packet: bytes) -> None:
        """Append one packet.

        Raises:
            UserError: It cannot be written, for example because the disk is full.
        """
        stream = self._stream or self._begin()
        self._held.append(packet)
        self._held_ticks += opus_packet.measure(packet)
        if self._held_ticks >= _PAGE_TICKS:
            self._write_page(stream)

    def _begin(self) -> OggOpusPages:
        """Begin a stream behind the one before it, in place of what is there."""
        head = OpusHead(self._audio_format.channels, rate=self._audio_format.rate)
        stream = self._stream = OggOpusPages(random.getrandbits(32), head)
        with explained(self.path):
            self._file.seek(self._stream_at)
            self._file.truncate()
            self._file.write(stream.head())
            self._file.flush()
        return stream

    def _write_page(self, stream: OggOpusPages, *, is_last: bool = False) -> None:
        packets, self._held, self._held_ticks = self._held, [], 0
        with explained(self.path):
            self._file.write(stream.pack(packets, is_last=is_last))
            self._file.flush()


def _begin(file: Pipe | BinaryIO, label: str) -> OpusPackets:
    try:
        return OpusPackets(file)
    except UserError as error:
        raise UserError(f"{label} can not be passed on as Opus. {error}") from error


def _duration_seconds(file: BinaryIO, packets: OpusPackets) -> float | None:
    """Read the duration from the last page of the file. None if that belongs to another stream than the first one."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    ends = [page for page in PageReader(file) if page.granule != NO_GRANULE]
    if not ends or ends[-1].serial != packets.serial:
        return None
    return max(0, ends[-1].granule - packets.head.pre_skip) / opus_packet.CLOCK_RATE
