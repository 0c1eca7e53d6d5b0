"""The CPU time that other programs used during a measurement: the total minus the measured processes.

Source: proc(5), /proc/stat. Interrupts do not count, because on loopback the measured processes cause them.
"""

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LIMIT_PERCENT = 5.0
"""If others use more than this share of a CPU, the report marks the figure."""

_STAT = Path("/proc/stat")
_TICKS = os.sysconf("SC_CLK_TCK")
_USER, _NICE, _SYSTEM, _STEAL = 0, 1, 2, 7


@dataclass(frozen=True)
class CpuTimes:
    """The CPU seconds spent on processes and on other machines of the same hardware."""

    working: float
    stolen: float


def read_cpu_times(text: str) -> dict[int, CpuTimes]:
    """Parse /proc/stat."""
    times = {}
    for line in text.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(number) for number in numbers]
            working = ticks[_USER] + ticks[_NICE] + ticks[_SYSTEM]
            times[int(name[3:])] = CpuTimes(working / _TICKS, ticks[_STEAL] / _TICKS)
    return times


@dataclass(frozen=True)
class Disturbance:
    """The share of a CPU that others used, in per cent.

    Attributes:
        cpu: The number of the CPU.
        others: Processes outside the measurement.
        stolen: Other machines on the same hardware.
    """

    cpu: int
    others: float
    stolen: float

    @property
    def is_worth_telling(self) -> bool:
        return max(self.others, self.stolen) > LIMIT_PERCENT

    def __str__(self) -> str:
        stolen = f", other machines {self.stolen:.0f} %" if self.stolen > LIMIT_PERCENT else ""
        return f"other processes took {self.others:.0f} % of CPU {self.cpu}{stolen}"


class Witness:
    """Watches the CPUs of the server and of the generator from its creation until `tell`.

    The generator is this process with those of its children that exit during the measurement.
    """

    def __init__(self, server_pid: int, server_cpu: int, generator_cpu: int) -> None:
        self._server_pid = server_pid
        self._cpus = (server_cpu, generator_cpu)
        self._began = time.perf_counter()
        self._times = read_cpu_times(_STAT.read_text())
        self._used = (_family_seconds(server_pid), _own_seconds())

    def tell(self) -> list[Disturbance]:
        """Return what others used of each CPU since the beginning."""
        seconds = time.perf_counter() - self._began
        times = read_cpu_times(_STAT.read_text())
        used = (_family_seconds(self._server_pid), _own_seconds())
        return [
            compare(cpu, self._times[cpu], times[cpu], after - before, seconds)
            for cpu, before, after in zip(self._cpus, self._used, used, strict=True)
        ]


def compare(cpu: int, before: CpuTimes, after: CpuTimes, measured_seconds: float, seconds: float) -> Disturbance:
    """Return what others used of a CPU in `seconds`, of which the measured processes used `measured_seconds`."""
    others = max(0.0, after.working - before.working - measured_seconds)
    return Disturbance(cpu, 100 * others / seconds, 100 * (after.stolen - before.stolen) / seconds)


def worst(disturbances: Sequence[Disturbance]) -> list[Disturbance]:
    """Return the worst disturbance of each CPU over several measurements, if it is large enough to report."""
    by_cpu: dict[int, Disturbance] = {}
    for one in disturbances:
        if one.is_worth_telling and (one.cpu not in by_cpu or one.others > by_cpu[one.cpu].others):
            by_cpu[one.cpu] = one
    return [by_cpu[cpu] for cpu in sorted(by_cpu)]


def _family_seconds(pid: int) -> float:
    process = psutil.Process(pid)
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total


def _own_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
