"""How fast something grows, and how sure that is: a straight line through samples, by least squares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Slope:
    """A growth.

    Attributes:
        per_hour: Of the line.
        noise_per_hour: Twice the standard error of it; growth within the noise is none that could be seen.
    """

    per_hour: float
    noise_per_hour: float


def slope(times: Sequence[float], values: Sequence[float]) -> Slope:
    """Fit a line to at least three samples; times are in seconds."""
    count = len(times)
    mean_time, mean_value = sum(times) / count, sum(values) / count
    spread = sum((time - mean_time) ** 2 for time in times)
    pairs = list(zip(times, values, strict=True))
    per_second = sum((time - mean_time) * (value - mean_value) for time, value in pairs) / spread
    rest = sum((value - mean_value - per_second * (time - mean_time)) ** 2 for time, value in pairs)
    error = math.sqrt(rest / (count - 2) / spread)
    return Slope(per_second * HOUR_SECONDS, 2 * error * HOUR_SECONDS)
