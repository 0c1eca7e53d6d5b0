"""The bench for all rows: the available servers, rounds, warm-up and progress messages."""

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
    """The state that all rows share.

    Attributes:
        rounds: How often to measure each figure that has a target.
        seconds: Seconds of audio in each measurement.
        nap_ms: How long the receiver sleeps between two looks at its sockets.
        relays: The relay on each available event loop.
        peers: The other available servers.
        report: The results so far.
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
        """Write a progress message to standard error."""
        minutes, seconds = divmod(int(time.perf_counter() - self._began), 60)
        print(f"[{minutes:2}:{seconds:02}] {sentence}", file=sys.stderr, flush=True)

    def warm_up(self, servers: Sequence[Server]) -> None:
        """Run each server once briefly. This loads files, compiles code and reveals servers that do not work."""
        for server in servers:
            self.say(f"warming up {server.name}")
            plan = self.plan(WARM_UP_LISTENERS, duration_seconds=WARM_UP_SECONDS)
            measured = measure(server, plan)
            if measured.lost or measured["delivered_frames"] == 0:
                raise SystemExit(f"{server.name} does not work: {measured.result.metrics()}")

    def plan(self, listeners: int, **members: Any) -> LoadPlan:
        """Return the plan of a measurement; `members` override its defaults."""
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
        """Run all in turn, `rounds` times, and return the results of each."""
        results: dict[str, list[Result]] = {name: [] for name in runs}
        for _ in range(self.rounds):
            for name, run in runs.items():
                results[name].append(run())
        return results

    def row(self, what: str, figure: str, value: float, runs: Sequence[Measured], **targets: Any) -> None:
        """Add a line to the table, and print it."""
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
    """Return a figure of each run."""
    return tuple(run[metric] for run in runs)


def spread(runs: Sequence[Measured], metric: str) -> Spread:
    """Return a figure's spread over all runs."""
    return Spread(figures(runs, metric))
