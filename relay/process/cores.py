"""The processor cores that this process may use."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""A container's share of the processors, in control groups version 2: `QUOTA PERIOD` in microseconds, or `max`."""


def usable_cores() -> int:
    """Return how many cores this process may use, in a container with `--cpus` too."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        return min(cores, cores_of_quota(_QUOTA.read_text()) or cores)
    except OSError:
        return cores


def cores_of_quota(text: str) -> int | None:
    """Return how many cores a quota amounts to, rounded up. None if there is no quota."""
    quota, _, period = text.strip().partition(" ")
    return math.ceil(int(quota) / int(period)) if quota.isdigit() and period.isdigit() and int(period) else None
