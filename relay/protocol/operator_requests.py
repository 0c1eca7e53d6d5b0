"""What an operator asks for over HTTP: the method and the address, read and checked.

Source: docs/http-api.md. Raw path segments are matched, never percent-decoded; the query is
ignored, so that no secret is ever wanted there.
"""

from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

_ROOT = "/v1/sessions"
_CONNECTIONS = "connections"

_METHODS: tuple[tuple[str, ...], ...] = (("GET",), ("GET", "DELETE"), ("DELETE",), ("DELETE",))
"""What may be done with all sessions, with a session, with a channel, with a connection: by the number of segments."""

_ANY_METHOD = ("GET", "DELETE")


class Operation(StrEnum):
    """What an operator may do."""

    LIST = "list"
    SHOW = "show"
    END = "end"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """A checked request of an operator.

    Attributes:
        operation: What is to be done.
        session: With which session; empty for all of them.
        channel: With which of its channels; None for all of them.
        connection_id: With which connection; empty when it is about none.
    """

    operation: Operation
    session: str = ""
    channel: str | None = None
    connection_id: str = ""


def is_operator_path(path: str) -> bool:
    """Tell whether a path is for operators."""
    return path == _ROOT or path.startswith(f"{_ROOT}/")


def allowed_methods(path: str) -> tuple[str, ...]:
    """Give the methods of a path for which `is_operator_path` holds; of one that is of no form, all that there are."""
    count = len(_segments(path))
    return _METHODS[count] if count < len(_METHODS) else _ANY_METHOD


def read_operator_request(method: str, path: str) -> OperatorRequest:
    """Read a path for which `is_operator_path` holds, and one of its methods.

    Raises:
        BadRequestError: The text says which part is wrong and what would be right.
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
        f"The address is {_ROOT}, {_ROOT}/SESSION, {_ROOT}/SESSION/CHANNEL or {_ROOT}/SESSION/{_CONNECTIONS}/ID."
    )


def _segments(path: str) -> list[str]:
    return path.removeprefix(_ROOT).split("/")[1:]
