"""Signals to child processes."""

import contextlib
import os
import signal
from asyncio.subprocess import Process


def signal_child(process: Process, number: signal.Signals) -> None:
    """Send a signal to a child process, unless it has ended.

    `process.send_signal` is not fit for this before Python 3.13: it first collects the exit code of a child that has
    just ended, and asyncio then reports 255 (https://github.com/python/cpython/issues/87744).
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
