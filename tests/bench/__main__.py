"""Measure the relay against other servers and against itself, and print the tables of docs/performance.md.

    python -m tests.bench [--rounds 3] [--seconds 4] [--nap-ms 1] [--json FILE] [ROW ...]

The server runs on one CPU, the generator on another. Runs that are compared alternate, and the tables show medians
with their range, since only ratios within one run mean anything on a shared machine. What is measured is told on
standard error as it comes; the tables are Markdown on standard output.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from relay.loadtest.machine import raise_file_limit
from relay.vocabulary.errors import RelayError, UserError
from tests.bench.bench import Bench
from tests.bench.rows import COUNTS, MORE_ROWS, ROWS, WITHOUT_PEERS, WITHOUT_SERVERS
from tests.bench.servers import GENERATOR_CPU, SERVER_CPU, StartError


def main() -> None:
    arguments = read_arguments(sys.argv[1:])
    if SERVER_CPU == GENERATOR_CPU:
        sys.exit("This needs two CPUs: one for the server, one for the generator.")
    os.sched_setaffinity(0, {GENERATOR_CPU})
    try:
        # Of servers, too, which inherit it.
        raise_file_limit(max(COUNTS) + 1000)
        sys.exit(run(arguments))
    except (UserError, RelayError, StartError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")


def read_arguments(words: list[str]) -> argparse.Namespace:
    rows = {**ROWS, **MORE_ROWS}
    listed = "\n".join(f"  {name:<10} {(row.__doc__ or '').partition(chr(10))[0]}" for name, row in rows.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"rows, all but {', '.join(MORE_ROWS)} when none is named:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; see below")
    parser.add_argument("--rounds", type=int, default=3, help="how often what has a target is measured (3)")
    parser.add_argument("--seconds", type=float, default=4, help="audio of each measurement (4)")
    parser.add_argument("--nap-ms", type=float, default=1, help="see the row receiver; 0 is no nap (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file, too")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.rows) - set(rows):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    if arguments.rounds < 1 or arguments.seconds < 1:
        parser.error("at least one round of one second")
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; gives the exit code: 1 when a target is missed."""
    bench = Bench(arguments.rounds, arguments.seconds, arguments.nap_ms)
    for name, install in bench.report.missing.items():
        bench.say(f"{name} is not installed, so not measured; to install it: {install}")
    rows, names = {**ROWS, **MORE_ROWS}, arguments.rows or list(ROWS)
    if not WITHOUT_SERVERS.issuperset(names):
        bench.warm_up(bench.relays if WITHOUT_PEERS.issuperset(names) else [*bench.relays, *bench.peers])
    for name in names:
        began = time.perf_counter()
        try:
            rows[name](bench)
        except (RelayError, ValueError) as error:
            # What the other rows give is not thrown away for it.
            bench.report.failures.append(f"The row {name} failed: {error}")
            bench.say(bench.report.failures[-1])
        bench.report.seconds[name] = round(time.perf_counter() - began, 1)
        bench.say(f"the row {name} took {bench.report.seconds[name]:.0f} s")
    print(bench.report.markdown(), end="")
    if arguments.json is not None:
        arguments.json.write_text(bench.report.to_json(), encoding="utf-8")
    return 1 if bench.report.failed else 0


if __name__ == "__main__":
    main()
