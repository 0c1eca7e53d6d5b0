"""Measure the relay against other servers and against itself, and print the table of docs/performance.md.

    python -m tests.bench [--rounds 3] [--seconds 8] [ROW ...]

Every figure comes from `relay loadtest`, with the server on one CPU and the generator on another. Runs that are
compared alternate, and the table shows medians and their ratio, since only ratios within one run mean anything on
a shared machine.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

SERVER_CPU, GENERATOR_CPU = 0, 1
START_SECONDS = 15.0
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """How to start a server; `PORT` in the command is replaced."""

    name: str
    command: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()


def relay(name: str = "relay", loop: str = "asyncio", **settings: str) -> Server:
    command = ("-m", "relay", "serve", "--port", "PORT", "--loop", loop)
    quiet = {"RELAY_LOG_LEVEL": "error", "RELAY_BROADCAST_OPEN": "true", **settings}
    return Server(name, command, tuple(quiet.items()))


def baseline(name: str) -> Server:
    return Server(name, ("-m", "tests.bench.baselines", name, "PORT"))


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Run a server on its CPU; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(port) if word == "PORT" else word for word in server.command]
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **dict(server.settings)})
    os.sched_setaffinity(process.pid, {SERVER_CPU})
    try:
        deadline = time.perf_counter() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.perf_counter() > deadline or process.poll() is not None:
                    sys.exit(f"{server.name} did not start")
                time.sleep(0.05)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def loadtest(url: str, listeners: int, seconds: float, *options: str) -> Metrics:
    """One run of `relay loadtest`; gives its metrics."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        arguments = ["--url", url, "--listeners", str(listeners), "--duration", str(seconds), "--json", file.name]
        subprocess.run(
            [sys.executable, "-m", "relay", "loadtest", *arguments, "--pin", str(GENERATOR_CPU), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        metrics: Metrics = json.loads(Path(file.name).read_text())["metrics"]
    return metrics


def measure(server: Server, listeners: int, seconds: float, *options: str) -> Metrics:
    with serving(server) as url:
        return loadtest(url, listeners, seconds, *options)


class Table:
    """Rows of what, figure, at least, aim, verdict; printed as they come."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.failed = False
        print("| what | figure | at least | aim | |\n|---|---|---|---|---|", flush=True)

    def row(self, what: str, figure: str, value: float, *, least: float, aim: float, unit: str = "") -> None:
        verdict = "aim" if value <= aim else "ok" if value <= least else "MISSED"
        self.failed |= verdict == "MISSED"
        print(f"| {what} | {figure} | ≤ {least:g}{unit} | ≤ {aim:g}{unit} | {verdict} |", flush=True)

    def fact(self, what: str, figure: str) -> None:
        print(f"| {what} | {figure} | | | |", flush=True)

    def alternate(self, *runs: Callable[[], Metrics]) -> list[list[Metrics]]:
        """Run all in turn, `rounds` times; gives each one's results."""
        results: list[list[Metrics]] = [[] for _ in runs]
        for _ in range(self.rounds):
            for run, result in zip(runs, results, strict=True):
                result.append(run())
        return results


def of(results: list[Metrics], metric: str) -> float:
    values: list[float] = [result[metric] for result in results]
    return float(median(values))


def cost(results: list[Metrics]) -> str:
    return (
        f"{of(results, 'server_cpu_us_per_delivery'):.1f} µs, "
        f"p50 {of(results, 'p50_ms'):.0f} ms, p99 {of(results, 'p99_ms'):.0f} ms"
    )


def lost(results: list[Metrics]) -> float:
    metrics = ("loss_percent", "unaccounted_frames", "undelivered_frames")
    losses: list[float] = [sum(result[metric] for metric in metrics) for result in results]
    return max(losses)


def row_cpu(table: Table) -> None:
    """CPU per delivery at 1000 listeners × 50/s against the others."""
    names = ["broadcast", "tasks"] + (["picows"] if find_spec("picows") else [])
    servers = [relay()] + ([relay("relay on uvloop", "uvloop")] if find_spec("uvloop") else [])
    servers += [baseline(name) for name in names]
    results = table.alternate(*(lambda server=server: measure(server, 1000, table.seconds) for server in servers))
    by_name = {server.name: result for server, result in zip(servers, results, strict=True)}
    reference = of(by_name["broadcast"], "server_cpu_us_per_delivery")
    for name, result in by_name.items():
        ratio = of(result, "server_cpu_us_per_delivery") / reference
        what = f"CPU per delivery, 1000 × 50/s: {name} against websockets.broadcast()"
        if name.startswith("relay"):
            table.row(what, f"{ratio:.2f} ({cost(result)})", ratio, least=0.80, aim=0.65)
        else:
            table.fact(what, f"{ratio:.2f} ({cost(result)})")


def row_capacity(table: Table) -> None:
    """Loss and p99 at 4000 and 8000 listeners on one core."""
    loops = ["asyncio"] + (["uvloop"] if find_spec("uvloop") else [])
    for listeners, least, aim in ((4000, 120, 60), (8000, 300, 250)):
        runs = [lambda loop=loop, n=listeners: measure(relay(loop=loop), n, table.seconds) for loop in loops]
        for loop, results in zip(loops, table.alternate(*runs), strict=True):
            p99 = of(results, "p99_ms")
            value = p99 if not lost(results) else float("inf")
            figure = f"p99 {p99:.0f} ms, p50 {of(results, 'p50_ms'):.0f} ms, lost {lost(results):g}"
            table.row(f"{listeners} × 50/s on one core, {loop}", figure, value, least=least, aim=aim, unit=" ms")


def row_coalescing(table: Table) -> None:
    """CPU per delivery when frames wait 40 ms for each other."""
    plain, joined = table.alternate(
        lambda: measure(relay(), 1000, table.seconds),
        lambda: measure(relay(RELAY_LISTENER_COALESCE_MS="40"), 1000, table.seconds),
    )
    ratio = of(joined, "server_cpu_us_per_delivery") / of(plain, "server_cpu_us_per_delivery")
    figure = f"{ratio:.2f} ({cost(joined)} against {cost(plain)})"
    table.row("CPU per delivery, coalescing 40 ms against 0", figure, ratio, least=0.50, aim=0.40)


def row_stalled(table: Table) -> None:
    """Healthy listeners beside a stalled one, and the memory of a hundred of them."""
    keeping = relay(RELAY_LISTENER_STALL_LIMIT_SECONDS="never")
    none, one, many = table.alternate(
        lambda: measure(keeping, 1000, table.seconds),
        lambda: measure(keeping, 1000, table.seconds, "--profile", "slow", "--slow-percent", "0.1"),
        lambda: measure(keeping, 1000, table.seconds, "--profile", "slow", "--slow-percent", "10"),
    )
    ratio = of(one, "p99_ms") / of(none, "p99_ms")
    figure = f"{ratio:.2f} ({of(one, 'p99_ms'):.0f} against {of(none, 'p99_ms'):.0f} ms)"
    table.row("1 stalled + 999 healthy: healthy p99 against none stalled", figure, ratio, least=1.2, aim=1.05)
    extra = of(many, "server_uss_peak_mb") - of(none, "server_uss_peak_mb")
    table.row("100 stalled of 1000: extra memory", f"{extra:.1f} MB", extra, least=10, aim=2, unit=" MB")


def row_memory(table: Table) -> None:
    """Memory of a listener, everything included."""
    (results,) = table.alternate(lambda: measure(relay(), 4000, table.seconds))
    each = of(results, "server_kib_per_listener")
    table.row("memory per listener, of 4000", f"{each:.1f} KiB", each, least=20, aim=14, unit=" KiB")


def row_joining(table: Table) -> None:
    """A thousand listeners come at once while five hundred are being served."""

    def storm() -> Metrics:
        with serving(relay()) as url:
            present = subprocess.Popen(
                [sys.executable, "-m", "tests.bench", "--present", url, str(table.seconds + 4)],
                stdout=subprocess.PIPE,
                text=True,
            )
            time.sleep(4)
            crowd = loadtest(url, 1000, 2)
            output, _ = present.communicate(timeout=60)
        inside: Metrics = json.loads(output)
        return {"join_max_ms": crowd["join_max_ms"], **{f"inside_{name}": value for name, value in inside.items()}}

    (results,) = table.alternate(storm)
    seconds = of(results, "join_max_ms") / 1000
    figure = (
        f"{seconds:.2f} s; those present: late frames {of(results, 'inside_late_frames'):.0f}, "
        f"p99 {of(results, 'inside_p99_ms'):.0f} ms, max {of(results, 'inside_max_ms'):.0f} ms"
    )
    table.row("1000 listeners join during a broadcast to 500", figure, seconds, least=2, aim=0.5, unit=" s")


ROWS = {
    "cpu": row_cpu,
    "capacity": row_capacity,
    "coalescing": row_coalescing,
    "stalled": row_stalled,
    "memory": row_memory,
    "joining": row_joining,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--present", nargs=2, metavar=("URL", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.present:
        url, seconds = arguments.present
        print(json.dumps(loadtest(url, 500, float(seconds), "--late-ms", "200")))
        return
    unknown = set(arguments.rows) - set(ROWS)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    table = Table(arguments.rounds, arguments.seconds)
    for name in arguments.rows or ROWS:
        ROWS[name](table)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
