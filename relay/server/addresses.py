"""Where the relay listens: the addresses that `server.host` stands for, and one port for all of them."""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations
from typing import Any, TypeVar

from relay.vocabulary.errors import ConfigurationError
from relay.vocabulary.hosts import EVERY_HOST

PORT_TRIES = 20
"""A port that is free on one address may be taken on another by the time the relay listens there."""

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - an operator asks for it

Bound = TypeVar("Bound")


def can_listen(address: str) -> bool:
    """Whether this machine has an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def find_addresses(hosts: Sequence[str], can_listen: Callable[[str], bool] = can_listen) -> list[str]:
    """Return the names and addresses to listen on.

    The host `*` stands for all IPv4 and all IPv6 addresses, as far as the machine has any.
    """
    every = [address for address in _EVERY_ADDRESS if can_listen(address)] or _EVERY_ADDRESS
    return [address for host in hosts for address in (every if host == EVERY_HOST else [host])]


def resolve(host: str) -> set[IPv4Address | IPv6Address]:
    """Return the addresses that a host stands for. An unknown name has none."""
    if host == EVERY_HOST:
        return set(map(ip_address, _EVERY_ADDRESS))
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        # Listening on it reports what is wrong.
        return set()
    return {ip_address(address[0]) for *_, address in found}


def check_apart(hosts: Sequence[str], resolve: Callable[[str], set[IPv4Address | IPv6Address]] = resolve) -> None:
    """Check that no two hosts share an address, because a port can be bound only once per address.

    Raises:
        ConfigurationError: Two hosts share an address. The text names them.
    """
    if len(hosts) == 1:
        return
    addresses = [(host, resolve(host)) for host in hosts]
    for (first, of_first), (second, of_second) in combinations(addresses, 2):
        if any(_overlap(one, other) for one in of_first for other in of_second) or first == second:
            what = f"{first} is listed twice" if first == second else f"{first} and {second} share an address"
            raise ConfigurationError(f"server.host is {', '.join(hosts)}, but {what}; remove one of them.")


def _overlap(one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address) -> bool:
    return one == other or (one.version == other.version and (one.is_unspecified or other.is_unspecified))


def open_sockets(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Bind sockets to the same port of all addresses that the hosts stand for. They do not listen yet.

    Port 0 stands for any free one.

    Raises:
        ConfigurationError: An address is in use or not available, or two hosts share an address.
    """
    check_apart(hosts)
    addresses = find_addresses(hosts)
    try:
        return on_one_port(addresses, port, lambda port: _bind_all(addresses, port))
    except OSError as error:
        raise cannot_listen(hosts, port, error) from error


def cannot_listen(hosts: Sequence[str], port: int, error: OSError) -> ConfigurationError:
    """Return the error for a port on which the relay cannot listen."""
    return ConfigurationError(
        f"The relay cannot listen on {', '.join(hosts)}, port {port}: {_reason(error)}. "
        "Choose another port with --port, or another address in server.host."
    )


def on_one_port(addresses: Sequence[str], port: int, bind: Callable[[int], Bound]) -> Bound:
    """Bind the same port of all addresses. Port 0 stands for any free one.

    `bind` binds a port of all addresses, or raises OSError.

    Raises:
        OSError: The port, or every port that was tried, is not available.
    """
    for _ in range(PORT_TRIES):
        try:
            return bind(port or _free_port(addresses[0]))
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free on all of the addresses")


def _bind_all(addresses: Sequence[str], port: int) -> list[socket.socket]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(sock) for address in addresses for sock in _bind(address, port)]
        stack.pop_all()
    return sockets


def _bind(address: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address that a name stands for. One that the machine lacks may be missing, but not all."""
    found = dict.fromkeys(_look_up(address, port))
    missing: OSError | None = None
    with ExitStack() as stack:
        sockets = []
        for family, kind, protocol, _, place in found:
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # the system has no such family
                missing = error
                continue
            stack.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(place)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                sock.close()
                missing = error
            else:
                sockets.append(sock)
        if not sockets and missing is not None:
            raise missing
        stack.pop_all()
    return sockets


def _free_port(host: str) -> int:
    family, kind, protocol, _, address = _look_up(host, 0)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(address)
        return int(probe.getsockname()[1])


def _look_up(host: str, port: int) -> list[tuple[int, int, int, str, Any]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))


def _reason(error: OSError) -> str:
    """Return the plain reason. The library may add words about the address, which the message already names."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error)
    return os.strerror(error.errno).lower()
