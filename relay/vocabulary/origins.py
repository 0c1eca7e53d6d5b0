"""Origins of web pages and apps: scheme, host and port.

Any page on the web can open a WebSocket to any server. Only the Origin header says which page it is. An app shows its
pages under a scheme of its own, as in `capacitor://localhost`.

Source: RFC 6454; RFC 6455 section 10.2. Browsers write hosts as in https://url.spec.whatwg.org/#host-serializing.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

from relay.vocabulary.hosts import is_loopback

SAME_ORIGIN = "same-origin"
"""In a list of origins: the address to which the request was sent."""

ANY_ORIGIN = "*"
"""In a list of origins: every origin."""

MAX_ORIGIN_CHARS = len("https://") + 253 + len(".:65535")
"""Length of the longest origin: a host name has at most 253 characters (RFC 1035, section 2.3.4)."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_WITHOUT_PAGES = frozenset({"ftp", "ws", "wss"})
"""Schemes of addresses with a host that are not of pages."""

_ANY_LABEL = "*."
"""At the beginning of the host of an allowed origin: exactly one label, whatever it is."""

_NAME = re.compile(r"[a-z0-9._~!$&'()+,;=-]+")
"""A host name as browsers write it."""

_LAST_LABEL_OF_IPV4 = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""Browsers take a host that ends like this for an IPv4 address, and write it with four decimal numbers."""


class Origin(NamedTuple):
    """The origin of a page. `port` is the scheme's default if none was written; None if the scheme has no default."""

    scheme: str
    host: str
    port: int | None


def read_origin(text: str) -> Origin | None:
    """Return the origin that a text names; None if no page has it, such as the `null` of a sandboxed page."""
    if len(text) > MAX_ORIGIN_CHARS or not text.isascii() or not text.isprintable() or "%" in text:
        return None
    try:
        parts = urlsplit(text)
        port = _DEFAULT_PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:  # the port is not a number up to 65535, or a bracket is not closed
        return None
    if not parts.scheme or parts.scheme in _WITHOUT_PAGES or parts[1:] != (parts.netloc, "", "", ""):
        return None
    host = None if "@" in parts.netloc else _read_host(parts.hostname or "", is_ipv6=parts.netloc.startswith("["))
    return None if host is None else Origin(parts.scheme, host, port)


def _read_host(text: str, *, is_ipv6: bool) -> str | None:
    with suppress(AddressValueError):
        return str(IPv6Address(text)) if is_ipv6 else str(IPv4Address(text))
    name = text.removesuffix(".")
    if is_ipv6 or _NAME.fullmatch(name) is None or _LAST_LABEL_OF_IPV4.fullmatch(name) is not None:
        return None
    return name


def _read_allowed(text: str) -> tuple[Origin | None, bool]:
    """Return an allowed origin, and whether its host stands for all hosts with one label more."""
    scheme, separator, rest = text.partition("://")
    return read_origin(scheme + separator + rest.removeprefix(_ANY_LABEL)), rest.startswith(_ANY_LABEL)


def check_allowed_origin(text: str) -> str:
    """Return an entry of a list of allowed origins unchanged.

    Raises:
        ValueError: No page has such an origin. The text says what an entry must be.
    """
    origin, is_parent = _read_allowed(text)
    if text in {SAME_ORIGIN, ANY_ORIGIN} or (origin is not None and not (is_parent and _is_address(origin.host))):
        return text
    if "*" in text:
        raise ValueError('must have * only as the first label of a host name, as in "https://*.example.org"')
    if not text.isascii():
        raise ValueError('must have host names as browsers send them, such as "https://xn--bcher-kva.example"')
    scheme, _, rest = text.lower().partition("://")
    if scheme in _WITHOUT_PAGES:
        raise ValueError('must have the scheme of the page, as in "https://relay.example.org"')
    if rest.strip("/") and "/" in rest:
        raise ValueError('must be a list of origins without a path, such as "https://relay.example.org"')
    raise ValueError(
        f'must be a list of origins such as "https://relay.example.org", "https://*.example.org" or '
        f'"capacitor://localhost", or "{SAME_ORIGIN}", or "*" for any origin'
    )


def _is_address(host: str) -> bool:
    return ":" in host or _LAST_LABEL_OF_IPV4.fullmatch(host) is not None


def is_allowed_origin(
    allowed: Sequence[str], origins: Sequence[str], hosts: Sequence[str], *, is_private: bool = False
) -> bool:
    """Return whether a request may open a WebSocket.

    Args:
        allowed: Origins, or the words `same-origin` and `*`.
        origins: The request's Origin headers. A request without any is not from a browser, and is allowed. A request
            with several is malformed, and is not.
        hosts: The request's Host headers. Behind a proxy, the relay cannot know the scheme that the browser used, so
            `same-origin` assumes the scheme of the page.
        is_private: Whether the request reached the relay directly, and only this machine can reach it. Then any other
            name than one of loopback is a stranger's, who let it lead here (DNS rebinding), and is not `same-origin`.
    """
    if not origins or ANY_ORIGIN in allowed:
        return len(origins) <= 1
    origin = read_origin(origins[0]) if len(origins) == 1 else None
    if origin is None:
        return False
    is_same = SAME_ORIGIN in allowed and len(hosts) == 1 and read_origin(f"{origin.scheme}://{hosts[0]}") == origin
    if is_same and (is_loopback(origin.host) or not is_private):
        return True
    return any(_matches(origin, *_read_allowed(other)) for other in allowed)


def is_own_host(allowed: Sequence[str], hosts: Sequence[str]) -> bool:
    """Return whether a relay that only this machine can reach has the name to which a request was sent.

    This is for requests without Origin, such as those of a page for what is at its own address. A program that names
    no host is no browser.
    """
    return not hosts or any(
        is_allowed_origin([SAME_ORIGIN, *allowed], [f"{scheme}://{host}"], hosts, is_private=True)
        for scheme in _DEFAULT_PORTS
        for host in hosts
    )


def _matches(origin: Origin, allowed: Origin | None, is_parent: bool) -> bool:
    if is_parent:
        label, _, parent = origin.host.partition(".")
        return bool(label) and origin._replace(host=parent) == allowed
    return origin == allowed
