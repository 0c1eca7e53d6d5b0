"""The judges of recordings find every deliberate defect, and none in clean audio."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.ruler import PERIOD_SECONDS, TONE, follow, noise, ruler
from tests.support.tone import Samples, is_clean_tone, judge, sine

RATE = 44_100
SECONDS = 4
AT = 2.003
"""Position of the defect in seconds. The tone does not cross zero there."""


def tone(seconds: float = SECONDS) -> Samples:
    return sine(TONE, RATE, seconds)


def at(seconds: float) -> int:
    return round(seconds * RATE)


def resampled(signal: Samples, ppm: float) -> Samples:
    """Play a signal too fast. The interpolation is exact for a band-limited, periodic signal."""
    spectrum = np.fft.rfft(signal)
    size = round(len(signal) / (1 + ppm * 1e-6))
    played: Samples = np.fft.irfft(spectrum[: size // 2 + 1], size) * (size / len(signal))
    return played


def faded(before: Samples, after: Samples, seconds: float) -> Samples:
    """Join two signals with a crossfade."""
    fade = np.linspace(0, 1, at(seconds))
    middle = before[-len(fade) :] * (1 - fade) + after[: len(fade)] * fade
    return np.concatenate((before[: -len(fade)], middle, after[len(fade) :]))


def test_clean_tone_is_clean() -> None:
    assert is_clean_tone(tone(), RATE, TONE)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_rounded_tone_is_clean(rate: int) -> None:
    assert is_clean_tone(np.round(sine(TONE, rate, 2) * 32768) / 32768, rate, TONE)


@pytest.mark.parametrize("ppm", [-2000, -400, 400, 2000])
def test_slow_resampling_is_no_click_but_a_change_of_pitch(ppm: int) -> None:
    verdict = judge(resampled(tone(), ppm), RATE, TONE)
    assert verdict.clicks == ()
    assert verdict.silences == ()
    assert verdict.worst_pitch_error(TONE) == pytest.approx(abs(TONE * ppm * 1e-6), abs=0.01)
    assert is_clean_tone(resampled(tone(), ppm), RATE, TONE) == (abs(ppm) < 500)


def lost_sample(samples: Samples) -> Samples:
    return np.delete(samples, at(AT))


def repeated_block(samples: Samples) -> Samples:
    return np.insert(samples, at(AT), samples[at(AT) - 128 : at(AT)])


def lost_block(samples: Samples) -> Samples:
    return np.delete(samples, range(at(AT), at(AT) + 128))


def zeroed(samples: Samples) -> Samples:
    return np.concatenate((samples[: at(AT)], np.zeros(32), samples[at(AT) + 32 :]))


def lifted(samples: Samples) -> Samples:
    return np.where(np.arange(len(samples)) >= at(AT), samples + 0.02, samples)


def spike(samples: Samples) -> Samples:
    return np.where(np.arange(len(samples)) == at(AT), samples + 0.01, samples)


@pytest.mark.parametrize("defect", [lost_sample, lost_block, repeated_block, zeroed, lifted, spike])
def test_click_is_found_where_it_is(defect: Callable[[Samples], Samples]) -> None:
    verdict = judge(defect(tone()), RATE, TONE)
    assert [click.at for click in verdict.clicks] == [pytest.approx(AT, abs=0.002)]
    assert not is_clean_tone(defect(tone()), RATE, TONE)


def test_gap_is_found_with_its_length() -> None:
    gap = np.ones(at(SECONDS))
    gap[at(AT) : at(AT + 0.1)] = 0
    # Fade out and in, so that the gap has no click.
    gap = np.convolve(gap, np.hanning(at(0.02)) / np.hanning(at(0.02)).sum(), "same")
    verdict = judge(tone() * gap, RATE, TONE)
    assert [silence.at for silence in verdict.silences if 1 < silence.at < 3] == [pytest.approx(AT, abs=0.02)]
    assert verdict.silences[-1].seconds == pytest.approx(0.1, abs=0.02)
    assert [click for click in verdict.clicks if 1 < click.at < 3] == []


def test_level_of_a_moment_is_found() -> None:
    quiet = np.ones(at(SECONDS))
    quiet[at(AT) : at(AT + 0.2)] = 0.9
    verdict = judge(tone() * quiet, RATE, TONE)
    assert abs(verdict.level_db) < 0.1
    assert verdict.worst_level_db() == pytest.approx(-0.9, abs=0.1)


def test_nothing_at_all_is_one_silence() -> None:
    verdict = judge(np.zeros(at(1)), RATE, TONE)
    assert [silence.seconds for silence in verdict.silences] == [1]


def test_ruler_is_the_same_signal_at_every_rate() -> None:
    for slow, fast in zip(ruler(16_000), ruler(48_000), strict=True):
        assert np.abs(slow - fast[::3]).max() < 1e-9
    assert np.abs(noise(48_000)).max() < 0.9


def test_ruler_is_followed_through_its_seam() -> None:
    start = PERIOD_SECONDS - 2
    recording = np.concatenate((noise(RATE), noise(RATE)))[at(start) : at(start + SECONDS)]
    path = follow(recording, RATE)
    assert path.jumps == []
    assert path.unknown_seconds == 0
    assert np.abs(path.places - path.times - start).max() < 1e-5


@pytest.mark.parametrize("ppm", [-2000, 2000])
def test_ruler_is_followed_while_it_is_resampled(ppm: int) -> None:
    path = follow(resampled(noise(RATE), ppm)[: at(SECONDS)], RATE)
    assert path.jumps == []
    assert path.unknown_seconds == 0
    assert path.places[-1] - path.places[0] == pytest.approx(
        (path.times[-1] - path.times[0]) * (1 + ppm * 1e-6), abs=1e-4
    )


@pytest.mark.parametrize("seconds", [0.001, 0.02, 1.0, 7.0, -0.001, -0.02, -1.0])
@pytest.mark.parametrize("fade", [0, 0.02])
def test_skip_and_repeat_are_found_with_their_length(seconds: float, fade: float) -> None:
    signal = noise(RATE)
    before, after = signal[at(10) : at(12 + fade)], signal[at(12 + seconds) : at(14 + seconds)]
    path = follow(faded(before, after, fade) if fade else np.concatenate((before, after)), RATE)
    (jump,) = path.jumps
    assert jump.at == pytest.approx(2, abs=0.04)
    assert jump.seconds == pytest.approx(seconds, abs=1e-4)
    assert path.unknown_seconds < 0.05


def test_what_is_missing_under_a_silence_is_found() -> None:
    signal = noise(RATE)
    path = follow(np.concatenate((signal[: at(1)], np.zeros(at(0.5)), signal[at(1) : at(2)])), RATE)
    (jump,) = path.jumps
    assert jump.at == pytest.approx(1, abs=0.02)
    assert jump.seconds == pytest.approx(-0.5, abs=1e-4)
    assert jump.left_out == pytest.approx(0, abs=0.03)
    assert path.unknown_seconds == pytest.approx(0.5, abs=0.03)


def test_what_was_left_out_under_a_silence_is_found() -> None:
    signal = noise(RATE)
    path = follow(np.concatenate((signal[: at(1)], np.zeros(at(0.5)), signal[at(1.5) : at(2)])), RATE)
    (jump,) = path.jumps
    assert jump.seconds == pytest.approx(0, abs=1e-4)
    assert jump.left_out == pytest.approx(0.5, abs=0.03)


def test_stretched_ruler_is_followed() -> None:
    """After every 200 ms, the recording skips 10 ms with a crossfade, which speeds it up by a factor of 1.05."""
    signal = noise(RATE)
    recording = signal[: at(0.2)]
    for piece in range(1, 15):
        recording = faded(recording, signal[at(piece * 0.21 - 0.01) : at(piece * 0.21 + 0.2)], 0.01)
    path = follow(recording, RATE)
    assert path.unknown_seconds < 0.3
    assert all(jump.seconds < 0.03 for jump in path.jumps)
    speed = np.polyfit(path.times[~np.isnan(path.places)], path.places[~np.isnan(path.places)], 1)[0]
    assert speed == pytest.approx(1.05, abs=0.005)


def test_what_is_not_of_the_ruler_has_no_place() -> None:
    path = follow(np.random.default_rng(1).normal(0, 0.1, at(0.2)), RATE)
    assert np.isnan(path.places).all()
    assert path.unknown_seconds == pytest.approx(0.2, abs=0.03)
