"""A worker as the supervisor sees it: one process, from its start to its end.

Invariants: a worker that hangs, or does not become ready, is killed. Silence is counted in the supervisor's own checks,
so a supervisor that was stopped itself, for example by Ctrl-Z, does not blame its workers.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relay.process.children import signal_child
from relay.supervisor.control import Assignment, News, Report
from relay.supervisor.leash import leashed

CHECK_SECONDS = 0.5
"""How often the supervisor checks whether it has heard from a worker."""

HANG_SECONDS = 5.0
"""A worker whose event loop does not run for this long is replaced. Its clients hear nothing meanwhile."""

START_SECONDS = 60.0
"""A worker that is not ready after this time is replaced. It takes a second on an idle machine."""

_READ_BYTES = 65536

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outfit:
    """What all workers of a supervisor have in common.

    Attributes:
        arguments: The command line of `relay`.
        environ: The environment.
        sockets: The sockets on which they listen.
    """

    arguments: Sequence[str]
    environ: Mapping[str, str]
    sockets: Sequence[socket.socket]


class WorkerProcess:
    """A running worker; `start` makes one.

    Attributes:
        fault: Why it could not start; None if no mistake in its configuration is known.
        node_id: Its name as a node of the cluster; empty until it is ready.
    """

    def __init__(self, number: int, process: Process, control: socket.socket, on_ready: Callable[[], None]) -> None:
        self._number = number
        self._process = process
        self._control = control
        self._on_ready = on_ready
        self._is_ready = False
        self._reload_when_ready = False
        self._unread = b""
        self._silent_checks = 0
        self.fault: str | None = None
        self.node_id = ""
        asyncio.get_running_loop().add_reader(control, self._read)

    @classmethod
    async def start(cls, outfit: Outfit, assignment: Assignment, on_ready: Callable[[], None]) -> "WorkerProcess":
        """Start a worker. `on_ready` is called when it serves clients.

        Raises:
            OSError: The system cannot start another process.
        """
        # -P: otherwise a file in the current folder could replace a module.
        command = [sys.executable, "-P", "-m", "relay", *outfit.arguments]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(ours)
            with theirs:
                ours.send(assignment.line())
                process = await asyncio.create_subprocess_exec(
                    # A worker that was stopped with SIGSTOP continues, and finds that its supervisor has gone.
                    *leashed(command, signal.SIGCONT),
                    stdin=theirs.fileno(),
                    pass_fds=assignment.descriptors,
                    env=outfit.environ,
                    process_group=0,  # a terminal's Ctrl-C is for the supervisor, which passes it on
                )
            stack.pop_all()
        return cls(assignment.number, process, ours, on_ready)

    async def until_ended(self) -> str:
        """Wait until the process has ended, and return how it ended. Kill it if it hangs."""
        ending = asyncio.ensure_future(self._process.wait())
        try:
            while not (await asyncio.wait([ending], timeout=CHECK_SECONDS))[0]:
                self._check()
        finally:
            ending.cancel()
            asyncio.get_running_loop().remove_reader(self._control)
            self._read_rest()
            self._control.close()
        return describe_exit(ending.result())

    def stop(self) -> None:
        """Ask the worker to stop in an orderly way."""
        signal_child(self._process, signal.SIGTERM)

    def reload(self) -> None:
        """Make the worker read its configuration again, once it is ready. Until then, the signal might end it."""
        if self._is_ready:
            signal_child(self._process, signal.SIGHUP)
        else:
            self._reload_when_ready = True

    def kill(self) -> None:
        """End the process at once."""
        signal_child(self._process, signal.SIGKILL)

    def _check(self) -> None:
        self._silent_checks += 1
        seconds = HANG_SECONDS if self._is_ready else START_SECONDS
        if self._silent_checks * CHECK_SECONDS >= seconds:
            sentence = "a worker hangs and is killed" if self._is_ready else "a worker does not start and is killed"
            logger.error(sentence, extra={"worker": self._number, "silent_seconds": seconds})
            self.kill()
            self._silent_checks = 0

    def _read(self) -> None:
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._take(Report.read(line))

    def _read_rest(self) -> None:
        """Read what the worker reported just before its end."""
        with contextlib.suppress(OSError):
            while data := self._control.recv(_READ_BYTES):
                self._unread += data
        for line in self._unread.split(b"\n")[:-1]:
            self._take(Report.read(line))

    def _take(self, report: Report) -> None:
        if report.news is News.FAULT:
            self.fault = report.text
        elif report.news is News.READY:
            self._is_ready = True
            self.node_id = report.text
            if self._reload_when_ready:
                self.reload()
            self._on_ready()
        if self._is_ready:
            self._silent_checks = 0


def describe_exit(code: int) -> str:
    """Describe how a process ended: its exit code, or the signal that ended it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
