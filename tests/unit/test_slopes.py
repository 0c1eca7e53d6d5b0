"""The slope of a soak test, on samples with a known slope."""

import random

import pytest

from tests.soak.slopes import slope


def test_a_straight_line_has_its_slope_and_no_noise() -> None:
    found = slope([0.0, 1.0, 2.0, 3.0], [5.0, 7.0, 9.0, 11.0])
    assert found.per_hour == pytest.approx(2 * 3600)
    assert found.noise_per_hour == pytest.approx(0, abs=1e-6)


def test_growth_is_within_its_noise_of_the_truth_and_noise_shrinks_with_time() -> None:
    choice = random.Random(1)  # noqa: S311 - not a secret
    noises = []
    for count in (60, 600):
        times = [float(second) for second in range(count)]
        found = slope(times, [0.01 * time + choice.gauss(0, 1) for time in times])
        assert abs(found.per_hour - 36) <= found.noise_per_hour
        noises.append(found.noise_per_hour)
    assert noises[1] < noises[0] / 10
