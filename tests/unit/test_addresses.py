"""Where the relay listens, and which of those addresses others can reach."""

import errno
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from relay.server.addresses import PORT_TRIES, check_apart, find_addresses, on_one_port
from relay.vocabulary.errors import ConfigurationError
from relay.vocabulary.hosts import public_host, reachable_host

IPV4, IPV6 = "0.0.0.0", "::"  # noqa: S104 - nothing listens here


@pytest.mark.parametrize(
    ("hosts", "there", "addresses"),
    [
        (["*"], [IPV4, IPV6], [IPV4, IPV6]),
        (["*"], [IPV4], [IPV4]),
        (["*"], [IPV6], [IPV6]),
        (["*"], [], [IPV4, IPV6]),
        ([IPV6], [IPV4], [IPV6]),
        (["192.0.2.1", "localhost"], [], ["192.0.2.1", "localhost"]),
    ],
)
def test_every_address_is_what_the_machine_has(
    hosts: Sequence[str], there: Sequence[str], addresses: Sequence[str]
) -> None:
    assert find_addresses(hosts, lambda address: address in there) == addresses


@pytest.mark.parametrize(
    ("hosts", "what"),
    [
        ([IPV4, "127.0.0.1"], "0.0.0.0 and 127.0.0.1 share an address"),
        (["127.0.0.1", "192.0.2.1", IPV4], "127.0.0.1 and 0.0.0.0 share an address"),
        (["::1", IPV6], "::1 and :: share an address"),
        (["*", IPV6], "* and :: share an address"),
        (["192.0.2.1", "*"], "192.0.2.1 and * share an address"),
        (["localhost", "127.0.0.1"], "localhost and 127.0.0.1 share an address"),
        (["::1", "0:0::1"], "::1 and 0:0::1 share an address"),
        (["127.0.0.1", "127.0.0.1"], "127.0.0.1 is listed twice"),
        (["*", "*"], "* is listed twice"),
        (["unknown", "unknown"], "unknown is listed twice"),
        (["127.0.0.1", "192.0.2.1"], None),
        ([IPV4, IPV6], None),
        ([IPV4, "::1"], None),
        (["unknown", "127.0.0.1"], None),
        (["*"], None),
    ],
)
def test_hosts_that_have_an_address_in_common_are_named(hosts: Sequence[str], what: str | None) -> None:
    names = {"localhost": ["::1", "127.0.0.1"], "unknown": [], "*": [IPV4, IPV6]}

    def find(host: str) -> set[IPv4Address | IPv6Address]:
        return set(map(ip_address, names.get(host, [host])))

    if what is None:
        check_apart(hosts, find)
        return
    with pytest.raises(ConfigurationError) as caught:
        check_apart(hosts, find)
    assert str(caught.value) == f"server.host is {', '.join(hosts)}, but {what}; remove one of them."


@pytest.mark.parametrize(
    ("hosts", "public", "reachable"),
    [
        (["127.0.0.1", "::1", "localhost"], None, "127.0.0.1"),
        (["127.0.0.1", "192.0.2.1"], "192.0.2.1", "127.0.0.1"),
        (["192.0.2.1", "127.0.0.1"], "192.0.2.1", "192.0.2.1"),
        (["::1", "*"], "*", "::1"),
        (["*"], "*", "127.0.0.1"),
        ([IPV6], IPV6, "::1"),
    ],
)
def test_one_host_that_others_can_reach_is_enough(hosts: Sequence[str], public: str | None, reachable: str) -> None:
    assert public_host(hosts) == public
    assert reachable_host(hosts) == reachable


def test_another_free_port_is_tried_when_one_address_does_not_have_the_first() -> None:
    tried: list[int] = []

    def bind(port: int) -> int:
        tried.append(port)
        if len(tried) < 3:
            raise OSError(errno.EADDRINUSE, "in use")
        return port

    assert on_one_port(["127.0.0.1"], 0, bind) == tried[2] > 0


@pytest.mark.parametrize(
    ("port", "error", "tries"),
    [(0, errno.EADDRINUSE, PORT_TRIES), (80, errno.EADDRINUSE, 1), (0, errno.EADDRNOTAVAIL, 1)],
)
def test_it_gives_up(port: int, error: int, tries: int) -> None:
    tried: list[int] = []

    def bind(port: int) -> None:
        tried.append(port)
        raise OSError(error, "no")

    with pytest.raises(OSError, match=r".") as caught:
        on_one_port(["127.0.0.1"], port, bind)
    assert (caught.value.errno, len(tried)) == (error, tries)
