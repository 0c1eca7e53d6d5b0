"""Where a client presents its token or key: in a header, a subprotocol, or the query if the operator allows that.

Invariants: the header takes precedence over the subprotocol, and both over the query. Only the first one counts, even
if it is invalid. Credentials are never echoed or logged.

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
    """Return the subprotocols that a client offers. Empty if the header is malformed (the library rejects it then)."""
    try:
        return [name for value in headers.get_all("Sec-WebSocket-Protocol") for name in parse_subprotocol(value)]
    except InvalidHeaderFormat:
        return []


def read_credential(headers: Headers, offered: list[str], query: str | None) -> str | None:
    """Return the client's credential, or None. Without a `query`, tokens are not allowed there."""
    bearers = [value for value in headers.get_all("Authorization") if value.lower().startswith(_SCHEME)]
    if bearers:
        return bearers[0][len(_SCHEME) :].strip()
    for name in offered:
        if name.startswith(TOKEN_SUBPROTOCOL_PREFIX):
            return name.removeprefix(TOKEN_SUBPROTOCOL_PREFIX)
    return None if query is None else parse_qs(query).get(_QUERY_NAME, [None])[0]
