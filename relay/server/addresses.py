"""Where the relay listens: the addresses that `server.host` stands for, and one port for all of them."""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations
from typing import TypeVar

from relay.vocabulary.errors import ConfigurationError
from relay.vocabulary.hosts import EVERY_HOST

PORT_TRIES = 20
"""A port that is free on one address may be taken on another by the time the relay listens there."""

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - an operator asks for it

Listening = TypeVar("Listening")


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


async def listen_on_one_port(
    addresses: Sequence[str], port: int, listen: Callable[[int], Awaitable[Listening]]
) -> Listening:
    """Listen on the same port of all addresses. Port 0 stands for any free one.

    `listen` listens on a port of all addresses, or raises OSError.

    Raises:
        OSError: The port, or every port that was tried, is not available.
    """
    for _ in range(PORT_TRIES):
        try:
            return await listen(port or _free_port(addresses[0]))
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free on all of the addresses")


def _free_port(host: str) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(address)
        return int(probe.getsockname()[1])
