"""Origins of web pages: scheme, host and port, by which a browser tells whose page opens a connection.

Any page of the web can open a WebSocket to anywhere, and only its origin tells which page it was.

Source: RFC 6454; RFC 6455 section 10.2.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

SAME_ORIGIN = "same-origin"
"""Stands, in a list of origins, for the address that the request itself was sent to."""

ANY_ORIGIN = "*"
"""Stands, in a list of origins, for every one."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Whose page it is; the port is the scheme's own when none was written."""

    scheme: str
    host: str
    port: int


def read_origin(text: str) -> Origin | None:
    """Read the origin that a text names; None when it is none of the web, as `null` of a page in a sandbox."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port that is no number up to 65535, or a bracket that is not closed
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts[1:] != (parts.netloc, "", "", ""):
        return None
    if "@" in parts.netloc or not text.isprintable() or " " in text:
        return None
    host = parts.hostname.removesuffix(".")
    return Origin(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port)


def is_allowed_origin(allowed: Sequence[str], origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """Return whether a request may open a WebSocket.

    Args:
        allowed: Origins, or the words `same-origin` and `*`.
        origins: The request's Origin headers; without any it comes from no browser, and is allowed.
        hosts: Its Host headers. How the browser reached the relay is unknown behind a proxy, so the scheme of the
            same origin is taken to be the page's.
    """
    if not origins or ANY_ORIGIN in allowed:
        return True
    origin = read_origin(origins[0]) if len(origins) == 1 else None
    if origin is None:
        return False
    if SAME_ORIGIN in allowed and len(hosts) == 1 and read_origin(f"{origin.scheme}://{hosts[0]}") == origin:
        return True
    return any(read_origin(other) == origin for other in allowed)
