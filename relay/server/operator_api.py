"""The operator's HTTP API: list and end sessions, and disconnect clients.

Invariants: the credential is in the `Authorization` header and nowhere else, so no page of another origin can use the
API. Requests that are not allowed and requests for what does not exist get the same response, also if no operator is
configured. No response may be cached. The log names the client that ended or disconnected something.

Source: docs/http-api.md.
"""

import json
import logging
from dataclasses import dataclass
from http import HTTPStatus

from websockets.http11 import Request, Response

from relay.access.grants import Reason, RefusedError
from relay.access.rules import Access, OperatorPermit
from relay.hub.operations import Json, Operations
from relay.protocol.operator_requests import Operation, OperatorRequest, allowed_methods, read_operator_request
from relay.protocol.requests import split_target
from relay.server.credentials import read_credential
from relay.server.responses import make_response, text_response
from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to an operator's request.

    Attributes:
        response: The response.
        is_failure: Whether the client is not an operator, or not for this. False if an operator asks for something that
            is gone.
    """

    response: Response
    is_failure: bool = False


class OperatorApi:
    """Answers operators. `access` decides what each operator may see and do."""

    def __init__(self, operations: Operations, access: Access) -> None:
        self._operations = operations
        self._access = access

    def answer(self, request: Request, client: str) -> Answer:
        """Answer a request whose path is for operators. `client` is the address that the log names."""
        path = split_target(request.path)[0]
        methods = allowed_methods(path)
        if request.method not in methods:
            sentence = f"This address supports only {' and '.join(methods)}."
            allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in methods)
            return Answer(text_response(HTTPStatus.METHOD_NOT_ALLOWED, sentence, Allow=allowed))
        try:
            permit = self._access.admit_operator(read_credential(request.headers, [], None))
        except RefusedError as error:
            return self._refuse(error, client)
        try:
            wanted = read_operator_request(request.method, path)
        except BadRequestError as error:
            return Answer(text_response(error.http_status, str(error)))
        found = self._do(wanted, permit, client)
        if found is None:
            is_theirs = _covers(permit, wanted)
            reason = Reason.NO_SESSION if is_theirs else Reason.NOT_FOR_THIS
            self._access.refusals[reason] += 1
            return self._refuse(
                RefusedError(reason, "The operator may not see it, or it does not exist."),
                client,
                is_failure=not is_theirs,
            )
        body = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Cache-Control": "no-store"}
        return Answer(make_response(HTTPStatus.OK, "application/json", body, headers))

    def _do(self, wanted: OperatorRequest, permit: OperatorPermit, client: str) -> Json | None:
        """Return what was found or done. None if nothing matches that this operator may see."""
        session = wanted.session
        match wanted.operation:
            case Operation.LIST:
                return self._operations.list_sessions(permit)
            case Operation.SHOW:
                return self._operations.show_session(session, permit)
            case Operation.END:
                ended = self._operations.end(session, wanted.channel, permit)
                if not ended:
                    return None
                event = "the operator ended channels"
                logger.warning(event, extra={"operator": client, "session": session, "channels": ended})
                return {"session": session, "ended": ended}
        gone = self._operations.disconnect(session, wanted.connection_id, permit)
        if gone is None:
            return None
        told = {"session": session, "channel": gone.channel, "connection": wanted.connection_id, "role": gone.role}
        event = "the operator disconnected a client"
        logger.warning(event, extra={"operator": client, **told, "client": gone.client_address})
        return {"session": session, "channel": gone.channel, "disconnected": wanted.connection_id, "role": gone.role}

    @staticmethod
    def _refuse(error: RefusedError, client: str, *, is_failure: bool = True) -> Answer:
        logger.debug("an operator was refused", extra={"client": client, "reason": error.reason})
        return Answer(text_response(error.http_status, str(error), WWW_Authenticate="Bearer"), is_failure)


def _covers(permit: OperatorPermit, wanted: OperatorRequest) -> bool:
    """Whether the request is within an operator's permit, even if its target does not exist."""
    if wanted.channel is None:
        return permit.covers_session(wanted.session)
    return permit.covers(ChannelAddress(wanted.session, wanted.channel))
