"""Programmes: a channel as one stream of audio without an end, as a radio station sends it.

A programme never changes its format, whatever its sources send, and it has silence where no source sends anything. Any
program that plays files can therefore play it. Listeners share its frames, each of which is a whole page of Ogg, a few
whole frames of MP3, or whole samples. What comes before a listener's first frame is `head`.

A programme is synchronous. It may run in a thread, one call at a time.
"""

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relay.media.libopus import load_libopus
from relay.media.mixing import PcmConverter
from relay.media.mp3 import FRAME_SAMPLES, MP3_FORMAT, Mp3Encoder
from relay.media.ogg_opus import OggOpusPages, OpusHead
from relay.media.ogg_pages import MAX_SEGMENTS, segments
from relay.media.transcoding import Encoded, OpusEncoding, OpusToPcm, Transcoder, make_transcoder
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import BYTES_PER_SAMPLE, FLICKS_PER_SECOND, AudioFormat, Codec, Frame
from relay.vocabulary.containers import Container

FRAME_SECONDS = 0.1
"""How much audio a frame gathers. Chunks and pages then add a tenth to Opus of 24 kb/s, and players, which hold a
second or more, do not notice the delay."""

_SILENT_TICKS = 960
"""The duration of a packet of silence, in ticks of 48 kHz."""

_WIDEST = AudioFormat(rate=48_000, channels=2)
"""What a programme has that begins before its first source, which may send anything."""

_WAV_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")
_OPEN_LENGTH = 0xFFFF_FFFF
"""The length in a WAV header that is written to a pipe. Readers take it for "to the end"."""


@dataclass(frozen=True, slots=True)
class ProgrammeSettings:
    """How programmes are encoded.

    Attributes:
        encoding: How PCM becomes Opus.
        mp3_bitrate: Bits per second of MP3.
    """

    encoding: OpusEncoding = field(default_factory=OpusEncoding)
    mp3_bitrate: int = 64_000


class Programme(Protocol):
    """A programme in one container.

    Attributes:
        audio_format: The clock in which it counts, and about its bit rate: PCM for WAV, Opus for what is coded.
    """

    audio_format: AudioFormat

    def begin_source(self, source: AudioFormat) -> None:
        """Take frames of another format from now on.

        Raises:
            UserError: A library is missing. The text says how to get it.
        """

    def take(self, frame: Frame) -> Iterator[Encoded]:
        """Take the next frame of the source. Yield the frames that are complete with it."""

    def rest(self, seconds: float, due: float) -> Iterator[Encoded]:
        """Take silence, because there is no source; it is due at `due`, in seconds of the relay's clock."""

    def finish(self) -> Iterator[Encoded]:
        """Yield what is held back, because the source stops for now."""

    def end(self, due: float) -> Iterator[Encoded]:
        """Yield the end of the programme."""


def open_programme(
    container: Container, source: AudioFormat | None, serial: int, settings: ProgrammeSettings
) -> Programme:
    """Begin a programme.

    Args:
        container: Its container.
        source: The format of its source; None if it has none yet.
        serial: Tells it from others in the same file; `head` needs the same one.
        settings: How it is encoded.

    Raises:
        UserError: A library is missing. The text says how to get it.
    """
    match container:
        case Container.OGG:
            return _OggProgramme(source, serial, settings)
        case Container.MP3:
            return _Mp3Programme(source, settings)
        case Container.WAV:
            return _WavProgramme(source)


def check_container(container: Container, settings: ProgrammeSettings) -> None:
    """Check that this machine can make programmes in a container.

    Raises:
        UserError: A library is missing. The text says how to get it.
    """
    open_programme(container, AudioFormat(rate=44_100), 0, settings)


