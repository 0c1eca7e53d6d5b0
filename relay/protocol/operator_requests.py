"""What an operator requests over HTTP: parse and check the method and the path.

Source: docs/http-api.md. Path segments are matched raw, without percent-decoding. The query is ignored, so no client
needs to put a secret there.
"""

from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

_ROOT = "/v1/sessions"
_CONNECTIONS = "connections"

_METHODS: tuple[tuple[str, ...], ...] = (("GET",), ("GET", "DELETE"), ("DELETE",), ("DELETE",))
"""The allowed methods, by number of path segments: for all sessions, a session, a channel, and a connection."""

_ANY_METHOD = ("GET", "DELETE")


class Operation(StrEnum):
    """What an operator can do."""

    LIST = "list"
    SHOW = "show"
    END = "end"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """A checked request from an operator.

    Attributes:
        operation: The operation.
        session: The session's id. Empty for all sessions.
        channel: The channel's id. None for all channels.
        connection_id: The connection's id. Empty if the request concerns no connection.
    """

    operation: Operation
    session: str = ""
    channel: str | None = None
    connection_id: str = ""


def is_operator_path(path: str) -> bool:
    """Whether a path belongs to the operator's API."""
    return path == _ROOT or path.startswith(f"{_ROOT}/")


def allowed_methods(path: str) -> tuple[str, ...]:
    """Return the allowed methods of an operator's path. A path of unknown form allows all methods of the API."""
    count = len(_segments(path))
    return _METHODS[count] if count < len(_METHODS) else _ANY_METHOD


def read_operator_request(method: str, path: str) -> OperatorRequest:
    """Parse an operator's path. The method must be one that `allowed_methods` returns.

    Raises:
        BadRequestError: The text says which part is wrong and what is expected.
    """
    match _segments(path):
        case []:
            return OperatorRequest(Operation.LIST)
        case [session]:
            operation = Operation.SHOW if method == "GET" else Operation.END
            return OperatorRequest(operation, ChannelAddress(session).session)
        case [session, channel]:
            address = ChannelAddress(session, channel)
            return OperatorRequest(Operation.END, address.session, address.channel)
        case [session, word, connection_id] if word == _CONNECTIONS:
            return OperatorRequest(Operation.DISCONNECT, ChannelAddress(session).session, connection_id=connection_id)
    raise BadRequestError(
        f"The address must be {_ROOT}, {_ROOT}/SESSION, {_ROOT}/SESSION/CHANNEL or {_ROOT}/SESSION/{_CONNECTIONS}/ID."
    )


def _segments(path: str) -> list[str]:
    return path.removeprefix(_ROOT).split("/")[1:]
