"""Whose pages may connect: any page of the web can open a WebSocket to anywhere, and only its origin tells.

Source: RFC 6455 section 10.2.
"""

from collections.abc import Sequence

from relay.vocabulary.origins import ANY_ORIGIN, SAME_ORIGIN, read_origin


def is_allowed_origin(allowed: Sequence[str], origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """Tell whether a request may open a WebSocket.

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
