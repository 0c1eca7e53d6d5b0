"""A stereo test signal in which every moment is unlike every other, so that a recording tells what was played when.

Left is a tone, whose slightest break shows. Right is noise made of a fixed spectrum: any 20 ms of it occur once, so
the place of a piece of a recording in the signal, and with it each skip, repeat and stretch, can be found. The
spectrum describes one continuous periodic signal; every sample rate samples that same one.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.support.tone import AMPLITUDE, Samples, to_pcm

PERIOD_SECONDS = 60
"""After this the signal begins again, without a seam."""

TONE = 997
"""Hertz of the left channel; a whole number, so that it fits into the period."""

_NOISE_BAND = (300, 5000)
"""Hertz; any rate from 11 025 up carries it."""

_NOISE_RMS = 0.1

_BLOCK_SECONDS = 0.02
_HOP_SECONDS = 0.01


_AROUND_SECONDS = (0.001, 0.1, 10)
"""How far from where it is expected a block is looked for, one after the other; no buffer on the way holds more."""

_PATIENCE = 10
"""Blocks between two searches of the whole signal, which take long."""

_LIKE = 0.9
"""Least correlation of what is recognized. A block that is stretched by 2000 ppm has 0.99, one found by chance 0.5."""

_SAME_SECONDS = 0.0005
"""Blocks whose places differ by less follow each other; ±2000 ppm shift the next block by 20 µs."""


@cache
def noise(rate: int) -> Samples:
    """Give one period of the right channel."""
    bins = np.arange(_NOISE_BAND[0] * PERIOD_SECONDS, _NOISE_BAND[1] * PERIOD_SECONDS)
    spectrum = np.zeros(rate * PERIOD_SECONDS // 2 + 1, complex)
    spectrum[bins] = np.exp(2j * np.pi * np.random.default_rng(997).random(len(bins)))
    samples = np.fft.irfft(spectrum, rate * PERIOD_SECONDS)
    scaled: Samples = samples * (_NOISE_RMS / np.sqrt(np.mean(samples**2)))
    return scaled


@cache
def ruler(rate: int) -> tuple[Samples, Samples]:
    """Give one period of both channels."""
    time = np.arange(rate * PERIOD_SECONDS) / rate
    return AMPLITUDE * np.sin(2 * np.pi * TONE * time), noise(rate)


@cache
def ruler_pcm(rate: int) -> bytes:
    """Give one period as interleaved 16-bit samples."""
    return to_pcm(*ruler(rate))


@dataclass(frozen=True, slots=True)
class Jump:
    """A place where a recording does not go on where it was.

    Attributes:
        at: Seconds from the beginning of the recording.
        seconds: How much further ahead the signal is than the recording, compared with before.
        unknown: How long nothing of the signal was heard before it went on: silence, or something else.
    """

    at: float
    seconds: float
    unknown: float

    @property
    def left_out(self) -> float:
        """Seconds of the signal that were not heard; negative: heard again. Exact to 30 ms."""
        return self.seconds + self.unknown


@dataclass(frozen=True, slots=True)
class Path:
    """Which part of the signal was heard when.

    Attributes:
        times: Seconds from the beginning of the recording, every 10 ms.
        places: Seconds from the beginning of the signal, modulo its period at the start and then counted on; NaN
            where nothing of it was recognized.
    """

    times: NDArray[np.float64]
    places: NDArray[np.float64]

    @property
    def jumps(self) -> list[Jump]:
        """All of them, in order; what was not recognized in between is part of the jump."""
        known = ~np.isnan(self.places)
        times, ahead = self.times[known], (self.places - self.times)[known]
        steps, missing = np.diff(ahead), np.diff(times) - _HOP_SECONDS
        found: list[Jump] = []
        for index in np.flatnonzero((np.abs(steps) > _SAME_SECONDS) | (missing > _BLOCK_SECONDS)):
            jump = Jump(float(times[index]), float(steps[index]), float(missing[index]))
            # Blocks that straddle a splice are recognized on one side or the other: one jump, not several.
            if found and jump.at - found[-1].at - found[-1].unknown < 2 * _BLOCK_SECONDS:
                before = found.pop()
                jump = Jump(before.at, before.seconds + jump.seconds, before.unknown + jump.unknown)
            found.append(jump)
        return [jump for jump in found if abs(jump.seconds) > _SAME_SECONDS or jump.unknown > _BLOCK_SECONDS]

    @property
    def unknown_seconds(self) -> float:
        """How long in all nothing of the signal was recognized between the first and the last of it."""
        known = np.flatnonzero(~np.isnan(self.places))
        if len(known) == 0:
            return float(len(self.places) * _HOP_SECONDS)
        return float((known[-1] - known[0] + 1 - len(known)) * _HOP_SECONDS)


def follow(right: Samples, rate: int) -> Path:
    """Find for every 10 ms of a recorded right channel the place in the signal."""
    finder = _Finder(rate)
    block, hop = round(_BLOCK_SECONDS * rate), round(_HOP_SECONDS * rate)
    starts = np.arange(0, len(right) - block + 1, hop)
    places = np.array([finder.find(right[start : start + block], int(start)) for start in starts])
    return Path(starts / rate + _BLOCK_SECONDS / 2, places + _BLOCK_SECONDS / 2)


class _Finder:
    """Looks for block after block: first everywhere, then where the one before lets expect it, then around there."""

    def __init__(self, rate: int) -> None:
        self._signal = noise(rate)
        self._rate = rate
        self._block = round(_BLOCK_SECONDS * rate)
        self._ahead: float | None = None  # samples that the signal is ahead of the recording
        self._patience = 0

    def find(self, block: Samples, start: int) -> float:
        """Give the seconds into the signal of the block that starts at a sample of the recording, or NaN."""
        if np.sqrt(np.mean(block**2)) < _NOISE_RMS / 10:
            return np.nan
        if self._ahead is not None:
            expected = round(start + self._ahead)
            reaches = (round(seconds * self._rate) for seconds in _AROUND_SECONDS)
            found = (self._search(block, expected - reach, 2 * reach + 1) for reach in reaches)
            place = next((place for place in found if place is not None), None)
        elif self._patience:
            self._patience -= 1
            place = None
        else:
            self._patience = _PATIENCE
            place = self._search(block, 0, len(self._signal))
        if place is None:
            return np.nan
        self._ahead = place - start
        return place / self._rate

    def _search(self, block: Samples, first: int, count: int) -> float | None:
        """Find the best of `count` places from `first` on; None when none is good."""
        piece = self._signal.take(range(first, first + count + self._block - 1), mode="wrap")
        if count > self._block:
            size = 1 << (len(piece) - 1).bit_length()
            likeness = np.fft.irfft(np.fft.rfft(piece, size) * np.fft.rfft(block, size).conj(), size)[:count]
        else:
            likeness = np.correlate(piece, block, "valid")
        energy = np.concatenate(([0.0], np.cumsum(piece**2)))
        likeness = likeness / np.sqrt((energy[self._block :] - energy[: -self._block]) * np.sum(block**2))
        best = int(np.argmax(likeness))
        return first + best + _vertex(likeness, best) if likeness[best] > _LIKE else None


def _vertex(values: Samples, index: int) -> float:
    """Give how far from `index` the top of a parabola through three neighbours is."""
    if not 0 < index < len(values) - 1:
        return 0.0
    left, middle, right = values[index - 1 : index + 2]
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend else 0.0
