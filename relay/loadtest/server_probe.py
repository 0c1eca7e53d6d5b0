"""The server's CPU time and memory when it runs on this machine, through psutil (the extra "load")."""

import contextlib
from collections.abc import Iterable, Sequence

import psutil

from relay.loadtest.results import ServerSample

_LONGEST_COMMAND = 60


class ServerProbe:
    """Observes the server's processes.

    Attributes:
        name: The main process, for people.
        max_files: How many files and sockets it may open; None if the system does not report it.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        """Observe the processes with these ids, the main one first.

        Raises:
            psutil.Error: One of them does not exist, or this user may not see it.
        """
        self._processes = [psutil.Process(pid) for pid in pids]
        main = self._processes[0]
        command = " ".join(main.cmdline()) or main.name()
        shown = command if len(command) <= _LONGEST_COMMAND else command[:_LONGEST_COMMAND] + "…"
        more = f" and {len(self._processes) - 1} more" if len(self._processes) > 1 else ""
        self.name = f"{shown} (process {main.pid}{more})"
        self.max_files: int | None = None
        with contextlib.suppress(psutil.Error):
            self.max_files = main.rlimit(psutil.RLIMIT_NOFILE)[0]

    def sample(self, *, with_uss: bool) -> ServerSample | None:
        """Return the current use; None if a process is gone. USS takes milliseconds: the kernel walks memory maps."""
        cpu_seconds, rss = 0.0, 0
        uss: int | None = 0 if with_uss else None
        try:
            for process in self._processes:
                times = process.cpu_times()
                cpu_seconds += times.user + times.system
                rss += process.memory_info().rss
                if uss is not None:
                    uss = _add_uss(uss, process)
        except psutil.Error:
            return None
        return ServerSample(cpu_seconds, rss, uss)


def find_server(port: int) -> ServerProbe | None:
    """Find the server at a TCP port of this machine, with its workers; None if this user cannot see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.pid is not None and _listens(connection.status, connection.laddr, port):
                return ServerProbe(_family(psutil.Process(connection.pid), port))
    return None


def _family(process: psutil.Process, port: int) -> list[int]:
    """Return the ids of a server and its workers: related processes that listen at one port."""
    parent = process.parent()
    first = parent if parent is not None and _is_listener(parent, port) else process
    workers = [child for child in first.children(recursive=True) if _is_listener(child, port)]
    return [first.pid, *(worker.pid for worker in workers)]


def _is_listener(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            _listens(connection.status, connection.laddr, port) for connection in process.net_connections(kind="tcp")
        )
    return False


def _listens(status: str, local_address: Sequence[object], port: int) -> bool:
    return status == psutil.CONN_LISTEN and local_address[1:] == (port,)


def _add_uss(so_far: int, process: psutil.Process) -> int | None:
    try:
        return so_far + int(process.memory_full_info().uss)
    except psutil.AccessDenied:
        return None
