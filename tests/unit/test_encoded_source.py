"""Audio of any rate becomes Opus packets that hold all of it."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

from relay.media.encoded import EncodedSource
from relay.media.libopus import OpusDecoder
from relay.media.source import AudioSource
from relay.vocabulary.audio import OPUS_RATES, SAMPLE_RATES, AudioFormat, Codec
from relay.vocabulary.errors import UserError
from tests.support.tone import from_pcm, sine, to_pcm

TONE = 440
SECONDS = 1.0
"""A whole number of packets, so that what the encoder looked ahead needs another one."""


class Tone(AudioSource):
    """A tone in blocks of an odd length, which may break off."""

    def __init__(self, rate: int, channels: int = 1, *, breaks_off: bool = False) -> None:
        self.name = "tone"
        self.audio_format = AudioFormat(rate=rate, channels=channels)
        self.duration_seconds: float | None = SECONDS
        self.damaged_packets = 0
        self.remark: str | None = None
        self._breaks_off = breaks_off
        samples = from_pcm(to_pcm(sine(TONE, rate, math.ceil(SECONDS))))[: round(SECONDS * rate)]
        self._pcm = to_pcm(np.repeat(samples, channels))

    def blocks(self) -> Iterator[bytes]:
        block_bytes = 777 * self.audio_format.sample_bytes
        for start in range(0, len(self._pcm), block_bytes):
            yield self._pcm[start : start + block_bytes]
        self.damaged_packets, self.remark = 3, "odd"
        if self._breaks_off:
            raise UserError("The source broke off.")


def decode(packets: list[bytes], audio_format: AudioFormat) -> bytes:
    decoder = OpusDecoder(48_000, audio_format.channels)
    return b"".join(decoder.decode(packet, audio_format.measure(packet).ticks) for packet in packets)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_source_of_any_rate_is_heard_to_its_end(rate: int, channels: int) -> None:
    source = EncodedSource(Tone(rate, channels), bitrate=48_000 * channels, packet_ms=20)
    assert source.audio_format.codec is Codec.OPUS
    assert source.audio_format.rate == min(each for each in OPUS_RATES if each >= rate)
    packets = list(source.blocks())
    heard = from_pcm(decode(packets, source.audio_format))[312 * channels :: channels]
    end = round(SECONDS * 48_000)
    assert end <= len(heard) < end + 960 + 1200
    loud = np.abs(heard) > 0.05
    assert end - 100 < np.flatnonzero(loud)[-1] < end + 480
    spectrum = np.abs(np.fft.rfft(heard[:48_000]))
    assert np.argmax(spectrum) == TONE
    assert (source.damaged_packets, source.remark) == (3, "odd")


@pytest.mark.parametrize("packet_ms", [5, 10, 20, 40, 60])
def test_packets_are_as_long_and_as_large_as_asked_for(packet_ms: int) -> None:
    source = EncodedSource(Tone(16_000), bitrate=32_000, packet_ms=packet_ms)
    packets = list(source.blocks())
    assert {source.audio_format.measure(packet).seconds for packet in packets} == {packet_ms / 1000}
    assert sum(map(len, packets)) * 8 / SECONDS == pytest.approx(32_000, rel=0.25)
    # A file that is looped is encoded anew.
    assert list(source.blocks()) == packets


def test_what_came_before_a_fault_is_encoded_and_the_fault_told() -> None:
    whole = list(EncodedSource(Tone(16_000), bitrate=24_000, packet_ms=20).blocks())
    packets = []
    with pytest.raises(UserError, match="broke off"):
        for packet in EncodedSource(Tone(16_000, breaks_off=True), bitrate=24_000, packet_ms=20).blocks():
            packets.append(packet)  # noqa: PERF402 - what came before the error counts
    assert packets == whole
