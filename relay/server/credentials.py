"""Where a client shows its token or key: a header, a subprotocol, or, where the operator allows it, the query.

Invariants: the header goes before the subprotocol, that before the query, and the first that is there counts, right
or wrong; nothing that is found here is ever echoed or written down.

Source: docs/protocol.md, "Tokens and keys".
"""

from urllib.parse import parse_qs

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_subprotocol

from relay.protocol.wire import TOKEN_SUBPROTOCOL_PREFIX

_SCHEME = "bearer "
_QUERY_NAME = "token"


def offered_subprotocols(headers: Headers) -> list[str]:
    """Give the subprotocols that a client offers; none when the header is malformed (the library refuses it then)."""
    try:
        return [name for value in headers.get_all("Sec-WebSocket-Protocol") for name in parse_subprotocol(value)]
    except InvalidHeaderFormat:
        return []


def read_credential(headers: Headers, offered: list[str], query: str | None) -> str | None:
    """Give what a client shows; None when it shows nothing.

    Args:
        headers: Of its request.
        offered: Its subprotocols.
        query: Of its request; None when a token must not be there.
    """
    bearers = [value for value in headers.get_all("Authorization") if value.lower().startswith(_SCHEME)]
    if bearers:
        return bearers[0][len(_SCHEME) :].strip()
    for name in offered:
        if name.startswith(TOKEN_SUBPROTOCOL_PREFIX):
            return name.removeprefix(TOKEN_SUBPROTOCOL_PREFIX)
    return None if query is None else parse_qs(query).get(_QUERY_NAME, [None])[0]
