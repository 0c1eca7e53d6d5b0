"""A codec for tests of the hub: as fast as a copy, and each packet shows which samples it encodes."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from relay.hub.rendition import Kind, Rendition, as_it_is
from relay.media.opus_grid import LOOK_AHEAD, OpusGrid
from relay.media.transcoding import Encoded, Transcoder
from relay.vocabulary.audio import AudioFormat, Codec, Frame

FRAME_TICKS = 960
DELAY_TICKS = LOOK_AHEAD
POISON = b"\x66" * 8
"""PCM that makes every encoder fail."""

_TWENTY_MS = b"\xf8"
"""The first byte of a mono packet of 20 ms."""

T = TypeVar("T")


class ToyEncoder(Transcoder):
    """PCM to packets on the frame grid. A packet holds the first samples of its frame."""

    def __init__(self, source: AudioFormat) -> None:
        self.audio_format = AudioFormat(Codec.OPUS, 48_000, source.channels)
        self.failures = 0
        self._source = source
        self._grid = OpusGrid(source.rate)
        self._frame_samples = source.rate * 20 // 1000
        self._pcm = bytearray()
        self._at: int | None = None
        self._end: int | None = None
        self._dues: list[tuple[int, float]] = []

    def take(self, frame: Frame) -> list[Encoded]:
        if frame.audio.startswith(POISON):
            raise ValueError("poison")
        start, audio = frame.start.media_time, frame.audio
        if self._at is None:
            self._at = -(-start // self._frame_samples) * self._frame_samples
        missing = self._at + len(self._pcm) // self._source.sample_bytes - start
        self._pcm += audio[max(0, missing) * self._source.sample_bytes :]
        self._dues.append((start, frame.timestamp))
        self._end = frame.end.media_time
        return self._cut()

    def finish(self) -> list[Encoded]:
        if self._at is None or self._end is None:
            return []
        end = (self._grid.last_before(self._end) + 1) * self._frame_samples
        self._end = None
        self._pcm += bytes((end - self._at) * self._source.sample_bytes - len(self._pcm))
        return self._cut()

    def _cut(self) -> list[Encoded]:
        made = []
        frame_bytes = self._frame_samples * self._source.sample_bytes
        while len(self._pcm) >= frame_bytes:
            assert self._at is not None
            seq = self._at // self._frame_samples
            begun, due = [each for each in self._dues if each[0] <= self._at][-1]
            due += (self._at - begun) / self._source.rate - DELAY_TICKS / 48_000
            packet = _TWENTY_MS + bytes(self._pcm[:40])
            made.append(Encoded(packet, seq, seq * FRAME_TICKS - DELAY_TICKS, FRAME_TICKS, due))
            del self._pcm[:frame_bytes]
            self._at += self._frame_samples
        self._dues = self._dues[-20:]
        return made


class ToyDecoder(Transcoder):
    """Packets to PCM: each sample equals the packet's second byte."""

    def __init__(self, source: AudioFormat) -> None:
        self.audio_format = AudioFormat(Codec.PCM_S16LE, source.rate, source.channels)
        self.failures = 0
        self._source = source

    def take(self, frame: Frame) -> list[Encoded]:
        if POISON in frame.audio:
            raise ValueError("poison")
        rate, start = self._source.rate, frame.start
        first, last = (place.media_time * rate // self._source.clock_rate for place in (start, frame.end))
        samples = last - first
        audio = (frame.audio[1:2] or b"\0") * (samples * self._source.sample_bytes)
        return [Encoded(audio, start.seq, first, samples, frame.timestamp)]

    def finish(self) -> list[Encoded]:
        return []


class ToyRenditions:
    """Every rendition of PCM and Opus."""

    def find(self, source: AudioFormat, wanted: Kind) -> Rendition | None:
        if source.codec is wanted:
            return as_it_is(source)
        if wanted is Codec.OPUS:
            encoder = ToyEncoder(source)
            return Rendition(source, encoder.audio_format, lambda: ToyEncoder(source), OpusGrid(source.rate), 1)
        return Rendition(source, ToyDecoder(source).audio_format, lambda: ToyDecoder(source))


class ToyThread:
    """Runs each call in the event loop, one iteration later."""

    async def call(self, function: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return function()
