"""Audio files for tests of readers: a tone that a test recognizes by its pitch, written with `wave` or PyAV."""

import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

TONE_HZ = 440


def tone(rate: int, channels: int, seconds: float = 1.0) -> NDArray[np.int16]:
    """Return a tone of shape (samples, channels): half scale in the first channel, a quarter in each other channel."""
    phase = 2 * np.pi * TONE_HZ * np.arange(round(rate * seconds)) / rate
    levels = 16_000.0 / 2 ** np.arange(channels)
    return np.outer(np.sin(phase), levels).astype(np.int16)


def write_wav(path: Path, samples: bytes, rate: int = 16_000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return path


def encode(path: Path, codec: str, samples: NDArray[np.int16], rate: int, layout: str = "mono") -> Path:
    """Encode samples with PyAV, in the container that the file name's suffix selects."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        fifo = av.AudioFifo()
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            converted.pts = None
            fifo.write(converted)
        while piece := fifo.read(stream.codec_context.frame_size or 1024, partial=True):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def pitch(samples: NDArray[np.int16], rate: int) -> float:
    """Return the strongest frequency of one channel, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))
