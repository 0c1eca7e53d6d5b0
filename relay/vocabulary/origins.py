"""Origins of web pages: scheme, host and port.

Any page on the web can open a WebSocket to any server. Only the Origin header says which page it is.

Source: RFC 6454; RFC 6455 section 10.2.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

SAME_ORIGIN = "same-origin"
"""In a list of origins: the address to which the request was sent."""

ANY_ORIGIN = "*"
"""In a list of origins: every origin."""

MAX_ORIGIN_CHARS = len("https://") + 253 + len(".:65535")
"""Length of the longest origin: a host name has at most 253 characters (RFC 1035, section 2.3.4)."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """The origin of a page; `port` is the scheme's default if none was written."""

    scheme: str
    host: str
    port: int


def read_origin(text: str) -> Origin | None:
    """Return the origin that a text names; None if it is not a web origin, such as the `null` of a sandboxed page."""
    if len(text) > MAX_ORIGIN_CHARS:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # the port is not a number up to 65535, or a bracket is not closed
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
        origins: The request's Origin headers. A request without any is not from a browser, and is allowed. A request
            with several is malformed, and is not.
        hosts: The request's Host headers. Behind a proxy, the relay cannot know the scheme that the browser used, so
            `same-origin` assumes the scheme of the page.
    """
    if not origins or ANY_ORIGIN in allowed:
        return len(origins) <= 1
    origin = read_origin(origins[0]) if len(origins) == 1 else None
    if origin is None:
        return False
    if SAME_ORIGIN in allowed and len(hosts) == 1 and read_origin(f"{origin.scheme}://{hosts[0]}") == origin:
        return True
    return any(read_origin(other) == origin for other in allowed)
