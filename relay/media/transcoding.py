"""Makes a rendition of a channel in another codec: Opus from PCM, and PCM from Opus.

A transcoder is synchronous. It may run in a thread, and serves one stream at a time.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from relay.media.libopus import OpusDecoder, OpusEncoder, OpusError
from relay.media.opus_grid import LOOK_AHEAD, OpusGrid
from relay.media.resampling import make_resampler
from relay.vocabulary.audio import OPUS_RATES, AudioFormat, Codec, Frame
from relay.vocabulary.opus_packet import CLOCK_RATE


@dataclass(frozen=True, slots=True)
class OpusEncoding:
    """How PCM is encoded to Opus.

    Attributes:
        bitrate: Average bits per second of a mono channel. Stereo gets twice as many.
        complexity: From 0 to 10. Higher values take more CPU and sound better.
        frame_ms: The length of a packet: 20, 40 or 60.
    """

    bitrate: int = 24_000
    complexity: int = 9
    frame_ms: int = 20


@dataclass(frozen=True, slots=True)
class Encoded:
    """One frame of a rendition.

    Attributes:
        audio: The frame's audio, in the transcoder's format.
        seq: Its number in the epoch of the source.
        media_time: Ticks of the transcoder's format from the beginning of the epoch. It can be negative, and wraps on
            the wire.
        ticks: Its duration in the same ticks.
        due: When it is due, in seconds of the relay's clock.
    """

    audio: bytes
    seq: int
    media_time: int
    ticks: int
    due: float


class Transcoder(Protocol):
    """Converts the frames of one epoch of a source.

    Attributes:
        audio_format: The format of what it makes.
        failures: Number of frames that could not be converted. A decoder conceals them as it conceals lost audio.
    """

    audio_format: AudioFormat
    failures: int

    def take(self, frame: Frame) -> list[Encoded]:
        """Convert the next frame of the source. Return the frames that are complete with it."""

    def finish(self) -> list[Encoded]:
        """Return the rest, padded with silence, because the source stops for now. It may go on afterwards."""


def make_transcoder(source: AudioFormat, wanted: Codec, encoding: OpusEncoding) -> Transcoder:
    """Return a transcoder from a source's format to another codec.

    Raises:
        UserError: A library is missing. The text says how to get it.
        ValueError: The source has the wanted codec already.
    """
    if source.codec is wanted:
        raise ValueError(f"a source in {wanted} needs no transcoder")
    return OpusToPcm(source) if wanted is Codec.PCM_S16LE else PcmToOpus(source, encoding)


class PcmToOpus(Transcoder):
    """Encodes PCM to Opus frames on the grid of `OpusGrid`.

    When the source goes on inside a frame that was padded, the audio up to the end of that frame is left out.
    """

    def __init__(self, source: AudioFormat, encoding: OpusEncoding) -> None:
        """Create the encoder.

        Raises:
            UserError: libopus is missing, or what resamples the source's rate.
        """
        rate = next(each for each in OPUS_RATES if each >= source.rate)
        self.audio_format = AudioFormat(Codec.OPUS, rate, source.channels)
        self.failures = 0
        self._source = source
        self._grid = OpusGrid(source.rate, encoding.frame_ms)
        self._encoder = OpusEncoder(rate, source.channels, encoding.bitrate * source.channels, encoding.complexity)
        self._frame_samples = rate * encoding.frame_ms // 1000
        self._number = 0
        self._expected: int | None = None
        self._begin(0)

    def take(self, frame: Frame) -> list[Encoded]:
        """Encode the frames that are complete with this part of the source."""
        start = frame.start.media_time
        if start != self._expected:
            self._begin(start)
        self._dues.append((start, frame.timestamp))
        self._expected = frame.end.media_time
        self._add(frame.audio)
        return self._encode()

    def finish(self) -> list[Encoded]:
        """Pad until all of the source so far can be heard."""
        if self._expected is None:
            return []
        sample_bytes = self._source.sample_bytes
        end = (self._grid.last_before(self._expected) + 1) * self._frame_samples
        missing = end - self._at - len(self._pcm) // sample_bytes
        # A resampler that has just begun still holds back some milliseconds.
        silence_seconds = max(0, missing / self.audio_format.rate) + 0.02
        self._add(bytes(math.ceil(silence_seconds * self._source.rate) * sample_bytes))
        del self._pcm[max(0, end - self._at) * sample_bytes :]
        encoded = self._encode()
        self._expected = None
        return encoded

    def _begin(self, start: int) -> None:
        """Go on at a sample of the source that does not follow the last one."""
        rate, to_rate = self._source.rate, self.audio_format.rate
        step = rate // math.gcd(rate, to_rate)
        # Samples of both rates coincide only at each `step`, so the resampler begins there, with silence.
        before = start % step
        self._resampler = None if rate == to_rate else make_resampler(rate, to_rate, self._source.channels)
        self._at = (start - before) * to_rate // rate  # of the first sample in `_pcm`, at the encoder's rate
        self._pcm = bytearray()
        self._dues = deque[tuple[int, float]]()  # of the source's frames; at most those of two Opus frames
        self._number = max(self._number, self._grid.first_from(start))
        self._add(bytes(before * self._source.sample_bytes))

    def _add(self, pcm: bytes) -> None:
        sample_bytes = self._source.sample_bytes
        self._pcm += pcm if self._resampler is None else self._resampler.resample(pcm)
        early = self._number * self._frame_samples - self._at
        if early > 0:
            early = min(early, len(self._pcm) // sample_bytes)
            del self._pcm[: early * sample_bytes]
            self._at += early

    def _encode(self) -> list[Encoded]:
        frame_bytes = self._frame_samples * self._source.sample_bytes
        encoded = []
        while len(self._pcm) >= frame_bytes:
            packet = self._encoder.encode(bytes(self._pcm[:frame_bytes]))
            del self._pcm[:frame_bytes]
            grid, number = self._grid, self._number
            encoded.append(Encoded(packet, number, grid.media_time(number), grid.frame_ticks, self._due(number)))
            self._number += 1
            self._at += self._frame_samples
        return encoded

    def _due(self, number: int) -> float:
        """Return when a frame is due: by its look-ahead earlier than the sample of the source with which it begins."""
        sample = number * self._grid.frame_ms * self._source.rate / 1000
        while len(self._dues) > 1 and self._dues[1][0] <= sample:
            self._dues.popleft()
        start, due = self._dues[0]
        return due + (sample - start) / self._source.rate - LOOK_AHEAD / CLOCK_RATE


class OpusToPcm(Transcoder):
    """Decodes each packet to one frame of PCM, with the same number and the same due time."""

    def __init__(self, source: AudioFormat) -> None:
        """Create the decoder.

        Raises:
            UserError: libopus is missing.
        """
        self.audio_format = AudioFormat(Codec.PCM_S16LE, source.rate, source.channels)
        self.failures = 0
        self._decoder = OpusDecoder(source.rate, source.channels)

    def take(self, frame: Frame) -> list[Encoded]:
        """Decode a packet. One that cannot be decoded is concealed."""
        rate = self.audio_format.rate
        start = frame.start.media_time * rate // CLOCK_RATE
        samples = frame.end.media_time * rate // CLOCK_RATE - start
        try:
            pcm = self._decoder.decode(frame.audio, samples)
        except OpusError:
            self.failures += 1
            pcm = self._decoder.decode(None, samples)
        return [Encoded(pcm, frame.start.seq, start, samples, frame.timestamp)]

    def finish(self) -> list[Encoded]:
        """Nothing is held back."""
        return []
