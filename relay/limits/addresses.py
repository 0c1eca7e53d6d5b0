"""Find the client's address, also behind proxies, and the group of addresses that the limits count as one client.

Invariant: nothing that a client writes decides its address. The relay believes `X-Forwarded-For` only from a trusted
proxy, and only the entries that trusted proxies added. The client's address is the one that the outermost of these
proxies saw. A peer that is trusted only because it runs on this machine may not be a proxy, so it answers for what it
forwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from relay.vocabulary.hosts import LOOPBACK, LOOPBACK_ADDRESSES

Address = IPv4Address | IPv6Address

REMEMBERED_PEERS = 1024
"""The relay looks each peer up when it connects and again when it asks for something, usually a moment later."""

_IPV6_GROUP_BITS = 64
"""A provider assigns at least this much of an IPv6 address to one customer (RFC 6177)."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client at the other end of a connection.

    Attributes:
        address: The address in the log. Empty if unknown.
        group: The group that limits count as one client. None for a trusted proxy that names no client.
        surety: The address of a proxy that is trusted only as `loopback` and so answers for what it forwards. Otherwise
            None.
    """

    address: str
    group: str | None
    surety: str | None = None


class TrustedProxies:
    """The proxies whose `X-Forwarded-For` the relay believes."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Read addresses, networks in CIDR notation, and the word for this machine.

        Raises:
            ValueError: An entry is none of these.
        """
        self._named = [ip_network(network) for network in networks if network != LOOPBACK]
        self._unnamed = [ip_network(address) for address in LOOPBACK_ADDRESSES if LOOPBACK in networks]
        self._find_peer = lru_cache(REMEMBERED_PEERS)(self._read_peer)

    def find_client(self, peer: str, forwarded: Sequence[str]) -> Client:
        """Return the client behind a connection.

        Args:
            peer: Address of the other end of the connection.
            forwarded: The request's `X-Forwarded-For` headers, in order.
        """
        found = self._find_peer(peer)
        hops = [hop for header in forwarded for hop in header.split(",")]
        while hops and found.address and found.group is None:
            address = read_address(hops.pop())
            if address is None:
                break
            found = self._describe(address, found.surety)
        return found

    def _read_peer(self, peer: str) -> Client:
        address = read_address(peer)
        if address is None:
            return Client("", None)
        is_surety = _is_in(self._unnamed, address) and not _is_in(self._named, address)
        return self._describe(address, str(address) if is_surety else None)

    def _describe(self, address: Address, surety: str | None) -> Client:
        return Client(str(address), None if self._trusts(address) else _group(address), surety)

    def _trusts(self, address: Address) -> bool:
        return _is_in(self._named, address) or _is_in(self._unnamed, address)


def _is_in(networks: Sequence[IPv4Network | IPv6Network], address: Address) -> bool:
    return any(address in network for network in networks)


def read_address(text: str) -> Address | None:
    """Parse an address as proxies write it, with or without a port. Return None if it is not an address."""
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
