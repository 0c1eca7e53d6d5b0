"""Hosts that a relay listens on or trusts."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

EVERY_HOST = "*"
"""As a host: all addresses of IPv4 and IPv6."""

LOOPBACK = "loopback"
"""In `server.trusted_proxies`: the proxies on this machine."""

LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")
"""The addresses that `LOOPBACK` means."""

_REACHABLE = {EVERY_HOST: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`.

    Source: RFC 6761, section 6.3: every name under `localhost` is loopback.
    """
    if host.lower().endswith(".localhost") or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def public_host(hosts: Iterable[str]) -> str | None:
    """Return the first host on which other machines can reach a server; None if all are loopback."""
    return next((host for host in hosts if not is_loopback(host)), None)


def reachable_host(hosts: Sequence[str]) -> str:
    """Return the address at which this machine reaches the first of the `hosts` that a server listens on."""
    return _REACHABLE.get(hosts[0], hosts[0])
