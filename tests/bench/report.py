"""The output of the benchmarks: figures as medians with their range, verdicts, Markdown and JSON."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

DISTURBED = "†"
"""Marks a figure that was measured while something else used the CPUs."""


class Verdict(StrEnum):
    AIM = "aim met"
    LEAST = "met"
    MISSED = "**missed**"
    NONE = ""


@dataclass(frozen=True)
class Spread:
    """One figure over several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(median(self.values))

    def text(self, digits: int = 0) -> str:
        """Return the median, with the lowest and highest value if there are several."""
        middle = _number(self.median, digits)
        low, high = (_number(value, digits) for value in (min(self.values), max(self.values)))
        return middle if low == high else f"{middle} ({low}–{high})"


def _number(value: float, digits: int) -> str:
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def ratios(ones: Sequence[float], others: Sequence[float]) -> Spread:
    """Divide one figure by another, round by round, because only measurements made close together are comparable."""
    return Spread(tuple(one / other for one, other in zip(ones, others, strict=True)))


def judge(value: float, least: float | None, aim: float | None) -> Verdict:
    """Compare a figure with its targets, which are upper limits."""
    if aim is not None and value <= aim:
        return Verdict.AIM
    if least is None:
        return Verdict.NONE
    return Verdict.LEAST if value <= least else Verdict.MISSED


@dataclass(frozen=True)
class Line:
    """A line of the table of targets.

    Attributes:
        what: What was measured.
        figure: The result in words.
        value: The result as a number, which the targets limit.
        least: The required target, an upper limit of the value; None without one.
        aim: The desired target, an upper limit of the value; None without one.
        unit: The unit of the targets.
        disturbed: What else used the CPUs; empty if nothing did.
    """

    what: str
    figure: str
    value: float
    least: float | None = None
    aim: float | None = None
    unit: str = ""
    disturbed: str = ""

    @property
    def verdict(self) -> Verdict:
        return judge(self.value, self.least, self.aim)

    @property
    def has_target(self) -> bool:
        return self.least is not None or self.aim is not None

    def markdown(self) -> str:
        mark = DISTURBED if self.disturbed else ""
        if not self.has_target:
            return f"| {self.what} | {self.figure}{mark} |"
        targets = " | ".join("" if target is None else f"≤ {target:g}{self.unit}" for target in (self.least, self.aim))
        return f"| {self.what} | {self.figure}{mark} | {targets} | {self.verdict} |"


@dataclass
class Report:
    """All results of a run.

    Attributes:
        lines: The table of targets.
        capacity: The second table: for each server, the result at each number of listeners.
        missing: Servers that are not installed, and how to install them.
        notes: Remarks about the measurement.
        failures: Rows that could not be measured, and why.
        seconds: How long each row took.
    """

    lines: list[Line] = field(default_factory=list)
    capacity: dict[str, dict[int, str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a target was missed or could not be checked."""
        return bool(self.failures) or any(line.verdict is Verdict.MISSED for line in self.lines)

    def markdown(self) -> str:
        parts = [describe_machine()]
        held = [line for line in self.lines if line.has_target]
        if held:
            head = ["| what | figure | at least | aim | |", "|---|---|---|---|---|"]
            parts.append("\n".join([*head, *(line.markdown() for line in held)]))
        if facts := [line for line in self.lines if not line.has_target]:
            head = ["| for comparison | figure |", "|---|---|"]
            parts.append("\n".join([*head, *(line.markdown() for line in facts)]))
        if self.capacity:
            parts.append(capacity_markdown(self.capacity))
        if disturbed := [f"- {line.what}: {line.disturbed}" for line in self.lines if line.disturbed]:
            parts.append("\n".join([f"{DISTURBED} measured while something else ran, at worst:", "", *disturbed]))
        if told := [*self.failures, *self.notes]:
            parts.append("\n".join(f"- {sentence}" for sentence in told))
        if self.missing:
            missing = [f"- {name}: `{install}`" for name, install in self.missing.items()]
            parts.append("\n".join(["Not installed, so not measured:", "", *missing]))
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        lines: list[dict[str, Any]] = [asdict(line) | {"verdict": line.verdict.strip("*")} for line in self.lines]
        for line in lines:
            line["value"] = None if math.isinf(line["value"]) else line["value"]
        members = {"machine": describe_machine(), "lines": lines}
        rest = {name: getattr(self, name) for name in ("capacity", "missing", "notes", "failures", "seconds")}
        return json.dumps(members | rest, indent=1, ensure_ascii=False) + "\n"


def capacity_markdown(capacity: Mapping[str, Mapping[int, str]]) -> str:
    """Return the second table: a column per server, a row per listener count, `–` where nothing was measured."""
    counts = sorted({count for cells in capacity.values() for count in cells})
    names = list(capacity)
    rows = [[f"{count:,}", *(capacity[name].get(count, "–") for name in names)] for count in counts]
    head = ["50 frames/s to", *names]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def describe_machine() -> str:
    """Describe where and when the measurement takes place, in one line."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} CPUs ({model}), Linux {platform.release()}, "
        f"Python {platform.python_version()}, websockets {version('websockets')}."
    )
