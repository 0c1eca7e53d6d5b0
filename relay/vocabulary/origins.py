"""Origins of web pages: scheme, host and port, by which a browser tells whose page opens a connection.

Source: RFC 6454.
"""

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
    """Give the origin that a text names; None when it is none of the web, as `null` of a page in a sandbox."""
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
