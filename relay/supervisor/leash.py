"""Ties a process to its parent: the kernel sends it a signal when the parent dies, even of SIGKILL.

    python -I -S leash.py PARENT SIGNAL COMMAND [ARGUMENT]...

This command ties itself to the process PARENT and becomes COMMAND, which stays tied. COMMAND needs no support for this.

The file runs as a script, in an interpreter that starts in milliseconds. It therefore imports nothing of the relay.
Only Linux has such a signal (prctl(2), PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def leashed(command: Sequence[str], number: signal.Signals) -> list[str]:
    """Return the command line that runs `command` and sends it a signal when this process dies.

    Start it from the main thread: Linux sends the signal when the thread that started the process ends.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(number)), *command]


def main() -> None:
    """Become the command, unless the parent has died already."""
    parent, number, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() == int(parent):
        os.execv(command[0], command)  # noqa: S606 - the supervisor's own children, without a shell


if __name__ == "__main__":
    main()
