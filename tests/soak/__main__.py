"""Let listeners come, stall, die and go for as long as you like, and see what the relay keeps.

    python -m tests.soak [--minutes 10] [--listeners 60] [--loop asyncio]

Memory, descriptors and tasks are printed as slopes with their noise; exit code 1 when something is left, an account is
wrong, or the relay's counters say something else than its clients saw.
"""

import argparse
import asyncio
import sys

from tests.soak.soak import Sample, soak
from tests.support.live_session import LOOPS


def show(sample: Sample) -> None:
    figures = f"{sample.memory_mb:6.1f} MB  {sample.descriptors:4} descriptors  {sample.tasks:4} tasks"
    print(f"\r{sample.seconds:6.0f} s  {figures}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--listeners", type=int, default=60, help="at a time")
    parser.add_argument("--loop", choices=LOOPS, default=LOOPS[0])
    options = parser.parse_args()
    report = asyncio.run(soak(options.loop, options.minutes * 60, options.listeners, show))
    print(file=sys.stderr)
    print("\n".join(report.lines()))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
