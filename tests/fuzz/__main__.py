"""Look for bytes that crash the relay, for as long as you like.

    python -m tests.fuzz [--minutes 30] [--target NAME ...] [--conversation NUMBER]

Half of the time goes to the targets of tests/fuzz/targets.py, under atheris (`pip install 'atheris>=3,<4'`), which is
guided by coverage; half to conversations with a running relay on each event loop. An input that crashes is written
into tests/fuzz/found, where the tests try it from then on; a conversation is repeated by its number.
"""

import argparse
import asyncio
import itertools
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.server import fuzz_relay
from tests.fuzz.targets import FOUND, SEEDS, TARGETS
from tests.support.live_session import LOOPS


def fuzz_target(name: str, seconds: int) -> bool:
    """Run one target in a separate process, and return whether it survived."""
    (FOUND / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = (f"-max_total_time={seconds}", f"-artifact_prefix={FOUND / name}/", "-print_final_stats=1")
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, *limits, corpus],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    statistics = [line for line in ended.stdout.splitlines() if "number_of_executed_units" in line]
    runs = statistics[0].split()[-1] if statistics else "?"
    if not any((FOUND / name).iterdir()):
        (FOUND / name).rmdir()
    print(f"{name}: {runs} inputs, {'ok' if ended.returncode == 0 else 'CRASHED'}", flush=True)
    if ended.returncode:
        print("\n".join(ended.stdout.splitlines()[-40:]), flush=True)
    return ended.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, add_help=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--target", action="append", choices=[*TARGETS, "relay"])
    parser.add_argument("--conversation", type=int, help="only this one, with each event loop")
    options = parser.parse_args()
    seconds = options.minutes * 60
    if options.conversation is not None:
        for loop in LOOPS:
            asyncio.run(fuzz_relay(loop, [options.conversation], seconds))
        print("ok")
        return 0
    chosen = options.target or [*TARGETS, "relay"]
    targets = [name for name in TARGETS if name in chosen]
    share = seconds / 2 if "relay" in chosen and targets else seconds
    stood = [fuzz_target(name, max(1, round(share / len(targets)))) for name in targets]
    if "relay" in chosen:
        first = random.SystemRandom().randrange(1 << 32)
        for loop in LOOPS:
            count = asyncio.run(fuzz_relay(loop, itertools.count(first), share / len(LOOPS)))
            print(f"relay on {loop}: {count} conversations from number {first} on, ok", flush=True)
    return 0 if all(stood) else 1


if __name__ == "__main__":
    sys.exit(main())
