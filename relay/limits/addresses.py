"""Whose connection it is: the client's address, also through proxies, and the group of addresses that limits count.

Invariant: nothing that a client writes decides its address. `X-Forwarded-For` is believed only from a trusted proxy,
and of it only what trusted proxies wrote: the address that the last of them saw. What is trusted only
because it is on this machine may be no proxy, so it answers for what it brings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from relay.vocabulary.hosts import LOOPBACK, LOOPBACK_ADDRESSES

Address = IPv4Address | IPv6Address

_IPV6_GROUP_BITS = 64
"""A provider gives one customer at least so much of IPv6 (RFC 6177): all of it is one."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end.

    Attributes:
        address: As it is logged; empty when nothing is known.
        group: What limits count as one; None when it is a proxy that does not say for whom it comes.
        surety: The address of a proxy that is trusted unnamed, and so answers for what it brings; None for any other.
    """

    address: str
    group: str | None
    surety: str | None = None


class TrustedProxies:
    """The proxies whose word on the client's address is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Make it of addresses, networks in CIDR notation, and the word for this machine.

        Raises:
            ValueError: One is none of these.
        """
        self._named = [ip_network(network) for network in networks if network != LOOPBACK]
        self._unnamed = [ip_network(address) for address in LOOPBACK_ADDRESSES if LOOPBACK in networks]

    def find_client(self, peer: str, forwarded: Sequence[str]) -> Client:
        """Tell who is at the other end.

        Args:
            peer: Address of the other end of the connection.
            forwarded: The request's `X-Forwarded-For` headers, in their order.
        """
        address = read_address(peer)
        if address is None:
            return Client("", None)
        surety = str(address) if _is_in(self._unnamed, address) and not _is_in(self._named, address) else None
        hops = [hop for header in forwarded for hop in header.split(",")]
        while hops and self._trusts(address):
            hop = read_address(hops.pop())
            if hop is None:
                break
            address = hop
        return Client(str(address), None if self._trusts(address) else _group(address), surety)

    def _trusts(self, address: Address) -> bool:
        return _is_in(self._named, address) or _is_in(self._unnamed, address)


def _is_in(networks: Sequence[IPv4Network | IPv6Network], address: Address) -> bool:
    return any(address in network for network in networks)


def read_address(text: str) -> Address | None:
    """Read an address as proxies write it, with or without a port; None when it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _group(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, _IPV6_GROUP_BITS), strict=False))
