"""Operator requests by method and address, and the error for all others."""

import pytest

from relay.protocol.operator_requests import (
    Operation,
    OperatorRequest,
    allowed_methods,
    is_operator_path,
    read_operator_request,
)
from relay.vocabulary.errors import BadRequestError


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/", "/v1/sessions/ev1", "/v1/sessions/a/b/c/d/e"])
def test_paths_for_operators(path: str) -> None:
    assert is_operator_path(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/session", "/v1/sessionsx", "/v1/listen/sessions", "/v2/sessions"]
)
def test_other_paths(path: str) -> None:
    assert not is_operator_path(path)


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("GET", "/v1/sessions", OperatorRequest(Operation.LIST)),
        ("GET", "/v1/sessions/ev1", OperatorRequest(Operation.SHOW, "ev1")),
        ("DELETE", "/v1/sessions/ev1", OperatorRequest(Operation.END, "ev1")),
        ("DELETE", "/v1/sessions/ev1/de", OperatorRequest(Operation.END, "ev1", "de")),
        ("DELETE", "/v1/sessions/ev1/connections", OperatorRequest(Operation.END, "ev1", "connections")),
        (
            "DELETE",
            "/v1/sessions/ev1/connections/7",
            OperatorRequest(Operation.DISCONNECT, "ev1", connection_id="7"),
        ),
    ],
)
def test_what_may_be_asked(method: str, path: str, request_: OperatorRequest) -> None:
    assert method in allowed_methods(path)
    assert read_operator_request(method, path) == request_


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/sessions", ("GET",)),
        ("/v1/sessions/ev1", ("GET", "DELETE")),
        ("/v1/sessions/ev1/de", ("DELETE",)),
        ("/v1/sessions/ev1/connections/7", ("DELETE",)),
        ("/v1/sessions/ev1/connections/7/8", ("GET", "DELETE")),
    ],
)
def test_methods(path: str, methods: tuple[str, ...]) -> None:
    assert allowed_methods(path) == methods


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/sessions/", "session id ''"),
        ("/v1/sessions/..", "not only dots"),
        ("/v1/sessions/a%20b", "session id 'a%20b'"),
        ("/v1/sessions/ev1/", "channel id ''"),
        ("/v1/sessions/ev1/listeners/7", "/v1/sessions/SESSION/connections/ID"),
        ("/v1/sessions/a%2Fb/connections/7", "session id"),
        ("/v1/sessions/ev1/connections/7/8", "The address must be /v1/sessions,"),
    ],
)
def test_what_may_not(path: str, says: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_operator_request("DELETE", path)
    assert says in str(caught.value)
