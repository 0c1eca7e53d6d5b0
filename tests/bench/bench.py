"""The bench that rows are measured on: servers that are there, rounds, warm-up, and what to say on the way."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from relay.loadtest.plan import LoadPlan
from tests.bench.disturbance import Disturbance, worst
from tests.bench.measure import Measured, measure
from tests.bench.report import Line, Report, Spread
from tests.bench.servers import GENERATOR_CPU, Server, peers, relay

WARM_UP_LISTENERS = 50
WARM_UP_SECONDS = 0.5

Result = TypeVar("Result")


@dataclass
class Bench:
    """What all rows share.

    Attributes:
        rounds: How often each figure with a target is measured.
        seconds: Audio of each measurement.
        nap_ms: How long the receiver sleeps between two looks at its sockets.
        relays: The relay on each event loop that is there.
        peers: The other servers that are there.
        report: What was measured so far.
    """

    rounds: int
    seconds: float
    nap_ms: float
    relays: list[Server] = field(default_factory=list)
    peers: list[Server] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self._began = time.perf_counter()
        for server in [relay(), relay("relay on uvloop", "uvloop"), *peers()]:
            if server.missing is not None:
                self.report.missing[server.name] = server.missing
            elif server.name.startswith("relay"):
                self.relays.append(server)
            else:
                self.peers.append(server)

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal."""
        minutes, seconds = divmod(int(time.perf_counter() - self._began), 60)
        print(f"[{minutes:2}:{seconds:02}] {sentence}", file=sys.stderr, flush=True)

    def warm_up(self, servers: Sequence[Server]) -> None:
        """Run each server once for a moment: files are read, code is compiled, and what does not work is told now."""
        for server in servers:
            self.say(f"warming up {server.name}")
            plan = self.plan(WARM_UP_LISTENERS, duration_seconds=WARM_UP_SECONDS)
            measured = measure(server, plan)
            if measured.lost or measured["delivered_frames"] == 0:
                raise SystemExit(f"{server.name} does not work: {measured.result.metrics()}")

    def plan(self, listeners: int, **members: Any) -> LoadPlan:
        """What happens in a measurement, unless `members` say otherwise."""
        given: dict[str, Any] = {"duration_seconds": self.seconds, "cpus": (GENERATOR_CPU,), "nap_ms": self.nap_ms}
        return LoadPlan("", listeners=listeners, **given | members)

    def measure(self, server: Server, listeners: int, **members: Any) -> Measured:
        """Measure a server once."""
        self.say(f"{server.name}: {listeners} listeners {', '.join(f'{k} {v}' for k, v in members.items())}".rstrip())
        measured = measure(server, self.plan(listeners, **members))
        if measured.result.bottlenecks:
            self.say("  the generator was the bottleneck: " + " ".join(measured.result.bottlenecks))
        return measured

    def alternate(self, runs: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
        """Run all in turn, `rounds` times; gives each one's results."""
        results: dict[str, list[Result]] = {name: [] for name in runs}
        for _ in range(self.rounds):
            for name, run in runs.items():
                results[name].append(run())
        return results

    def row(self, what: str, figure: str, value: float, runs: Sequence[Measured], **targets: Any) -> None:
        """Add a line to the table, and show it."""
        disturbances: list[Disturbance] = [one for run in runs for one in run.disturbances]
        line = Line(what, figure, value, disturbed="; ".join(map(str, worst(disturbances))), **targets)
        self.report.lines.append(line)
        self.say(line.markdown())
        busy = sum(bool(run.result.bottlenecks) for run in runs)
        if busy:
            self.report.notes.append(
                f"{what}: in {busy} of {len(runs)} runs the generator was the bottleneck; its latencies are not the "
                "server's alone."
            )


def figures(runs: Sequence[Measured], metric: str) -> tuple[float, ...]:
    """Give a figure of each run."""
    return tuple(run[metric] for run in runs)


def spread(runs: Sequence[Measured], metric: str) -> Spread:
    """Give a figure of all runs."""
    return Spread(figures(runs, metric))
