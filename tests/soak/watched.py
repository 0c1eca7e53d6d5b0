"""`relay` that says on SIGUSR1 how many tasks it has, as one more line of its log: `python -m tests.soak.watched …`."""

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from relay.cli.main import main

EVENT = "census"

_numbers: Iterator[int] = itertools.count(1)


def take_census(_signal: int, _frame: FrameType | None) -> None:
    tasks = len(asyncio.all_tasks())
    sys.stderr.write(json.dumps({"event": EVENT, "number": next(_numbers), "tasks": tasks}) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, take_census)
    main()
