"""A receiving process. It follows the plan that arrives first, and answers each question with a report.

Questions and reports pass through a `multiprocessing` connection, which is the process's standard input.

Invariants: the process ends when the main process closes the connection, even by dying; it prints nothing. It starts
in a fraction of a second, so nothing here imports asyncio or a third-party package.
"""

import gc
import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from relay.loadtest.account import Report
from relay.loadtest.plan import WorkerPlan
from relay.loadtest.receiver import Receiver


@dataclass(frozen=True, slots=True)
class ReportNow:
    """Only asks for a report."""


@dataclass(frozen=True, slots=True)
class Start:
    """The audio begins at `at_seconds` of this machine's clock. The rest of the plan follows it."""

    at_seconds: float


@dataclass(frozen=True, slots=True)
class Settle:
    """The audio is over. `published` is the frame count of each target's channel. Now listeners may be closed."""

    published: list[int]


@dataclass(frozen=True, slots=True)
class Finish:
    """Wait at most `wait_seconds` for owed frames, close all listeners, send a last report, and end."""

    wait_seconds: float


Question = ReportNow | Start | Settle | Finish


def main() -> None:
    """Follow one plan. The exit code is 1 if the main process went away before the last report."""
    connection: Connection[Report, Any] = Connection(sys.stdin.fileno())
    try:
        _work(connection)
    except (EOFError, ConnectionError):
        sys.exit(1)


def _work(connection: "Connection[Report, Any]") -> None:
    plan: WorkerPlan = connection.recv()
    if plan.cpu is not None:
        os.sched_setaffinity(0, {plan.cpu})
    receiver = Receiver(plan)

    def answer() -> None:
        question: Question = connection.recv()
        match question:
            case Start(at_seconds):
                # Present objects live to the end. A garbage collection that scanned them would delay frames.
                gc.freeze()
                receiver.start(at_seconds)
            case Settle(published):
                receiver.settle(published)
            case Finish(wait_seconds):
                receiver.finish(wait_seconds)
                return
        connection.send(receiver.report())

    try:
        receiver.watch(connection.fileno(), answer)
        receiver.run()
        connection.send(receiver.report())
    finally:
        receiver.close()
