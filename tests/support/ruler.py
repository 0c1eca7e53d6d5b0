"""A stereo test signal in which every moment is unique, so a recording shows what was played when.

The left channel is a tone, which reveals the slightest break. The right channel is noise with a fixed spectrum: any 20
ms of it occur once, so a test can locate a piece of a recording and find each skip, repeat and stretch. The spectrum
describes one continuous periodic signal, which every sample rate samples.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.support.tone import AMPLITUDE, Samples, to_pcm

PERIOD_SECONDS = 30
"""The signal repeats after this time, without a seam."""

TONE = 997
"""The frequency of the left channel, in hertz; a whole number, so that it fits into the period."""

_NOISE_BAND = (300, 5000)
"""In hertz; every rate from 11 025 up can carry it."""

_NOISE_RMS = 0.1

_BLOCK_SECONDS = 0.02
_HOP_SECONDS = 0.01

_NEAR_SECONDS = (0.001, 0.1)
"""The search for a block widens from its expected place in these steps."""

_FAR_SECONDS = 10
"""The largest possible jump; no buffer on the way holds more."""

_PATIENCE = 5
"""How many blocks to skip between two slow searches, of that range or of the whole signal."""

_LIKE = 0.9
"""The lowest correlation that counts as recognized. A block stretched by 2000 ppm has 0.99, a chance match 0.5."""

_SAME_SECONDS = 0.0005
"""Blocks whose places differ by less are continuous; ±2000 ppm shift the next block by 20 µs."""


@cache
def noise(rate: int) -> Samples:
    """Return one period of the right channel."""
    bins = np.arange(_NOISE_BAND[0] * PERIOD_SECONDS, _NOISE_BAND[1] * PERIOD_SECONDS)
    spectrum = np.zeros(rate * PERIOD_SECONDS // 2 + 1, complex)
    spectrum[bins] = np.exp(2j * np.pi * np.random.default_rng(997).random(len(bins)))
    samples = np.fft.irfft(spectrum, rate * PERIOD_SECONDS)
    scaled: Samples = samples * (_NOISE_RMS / np.sqrt(np.mean(samples**2)))
    return scaled


@cache
def ruler(rate: int) -> tuple[Samples, Samples]:
    """Return one period of both channels."""
    time = np.arange(rate * PERIOD_SECONDS) / rate
    return AMPLITUDE * np.sin(2 * np.pi * TONE * time), noise(rate)


@cache
def ruler_pcm(rate: int) -> bytes:
    """Return one period as interleaved 16-bit samples."""
    return to_pcm(*ruler(rate))


@dataclass(frozen=True, slots=True)
class Jump:
    """A place where a recording does not continue with the next part of the signal.

    Attributes:
        at: Seconds from the start of the recording.
        seconds: How far the signal moved ahead of the recording.
        silent: Seconds of silence before the signal continued.
    """

    at: float
    seconds: float
    silent: float

    @property
    def left_out(self) -> float:
        """Return the seconds of the signal that were skipped (negative: repeated); exact to 30 ms after a silence."""
        return self.seconds + self.silent


@dataclass(frozen=True, slots=True)
class Path:
    """Which part of the signal was heard when.

    Attributes:
        times: Seconds from the start of the recording, every 10 ms.
        places: Seconds from the start of the signal. The first is modulo the period, and the others count on from it;
            NaN where nothing was recognized.
        silent: Where nothing was heard.
    """

    times: NDArray[np.float64]
    places: NDArray[np.float64]
    silent: NDArray[np.bool_]

    @property
    def jumps(self) -> list[Jump]:
        """Return all jumps in order, including pauses after which the signal continued at the same place."""
        known = ~np.isnan(self.places)
        times, ahead = self.times[known], (self.places - self.times)[known]
        silent = np.diff(np.cumsum(self.silent)[known]) * _HOP_SECONDS
        steps = np.diff(ahead)
        return [
            Jump(float(times[index]), float(steps[index]), float(silent[index]))
            for index in np.flatnonzero((np.abs(steps) > _SAME_SECONDS) | (silent > 0))
        ]

    @property
    def unknown_seconds(self) -> float:
        """Return how many seconds between the first and last recognized part were not recognized."""
        known = np.flatnonzero(~np.isnan(self.places))
        if len(known) == 0:
            return float(len(self.places) * _HOP_SECONDS)
        return float((known[-1] - known[0] + 1 - len(known)) * _HOP_SECONDS)


def follow(right: Samples, rate: int) -> Path:
    """Locate every 10 ms of a recorded right channel in the signal."""
    finder = _Finder(rate)
    block, hop = round(_BLOCK_SECONDS * rate), round(_HOP_SECONDS * rate)
    starts = np.arange(0, len(right) - block + 1, hop)
    places = np.full(len(starts), np.nan)
    for index, start in enumerate(starts):
        places[index] = finder.find(right[start : start + block], int(start))
        # A full search is rare. Its result also holds for the blocks before it that were not searched.
        before = index - 1
        while places[index] == places[index] and 0 <= before > index - _PATIENCE and np.isnan(places[before]):
            first = starts[before]
            places[before] = finder.find_near(right[first : first + block], int(first))
            before -= 1
    silent = np.array([_is_faint(right[start : start + block]) for start in starts], bool)
    return Path(starts / rate + _BLOCK_SECONDS / 2, places + _BLOCK_SECONDS / 2, silent)


class _Finder:
    """Locates blocks: the first one anywhere, each later one where the previous block predicts it, then nearby."""

    def __init__(self, rate: int) -> None:
        self._signal = noise(rate)
        self._rate = rate
        self._near = [round(seconds * rate) for seconds in _NEAR_SECONDS]
        self._far = _FAR_SECONDS * rate
        self._block = round(_BLOCK_SECONDS * rate)
        self._ahead: float | None = None  # by how many samples the signal is ahead of the recording
        self._patience = 0

    def find(self, block: Samples, start: int) -> float:
        """Locate the block that starts at a sample of the recording: seconds into the signal, or NaN."""
        place = self.find_near(block, start)
        if not np.isnan(place) or _is_faint(block):
            self._patience = 0
            return place
        if self._patience:
            self._patience -= 1
            return np.nan
        self._patience = _PATIENCE
        if self._ahead is None:
            found = self._search(block, 0, len(self._signal))
        else:
            found = self._search(block, round(start + self._ahead) - self._far, 2 * self._far)
        if found is None:
            return np.nan
        self._ahead = found - start
        self._patience = 0
        return found / self._rate

    def find_near(self, block: Samples, start: int) -> float:
        """Look for a block only at the place that the last located block predicts."""
        if self._ahead is None or _is_faint(block):
            return np.nan
        for near in self._near:
            found = self._search(block, round(start + self._ahead) - near, 2 * near + 1)
            if found is not None:
                self._ahead = found - start
                return found / self._rate
        return np.nan

    def _search(self, block: Samples, first: int, count: int) -> float | None:
        """Return the best of `count` places from `first` on, or None if none is good."""
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


def _is_faint(block: Samples) -> bool:
    return bool(np.sqrt(np.mean(block**2)) < _NOISE_RMS / 10)


def _vertex(values: Samples, index: int) -> float:
    """Return how far from `index` the vertex of a parabola through three neighbours is."""
    if not 0 < index < len(values) - 1:
        return 0.0
    left, middle, right = values[index - 1 : index + 2]
    bend = left - 2 * middle + right
    return float(0.5 * (left - right) / bend) if bend else 0.0
