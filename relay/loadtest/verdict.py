"""Whether the load generator itself was the bottleneck, so that its latencies say nothing about the server."""

from collections.abc import Iterable
from dataclasses import dataclass

BUSY_LIMIT_PERCENT = 85.0
"""A process that is busier than this in a second lets frames wait in its sockets, and measures its own queue."""

LAG_LIMIT_MS = 25.0
"""An event that waited longer than this in the generator shows in the percentiles."""

ADVICE = "Use more processes (--processes), fewer listeners, or a machine (or CPUs, --pin) that nobody else needs."
"""What a person can do about it."""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process of the generator used while the audio played.

    Attributes:
        name: For people.
        receives: Whether it receives; otherwise it is the main process, which broadcasts and reports.
        cpu_seconds: Its CPU time.
        busy_percent: Its CPU time as a share of one CPU.
        worst_busy_percent: The same in its busiest second, with the time that it waited for a CPU others had.
        worst_waiting_percent: The share of that second in which it waited for a CPU.
        busy_seconds: In how many seconds it was over `BUSY_LIMIT_PERCENT`.
        lag_ms: The longest that an event waited for its turn; of the main process, how late a frame was sent.
    """

    name: str
    receives: bool
    cpu_seconds: float
    busy_percent: float
    worst_busy_percent: float
    worst_waiting_percent: float
    busy_seconds: int
    lag_ms: float


def bottlenecks(processes: Iterable[ProcessUse]) -> list[str]:
    """Say of each process that was too busy or too late what it was, one sentence each."""
    return [sentence for process in processes for sentence in _bottlenecks_of(process)]


def _bottlenecks_of(process: ProcessUse) -> list[str]:
    sentences = []
    if process.busy_seconds:
        waiting = process.worst_waiting_percent
        shared = f", {waiting:.0f} % of it waiting for a CPU that others had" if waiting >= 1 else ""
        sentences.append(
            f"{process.name} was busy for up to {process.worst_busy_percent:.0f} % of a second{shared} "
            f"(over {BUSY_LIMIT_PERCENT:.0f} % for {process.busy_seconds} s)."
        )
    if process.lag_ms > LAG_LIMIT_MS:
        did = "let an event wait" if process.receives else "sent a frame late by"
        sentences.append(f"{process.name} {did} {process.lag_ms:.0f} ms.")
    return sentences
