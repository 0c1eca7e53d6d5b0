"""Test tones, and a judge of recordings of them that finds what an ear would: wrong pitch or level, gaps, clicks."""

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

AMPLITUDE = 0.5
"""Of every tone here; 1 is full scale."""


def sine(frequency: int, rate: int, seconds: float) -> Samples:
    """Give a tone. Of a whole number of hertz, every whole second of it continues itself."""
    return AMPLITUDE * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def to_pcm(*channels: Samples) -> bytes:
    """Give interleaved 16-bit samples."""
    return np.round(np.stack(channels, axis=1) * 32768).clip(-32768, 32767).astype("<i2").tobytes()


def from_pcm(pcm: bytes) -> Samples:
    """Read mono 16-bit samples."""
    return np.frombuffer(pcm, "<i2").astype(np.float64) / 32768


def write_wav(path: Path, samples: Samples, rate: int) -> None:
    """Write mono samples to a file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(to_pcm(samples))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a recording of a tone is like.

    Attributes:
        frequency: Of the strongest tone, in Hz.
        level_db: Of the expected tone against `AMPLITUDE`, in dB.
        longest_silence: Zeros in a row, in samples.
        worst_break: The most by which a sample breaks the sine's recurrence; the jump of a click, 1 is full scale.
    """

    frequency: float
    level_db: float
    longest_silence: int
    worst_break: float


def judge(samples: Samples, rate: int, expected: int) -> Verdict:
    """Judge a recording of a tone of `expected` Hz."""
    time = np.arange(len(samples)) / rate
    window = np.hanning(len(samples))
    wave_of_expected = np.exp(-2j * np.pi * expected * time)
    amplitude = 2 * abs(np.sum(samples * window * wave_of_expected)) / np.sum(window)
    turn = 2 * np.cos(2 * np.pi * expected / rate)
    breaks = np.abs(samples[2:] - turn * samples[1:-1] + samples[:-2])
    return Verdict(
        frequency=_strongest_frequency(samples * window, rate),
        level_db=float(20 * np.log10(amplitude / AMPLITUDE)) if amplitude > 0 else -np.inf,
        longest_silence=_longest_run(samples == 0),
        worst_break=float(breaks.max()),
    )


def assert_clean_tone(samples: Samples, rate: int, expected: int) -> None:
    """Fail unless the recording is that tone without a gap or a click, at the level at which it was sent."""
    assert is_clean_tone(samples, rate, expected), judge(samples, rate, expected)


def is_clean_tone(samples: Samples, rate: int, expected: int) -> bool:
    """Tell whether the recording is that tone without a gap or a click, at the level at which it was sent."""
    verdict = judge(samples, rate, expected)
    return (
        abs(verdict.frequency - expected) < 0.5
        and abs(verdict.level_db) < 0.5
        and verdict.longest_silence < 32
        and verdict.worst_break < 0.005
    )


def _strongest_frequency(windowed: Samples, rate: int) -> float:
    size = 4 * len(windowed)
    magnitude = np.abs(np.fft.rfft(windowed, size))
    peak = int(np.clip(np.argmax(magnitude), 1, len(magnitude) - 2))
    left, middle, right = np.log(magnitude[peak - 1 : peak + 2] + 1e-30)
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend if bend else 0.0
    return float((peak + offset) * rate / size)


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))
