"""Where a client may present its token, and which place takes precedence."""

import pytest
from websockets.datastructures import Headers
from websockets.typing import Subprotocol

from relay.server.credentials import offered_subprotocols, read_credential
from relay.server.http import RelayProtocol


@pytest.mark.parametrize(
    ("authorization", "offer", "query", "credential"),
    [
        ([], [], None, None),
        (["Bearer header"], ["relay.v1, relay.token.subprotocol"], "token=query", "header"),
        (["bearer  header "], [], None, "header"),
        (["Bearer "], ["relay.token.subprotocol"], None, ""),
        (["Basic cHJveHk6cHJveHk="], ["relay.v1", "relay.token.subprotocol"], "token=query", "subprotocol"),
        (["Basic cHJveHk6cHJveHk=", "Bearer header"], [], None, "header"),
        ([], ["relay.token.one, relay.token.two"], None, "one"),
        ([], ["relay.token.", "relay.v1"], "token=query", ""),
        ([], ["relay.v1"], "a=b&token=qu%2Dery&c", "qu-ery"),
        ([], ["relay.v1"], "TOKEN=query", None),
        ([], ["relay.v1"], "token=", None),
        ([], ["@"], "token=query", "query"),
        ([], ["relay.v1"], None, None),
    ],
)
def test_the_first_place_counts(
    authorization: list[str], offer: list[str], query: str | None, credential: str | None
) -> None:
    headers = Headers()
    for value in authorization:
        headers["Authorization"] = value
    for value in offer:
        headers["Sec-WebSocket-Protocol"] = value
    assert read_credential(headers, offered_subprotocols(headers), query) == credential


def test_a_token_is_never_chosen_as_the_subprotocol() -> None:
    for offered in (["relay.token.x"], ["relay.token.x", "relay.v2"], []):
        assert RelayProtocol().select_subprotocol([*map(Subprotocol, offered)]) is None
    offered = ["relay.token.x", "relay.v1"]
    assert RelayProtocol().select_subprotocol([*map(Subprotocol, offered)]) == "relay.v1"
