"""Keeps signals that arrive while the relay starts, until the relay can stop in order.

Invariants: this module imports nothing that takes time, because signals that arrive before `keep_signals` have their
ordinary effect. A kept signal is taken once. The state is global, because signals belong to the process.
"""

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_kept: set[int] = set()


def keep_signals() -> None:
    """Keep SIGINT, SIGTERM and SIGHUP from now on. A second SIGINT or SIGTERM ends the process."""
    for number in (*STOP_SIGNALS, signal.SIGHUP):
        signal.signal(number, _keep)


def end_quietly() -> None:
    """Let SIGINT and SIGTERM end a command that does not handle them, at once and without a word.

    Python's own handler of SIGINT raises an exception wherever the program is. During an import or in a callback, that
    prints a traceback. Where exceptions are ignored, it has no effect, and the command continues.
    """
    for number in STOP_SIGNALS:
        let_end(number)


def take_signal(number: int) -> bool:
    """Return whether the signal was kept, and forget it."""
    was_kept = number in _kept
    _kept.discard(number)
    return was_kept


def let_end(number: int) -> None:
    """Let SIGINT or SIGTERM end the process, even process 1, for which the kernel has no default action."""
    signal.signal(number, _end if os.getpid() == 1 else signal.SIG_DFL)


def _keep(number: int, _: FrameType | None) -> None:
    _kept.add(number)
    if number in STOP_SIGNALS:
        let_end(number)


def _end(number: int, _: FrameType | None) -> None:
    # A shell reports this exit code for a process that a signal ended.
    os._exit(128 + number)
