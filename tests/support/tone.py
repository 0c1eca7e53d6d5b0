"""Test tones, and a judge of recordings that finds what a person would hear: wrong pitch or level, gaps, clicks."""

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

AMPLITUDE = 0.5
"""The amplitude of every tone here; 1 is full scale."""

CLICK = 0.005
"""A sample that breaks the sine's recurrence by more is a click.

At 997 Hz and 44.1 kHz, playing up to 2000 ppm too fast or too slow breaks it by 0.00004. A 5 ms fade between two places
in opposite phase breaks it by 0.0013. A jump in the waveform breaks it by its height.
"""

_CLICK_APART_SECONDS = 0.005
"""Breaks closer together than this are one click."""

_SILENT = AMPLITUDE / 100
"""Below this level the tone is inaudible; the tones here hardly ever have two such samples in a row."""

_SILENCE_SAMPLES = 32
"""This many silent samples in a row are a silence."""

_LEVEL_SECONDS = 0.1
_PITCH_SECONDS = 1.0


def sine(frequency: int, rate: int, seconds: float) -> Samples:
    """Return a tone. At a whole number of hertz, each whole second continues the one before."""
    return AMPLITUDE * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def to_pcm(*channels: Samples) -> bytes:
    """Return interleaved 16-bit samples."""
    return np.round(np.stack(channels, axis=1) * 32768).clip(-32768, 32767).astype("<i2").tobytes()


def from_pcm(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float64) / 32768


def write_wav(path: Path, samples: Samples, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(to_pcm(samples))


@dataclass(frozen=True, slots=True)
class Click:
    """A jump in the waveform.

    Attributes:
        at: Seconds from the start of the recording.
        height: The deviation from the sine's recurrence; 1 is full scale.
    """

    at: float
    height: float


@dataclass(frozen=True, slots=True)
class Silence:
    """A time without the tone: its start `at` and its length, both in seconds."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The properties of a recorded tone.

    Attributes:
        frequency: The strongest frequency, in Hz: the mean of `frequencies` if there are any.
        level_db: The expected tone's level relative to `AMPLITUDE`, in dB.
        levels_db: The same for every whole 100 ms.
        frequencies: The strongest frequency of every whole second, in Hz.
        clicks: In order.
        silences: In order.
    """

    frequency: float
    level_db: float
    levels_db: tuple[float, ...]
    frequencies: tuple[float, ...]
    clicks: tuple[Click, ...]
    silences: tuple[Silence, ...]

    def worst_level_db(self) -> float:
        """Return the level of the 100 ms that differ most from the sent level."""
        return max(self.levels_db, key=abs, default=self.level_db)

    def worst_pitch_error(self, expected: float) -> float:
        """Return the error of the worst second, in hertz."""
        return max((abs(frequency - expected) for frequency in self.frequencies), default=0.0)


def judge(samples: Samples, rate: int, expected: int) -> Verdict:
    """Judge a recording of a tone of `expected` Hz."""
    frequencies = tuple(_strongest_frequency(part, rate) for part in _parts(samples, round(_PITCH_SECONDS * rate)))
    return Verdict(
        frequency=float(np.mean(frequencies)) if frequencies else _strongest_frequency(samples, rate),
        level_db=_level_db(samples, rate, expected),
        levels_db=tuple(_level_db(part, rate, expected) for part in _parts(samples, round(_LEVEL_SECONDS * rate))),
        frequencies=frequencies,
        clicks=tuple(_find_clicks(samples, rate, expected)),
        silences=tuple(_find_silences(samples, rate)),
    )


def assert_clean_tone(samples: Samples, rate: int, expected: int) -> None:
    """Fail unless the recording is that tone at its original level, without a gap or a click."""
    assert is_clean_tone(samples, rate, expected), judge(samples, rate, expected)


def is_clean_tone(samples: Samples, rate: int, expected: int) -> bool:
    """Whether the recording is that tone at its original level, without a gap or a click."""
    verdict = judge(samples, rate, expected)
    return (
        abs(verdict.frequency - expected) < 0.5
        and verdict.worst_pitch_error(expected) < 0.5
        and abs(verdict.worst_level_db()) < 0.5
        and not verdict.silences
        and not verdict.clicks
    )


def _parts(samples: Samples, length: int) -> Samples:
    """Split into whole parts of that length."""
    count = len(samples) // length
    return samples[: count * length].reshape(count, length)


def _level_db(samples: Samples, rate: int, expected: int) -> float:
    time = np.arange(len(samples)) / rate
    window = np.hanning(len(samples))
    amplitude = 2 * abs(np.sum(samples * window * np.exp(-2j * np.pi * expected * time))) / np.sum(window)
    return float(20 * np.log10(amplitude / AMPLITUDE)) if amplitude > 0 else -np.inf


def _strongest_frequency(samples: Samples, rate: int) -> float:
    size = 4 * len(samples)
    magnitude = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    peak = int(np.clip(np.argmax(magnitude), 1, len(magnitude) - 2))
    left, middle, right = np.log(magnitude[peak - 1 : peak + 2] + 1e-30)
    bend = left - 2 * middle + right
    offset = 0.5 * (left - right) / bend if bend else 0.0
    return float((peak + offset) * rate / size)


def _find_clicks(samples: Samples, rate: int, expected: int) -> list[Click]:
    """Find samples that break the recurrence of a sine: x[n+1] = 2 cos(w) x[n] − x[n−1]."""
    turn = 2 * np.cos(2 * np.pi * expected / rate)
    breaks = np.abs(samples[2:] - turn * samples[1:-1] + samples[:-2])
    found: list[Click] = []
    last = -np.inf
    for index in np.flatnonzero(breaks > CLICK):
        at, height = float((index + 2) / rate), float(breaks[index])
        if at - last < _CLICK_APART_SECONDS:
            found[-1] = Click(found[-1].at, max(found[-1].height, height))
        else:
            found.append(Click(at, height))
        last = at
    return found


def _find_silences(samples: Samples, rate: int) -> list[Silence]:
    silent = (np.abs(samples) < _SILENT).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent, [0]))))
    return [
        Silence(float(start / rate), float((end - start) / rate))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        if end - start >= _SILENCE_SAMPLES
    ]
