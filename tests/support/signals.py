"""Sounds as arrays, and a source's PCM as the frames of a channel."""

import io
import wave
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from relay.vocabulary.audio import AudioFormat, Frame, Place

Samples = NDArray[np.float64]

SHIPPED_VOICE = Path(__file__).parent.parent.parent / "relay" / "samples" / "counting.wav"


def read_wav(data: bytes) -> tuple[Samples, int]:
    """Read mono 16-bit WAV. Return its samples and its rate. The length in the header may be wrong."""
    with wave.open(io.BytesIO(data)) as reader:
        return np.frombuffer(reader.readframes(len(data)), "<i2").astype(np.float64), reader.getframerate()


def resample(samples: Samples, rate: int, to_rate: int) -> Samples:
    """Resample a whole signal, without any delay."""
    spectrum = np.fft.rfft(samples)
    count = round(len(samples) * to_rate / rate)
    padded = np.zeros(count // 2 + 1, complex)
    kept = min(len(padded), len(spectrum)) - 1
    padded[:kept] = spectrum[:kept]
    return np.fft.irfft(padded, count) * (count / len(samples))


def to_pcm(samples: Samples) -> bytes:
    """Round to 16-bit samples; the second dimension, if there is one, is the channels."""
    return samples.round().clip(-32768, 32767).astype("<i2").tobytes()


def to_frames(
    pcm: bytes, audio_format: AudioFormat, cuts: Sequence[int], start: int = 0, due: float = 0.0
) -> Iterator[Frame]:
    """Cut PCM at these samples into frames of a channel, whose first sample is `start`."""
    for first, last in pairwise([0, *sorted(cuts), len(pcm) // audio_format.sample_bytes]):
        if first == last:
            continue
        piece = audio_format.measure(pcm[first * audio_format.sample_bytes : last * audio_format.sample_bytes])
        yield Frame(
            piece.audio,
            due + first / audio_format.rate,
            piece.flicks,
            start=Place(first, 1, first, start + first),
            end=Place(last, 1, last, start + last),
            wire=b"",
        )
