"""Signals that arrive while the relay starts, before anything could end in order: they are kept until something can.

Invariants: imports nothing that takes time, since what arrives before `keep_signals` has its ordinary effect; a signal
that is kept is taken once. The state is the process's own, as signals are.
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
    """Have SIGINT and SIGTERM end a command that has begun nothing yet.

    Python's own handler of SIGINT raises an exception wherever the program is. In the middle of an import that is a
    traceback, or nothing at all where exceptions are ignored, and the command would go on.
    """
    signal.signal(signal.SIGINT, _end)
    let_end(signal.SIGTERM)


def take_signal(number: int) -> bool:
    """Tell whether a signal was kept that nobody took yet."""
    was_kept = number in _kept
    _kept.discard(number)
    return was_kept


def let_end(number: int) -> None:
    """Have SIGINT or SIGTERM end the process, also process 1, for which the kernel has no default action."""
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)
    else:
        signal.signal(number, _end if os.getpid() == 1 else signal.SIG_DFL)


def _keep(number: int, _: FrameType | None) -> None:
    _kept.add(number)
    if number in STOP_SIGNALS:
        let_end(number)


def _end(number: int, _: FrameType | None) -> None:
    # As a shell says it of a process that a signal ended.
    os._exit(128 + number)
