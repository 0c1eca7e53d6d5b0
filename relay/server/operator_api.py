"""The operator's HTTP API: list and end sessions, and disconnect clients.

Invariants: the credential is in the `Authorization` header and nowhere else, so no page of another origin can use the
API. Requests that are not allowed and requests for what does not exist get the same response, also if no operator is
configured. No response may be cached.

Source: docs/http-api.md.
"""

import json
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from websockets.http11 import Request, Response

from relay.access.grants import Reason, RefusedError
from relay.access.rules import Access, OperatorPermit
from relay.hub.operations import Json, covers
from relay.protocol.operator_requests import OperatorRequest, allowed_methods, read_operator_request
from relay.protocol.requests import split_target
from relay.server.credentials import read_credential
from relay.server.responses import make_response, text_response
from relay.vocabulary.errors import BadRequestError, RelayError

RETRY_SECONDS = 2
"""When to ask a cluster again that could not answer."""

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


class Performer(Protocol):
    """Does what operators want, on this relay alone or on all nodes of a cluster."""

    def perform(
        self, wanted: OperatorRequest, permit: OperatorPermit, operator: str
    ) -> Json | Awaitable[Json | None] | None:
        """Return the answer, or an awaitable of it; see `Operations.perform`. The awaitable may raise a RelayError."""
        ...


class OperatorApi:
    """Answers operators. `access` decides what each operator may see and do."""

    def __init__(self, operations: Performer, access: Access) -> None:
        self._operations = operations
        self._access = access

    def answer(self, request: Request, client: str) -> Answer | Awaitable[Answer]:
        """Answer a request whose path is for operators, at once or later. `client` is the address for the log."""
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
        found = self._operations.perform(wanted, permit, client)
        if isinstance(found, Awaitable):
            return self._answer_later(found, wanted, permit, client)
        return self._tell(found, wanted, permit, client)

    async def _answer_later(
        self, performed: Awaitable[Json | None], wanted: OperatorRequest, permit: OperatorPermit, client: str
    ) -> Answer:
        try:
            found = await performed
        except RelayError as error:
            return Answer(text_response(error.http_status, str(error), Retry_After=str(RETRY_SECONDS)))
        return self._tell(found, wanted, permit, client)

    def _tell(self, found: Json | None, wanted: OperatorRequest, permit: OperatorPermit, client: str) -> Answer:
        """Answer with what was found or done. None means that nothing matches that this operator may see."""
        if found is None:
            is_theirs = covers(permit, wanted)
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

    @staticmethod
    def _refuse(error: RefusedError, client: str, *, is_failure: bool = True) -> Answer:
        logger.debug("an operator was refused", extra={"client": client, "reason": error.reason})
        return Answer(text_response(error.http_status, str(error), WWW_Authenticate="Bearer"), is_failure)
