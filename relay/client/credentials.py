"""What somebody shows that was not told anything."""

import os
from urllib.parse import urlsplit

from relay.access.local_key import LocalKey, find_key
from relay.vocabulary.loopback import is_loopback

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def find_local_key(url: str, kind: LocalKey = LocalKey.BROADCAST) -> str | None:
    """Give the key that a relay of the same person on this machine made for itself; None when there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        # Connecting has a sentence for what is no address.
        return None
    if port is None or not is_loopback(parts.hostname or ""):
        return None
    return find_key(os.environ, kind, port)
