"""The worker's own side of supervision: its assignment, its reports, and its end after that of the supervisor.

Invariants: A worker never outlives its supervisor by more than the time that it may take to stop, even if its event
loop hangs. Reports never block it.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading

from relay.supervisor.control import BEAT_SECONDS, Assignment, News, Report


class SupervisedWorker:
    """This process, as a worker.

    Attributes:
        assignment: What the supervisor gave it.
    """

    def __init__(self, control: socket.socket) -> None:
        """Read the assignment from the connection to the supervisor."""
        self._control = control
        with control.makefile("rb", buffering=0) as stream:
            self.assignment = Assignment.read(stream.readline())

    def sockets(self) -> list[socket.socket]:
        """Return the sockets to listen on."""
        return [socket.socket(fileno=descriptor) for descriptor in self.assignment.descriptors]

    def end_without_supervisor(self, stop_seconds: float) -> None:
        """From now on, stop this process when the supervisor ends. After `stop_seconds`, the kernel ends it."""
        arguments = (self._control, stop_seconds)
        threading.Thread(target=_stop_at_the_end_of, args=arguments, name="supervisor watch", daemon=True).start()

    async def beat(self) -> None:
        """Report forever that the event loop runs."""
        while True:
            self._report(Report(News.ALIVE))
            await asyncio.sleep(BEAT_SECONDS)

    def report_ready(self, node_id: str) -> None:
        """Report that this worker serves clients, as this node of the cluster."""
        self._report(Report(News.READY, node_id))

    def report_fault(self, text: str) -> None:
        """Report why this worker cannot start, before it exits."""
        with contextlib.suppress(OSError):
            self._control.sendall(Report(News.FAULT, text).line())

    def _report(self, report: Report) -> None:
        # If the supervisor reads nothing at the moment, it gets a later report. If it has gone, nobody needs one.
        with contextlib.suppress(OSError):
            self._control.send(report.line(), socket.MSG_DONTWAIT)


def _stop_at_the_end_of(control: socket.socket, stop_seconds: float) -> None:
    with contextlib.suppress(OSError):
        control.recv(1)
    # Without a handler, SIGALRM ends the process, whatever Python does at that moment.
    signal.setitimer(signal.ITIMER_REAL, stop_seconds)
    os.kill(os.getpid(), signal.SIGTERM)
