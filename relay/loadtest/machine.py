"""What this machine and process offer a load test: CPU time, open files, ports, and a route to the server.

A value that the system does not report is None, never a guess.
"""

import socket
import time
from pathlib import Path

from relay.process.open_files import allow_open_files
from relay.vocabulary.errors import UserError

SPARE_FILES = 64
"""Descriptors for everything other than listeners."""

REACH_SECONDS = 5.0
"""How long one address of the server may take to accept a connection."""

_SCHEDSTAT = Path("/proc/self/schedstat")
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def cpu_seconds() -> float:
    """Return the CPU time of this process."""
    return time.process_time()


def waiting_seconds() -> float | None:
    """Return how long this process's main thread has waited for a CPU; None if the system does not report it."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def reach(host: str, port: int) -> str:
    """Return the first IP address of a host that accepts a connection, so that it is resolved only once.

    Raises:
        UserError: No address accepts one.
    """
    try:
        with socket.create_connection((host, port), REACH_SECONDS) as probe:
            return str(probe.getpeername()[0])
    except OSError as error:
        raise UserError(
            f"Listeners cannot connect to {host}, port {port}: {error.strerror or error}. They connect directly, "
            "without a proxy."
        ) from error


def is_this_machine(host: str) -> bool:
    """Whether an IP address belongs to this machine. Only such addresses can be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def raise_file_limit(files: int) -> None:
    """Ensure that this process and its children may each open this many files and sockets.

    Raises:
        UserError: The hard limit is lower. The text says what to do.
    """
    needed = files + SPARE_FILES
    allowed = allow_open_files(needed)
    if allowed < needed:
        raise UserError(
            f"A process needs {needed} open sockets, but may have only {allowed} (the hard limit of `ulimit -n`). "
            f"Use more processes (--processes), fewer listeners, or raise the limit: `ulimit -Hn {needed}` as root, "
            f"LimitNOFILE={needed} of a systemd unit, or `--ulimit nofile={needed}` of a container."
        )


def check_ports(connections: int) -> None:
    """Ensure that this machine has enough ports for this many connections to one address.

    Raises:
        UserError: It has too few. The text says what to do.
    """
    try:
        first, last = map(int, _PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return
    if connections > last - first + 1:
        raise UserError(
            f"This machine has {last - first + 1} ports for connections to one address, but needs {connections}: "
            'widen the range with `sysctl net.ipv4.ip_local_port_range="1024 65535"`, or use several machines.'
        )