def head(container: Container, audio_format: AudioFormat, serial: int, title: str) -> bytes:
    """Return what a listener gets first.

    The pages of Ogg are numbered 0 and 1, wherever the listener joins: a player takes a first page with another number
    for damage. The hole behind them looks like a lost page, which every player passes over.

    Args:
        container: The container.
        audio_format: That of the programme.
        serial: That of the programme.
        title: What a player shows.
    """
    match container:
        case Container.OGG:
            return OggOpusPages(serial, OpusHead(audio_format.channels), [("TITLE", title)]).head()
        case Container.MP3:
            return b""
        case Container.WAV:
            return _wav_head(audio_format)


class _Numbers:
    """Numbers the frames of a programme."""

    def __init__(self) -> None:
        self._seq = self._ticks = 0

    def give(self, audio: bytes, ticks: int, due: float) -> Encoded:
        encoded = Encoded(audio, self._seq, self._ticks, ticks, due)
        self._seq, self._ticks = self._seq + 1, self._ticks + ticks
        return encoded


class _OggProgramme(Programme):
    """Opus of any source: every packet says how it is decoded, so nothing has to be converted."""

    def __init__(self, source: AudioFormat | None, serial: int, settings: ProgrammeSettings) -> None:
        load_libopus()
        self.audio_format = AudioFormat(Codec.OPUS, opus_packet.CLOCK_RATE, (source or _WIDEST).channels)
        self._encoding = settings.encoding
        self._pages = OggOpusPages(serial, OpusHead(self.audio_format.channels))
        self._numbers = _Numbers()
        self._packets: list[bytes] = []
        self._ticks = self._segments = 0
        self._due = 0.0
        self._silent_ticks = 0.0
        self._transcoder: Transcoder | None = None
        if source is not None:
            self.begin_source(source)

    def begin_source(self, source: AudioFormat) -> None:
        is_opus = source.codec is Codec.OPUS
        self._transcoder = None if is_opus else make_transcoder(source, Codec.OPUS, self._encoding)

    def take(self, frame: Frame) -> Iterator[Encoded]:
        self._silent_ticks = 0.0
        if self._transcoder is None:
            yield from self._add(frame.audio, frame.duration * opus_packet.CLOCK_RATE // FLICKS_PER_SECOND, frame[1])
            return
        for each in self._transcoder.take(frame):
            yield from self._add(each.audio, each.ticks, each.due)

    def rest(self, seconds: float, due: float) -> Iterator[Encoded]:
        self._silent_ticks += seconds * opus_packet.CLOCK_RATE
        silence = opus_packet.silence(_SILENT_TICKS, self.audio_format.channels)
        while self._silent_ticks >= _SILENT_TICKS:
            self._silent_ticks -= _SILENT_TICKS
            yield from self._add(silence, _SILENT_TICKS, due)
        yield from self._page()

    def finish(self) -> Iterator[Encoded]:
        if self._transcoder is not None:
            for each in self._transcoder.finish():
                yield from self._add(each.audio, each.ticks, each.due)
        yield from self._page()

    def end(self, due: float) -> Iterator[Encoded]:
        yield from self.finish()
        yield self._numbers.give(self._pages.pack([], is_last=True), 0, due)

    def _add(self, packet: bytes, ticks: int, due: float) -> Iterator[Encoded]:
        if self._segments + segments(packet) > MAX_SEGMENTS:
            yield from self._page()
        if not self._packets:
            self._due = due
        self._packets.append(packet)
        self._ticks += ticks
        self._segments += segments(packet)
        if self._ticks >= FRAME_SECONDS * opus_packet.CLOCK_RATE:
            yield from self._page()

    def _page(self) -> Iterator[Encoded]:
        if self._packets:
            page, ticks = self._pages.pack(self._packets), self._ticks
            self._packets, self._ticks, self._segments = [], 0, 0
            yield self._numbers.give(page, ticks, self._due)


class _PcmProgramme(Programme, ABC):
    """A programme that is made of PCM in one format."""

    def __init__(self, source: AudioFormat | None, pcm_format: AudioFormat) -> None:
        self._pcm_format = pcm_format
        self._numbers = _Numbers()
        self._pcm = bytearray()
        self._due = 0.0
        self._decoder: OpusToPcm | None = None
        self._converter: PcmConverter | None = None
        self._silent_samples = 0.0
        if source is not None:
            self.begin_source(source)

    def begin_source(self, source: AudioFormat) -> None:
        self._decoder = OpusToPcm(source) if source.codec is Codec.OPUS else None
        self._converter = PcmConverter(source, self._pcm_format)

    def take(self, frame: Frame) -> Iterator[Encoded]:
        self._silent_samples = 0.0
        pcm = frame.audio if self._decoder is None else b"".join(each.audio for each in self._decoder.take(frame))
        if self._converter is not None:
            yield from self._add(self._converter.convert(pcm), frame[1])

    def rest(self, seconds: float, due: float) -> Iterator[Encoded]:
        self._silent_samples += seconds * self._pcm_format.rate
        samples = math.floor(self._silent_samples)
        self._silent_samples -= samples
        yield from self._add(bytes(samples * self._pcm_format.sample_bytes), due)
        yield from self.finish()

    def _add(self, pcm: bytes, due: float) -> Iterator[Encoded]:
        if not self._pcm:
            self._due = due
        self._pcm += pcm
        size = self._pcm_format.bytes_within(FRAME_SECONDS)
        while len(self._pcm) >= size:
            pcm = bytes(self._pcm[:size])
            del self._pcm[:size]
            yield from self._make(pcm, self._due)
            self._due = due

    def finish(self) -> Iterator[Encoded]:
        if self._pcm:
            pcm = bytes(self._pcm)
            self._pcm.clear()
            yield from self._make(pcm, self._due)

    def end(self, due: float) -> Iterator[Encoded]:  # noqa: ARG002 - nothing follows the last samples
        yield from self.finish()

    @abstractmethod
    def _make(self, pcm: bytes, due: float) -> Iterator[Encoded]:
        """Yield what whole samples become."""


class _WavProgramme(_PcmProgramme):
    """PCM in the format of its first source."""

    def __init__(self, source: AudioFormat | None) -> None:
        source_format = source or _WIDEST
        self.audio_format = AudioFormat(rate=source_format.rate, channels=source_format.channels)
        super().__init__(source, self.audio_format)

    def _make(self, pcm: bytes, due: float) -> Iterator[Encoded]:
        yield self._numbers.give(pcm, len(pcm) // self.audio_format.sample_bytes, due)


class _Mp3Programme(_PcmProgramme):
    def __init__(self, source: AudioFormat | None, settings: ProgrammeSettings) -> None:
        super().__init__(source, MP3_FORMAT)
        # Its clock and bit rate are about those of Opus. There is no PCM in it.
        self.audio_format = AudioFormat(Codec.OPUS, MP3_FORMAT.rate, MP3_FORMAT.channels)
        self._encoder = Mp3Encoder(settings.mp3_bitrate)

    def end(self, due: float) -> Iterator[Encoded]:
        yield from self.finish()
        yield from self._join(self._encoder.flush(), due)

    def _make(self, pcm: bytes, due: float) -> Iterator[Encoded]:
        yield from self._join(self._encoder.encode(pcm), due)

    def _join(self, frames: Sequence[bytes], due: float) -> Iterator[Encoded]:
        if frames:
            yield self._numbers.give(b"".join(frames), len(frames) * FRAME_SAMPLES, due)


def _wav_head(audio_format: AudioFormat) -> bytes:
    return _WAV_HEAD.pack(
        *(b"RIFF", _OPEN_LENGTH, b"WAVE", b"fmt ", 16, 1, audio_format.channels, audio_format.rate),
        *(audio_format.bytes_per_second, audio_format.sample_bytes, 8 * BYTES_PER_SAMPLE, b"data", _OPEN_LENGTH),
    )
