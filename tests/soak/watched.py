"""`relay` that says on SIGUSR1 how many tasks it has, as one more line of its log: `python -m tests.soak.watched …`."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from relay.cli.main import main

EVENT = "census"

_numbers: Iterator[int] = itertools.count(1)


def take_census(_signal: int, _frame: FrameType | None) -> None:
    """Write the line with one system call, because a signal may interrupt the log while it writes to sys.stderr."""
    tasks = len(asyncio.all_tasks())
    os.write(
        sys.stderr.fileno(), f"{json.dumps({'event': EVENT, 'number': next(_numbers), 'tasks': tasks})}\n".encode()
    )


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, take_census)
    main()
