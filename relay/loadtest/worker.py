"""A receiving process: `python -m relay.loadtest.worker`, asked on standard input, answering on standard output.

Invariants: it ends when standard input does, whatever happened to the main process; it prints nothing but answers.
"""

import gc
import json
import os
import sys
from typing import Any

from relay.loadtest.receiver import Receiver
from relay.loadtest.worker_messages import Report, WorkerPlan

_STDIN, _STDOUT = 0, 1
_READ_BYTES = 64 * 1024


class Worker:
    """Answers the main process from inside the receiver's loop."""

    def __init__(self, receiver: Receiver, asked: bytes) -> None:
        """Take a receiver; `asked` came after the line with its plan."""
        self._receiver = receiver
        self._asked = asked
        receiver.watch(_STDIN, self._read)
        self._obey()

    def _read(self) -> None:
        received = os.read(_STDIN, _READ_BYTES)
        if not received:
            # The main process is gone; nobody will ask for anything any more.
            self._receiver.stop()
            return
        self._asked += received
        self._obey()

    def _obey(self) -> None:
        *lines, self._asked = self._asked.split(b"\n")
        for line in lines:
            self._do(json.loads(line))

    def _do(self, question: dict[str, Any]) -> None:
        match question["do"]:
            case "report":
                answer(self._receiver.report())
            case "start":
                # All that lives now lives to the end; looking through it again and again would delay frames.
                gc.freeze()
                self._receiver.start(question["at_seconds"])
            case "settle":
                self._receiver.settle(question["published"])
                answer(self._receiver.report())
            case "finish":
                self._receiver.finish(question["wait_seconds"])


def answer(report: Report) -> None:
    """Write a report; the main process reads it at once, so this does not wait."""
    left = memoryview(report.to_line())
    while left:
        left = left[os.write(_STDOUT, left) :]


def main() -> None:
    """Follow one plan."""
    received = b""
    while b"\n" not in received:
        more = os.read(_STDIN, _READ_BYTES)
        if not more:
            return
        received += more
    line, _, asked = received.partition(b"\n")
    plan = WorkerPlan.read(json.loads(line))
    if plan.cpu is not None:
        os.sched_setaffinity(0, {plan.cpu})
    receiver = Receiver(plan)
    try:
        Worker(receiver, asked)
        receiver.run()
        answer(receiver.report())
    except BrokenPipeError:
        # The main process is gone, and nobody else wants to know.
        sys.exit(1)
    finally:
        receiver.close()


if __name__ == "__main__":
    main()
