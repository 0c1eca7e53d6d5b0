"""A client of the operator's API: one request to a relay, with the standard library's HTTP client.

Invariants: it follows no redirect, so no other server receives the credential. Text from another machine is shown
without anything that could control a terminal. An answer that is not a relay's becomes one sentence.
"""

import http.client
import json
from contextlib import closing
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from relay.vocabulary.errors import NotAllowedError, RelayError, UnreachableError, UserError
from relay.vocabulary.text import printable

TIMEOUT_SECONDS = 10.0
"""How long connecting may take, and each wait for the answer."""

_LONGEST_ANSWER = 4 << 20
_LONGEST_SENTENCE = 300
_PASSING = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})


def ask_relay(url: str, method: str, path: str, credential: str) -> dict[str, Any]:
    """Send a request to a relay as its operator and return the JSON object of the answer.

    Args:
        url: Address of the relay, including a proxy's path, if any; `ws` and `wss` mean `http` and `https`.
        method: `GET` or `DELETE`.
        path: Path within the operator's API.
        credential: A token of role `admin`, or the relay's admin key.

    Raises:
        OSError: Nothing answers at the address.
        NotAllowedError: The relay refused the credential; the text is the relay's own sentence.
        UserError: The answer is not from a relay with this API. An `UnreachableError`: a later attempt may succeed.
        RelayError: The relay refused the request; the text is the relay's own sentence.
    """
    parts = urlsplit(url)
    is_secure = parts.scheme in {"https", "wss"}
    kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
    with closing(kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)) as connection:
        try:
            connection.request(method, parts.path.rstrip("/") + path, headers={"Authorization": f"Bearer {credential}"})
            response = connection.getresponse()
            body = response.read(_LONGEST_ANSWER)
        except http.client.HTTPException as error:
            if isinstance(error, OSError):  # a connection that breaks raises an error of both classes
                raise
            raise UserError(f"The server at {url} did not answer like a relay; check the address.") from error
    return _read(url, response.status, response.headers.get_content_type(), body)


def _read(url: str, status: int, content_type: str, body: bytes) -> dict[str, Any]:
    if content_type == "application/json" and status == HTTPStatus.OK:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
    sentence = printable(body.decode(errors="replace").strip())[:_LONGEST_SENTENCE]
    is_sentence = content_type == "text/plain" and bool(sentence)
    if status == HTTPStatus.UNAUTHORIZED and is_sentence:
        raise NotAllowedError(sentence)
    if status == HTTPStatus.BAD_REQUEST and is_sentence:
        raise RelayError(sentence)
    if status in _PASSING:
        reason = f": {sentence}" if is_sentence else "; try again later."
        raise UnreachableError(f"The relay at {url} cannot answer at present (HTTP {status}){reason}")
    raise UserError(
        f"The server at {url} answered HTTP {status}, not like a relay that lists its sessions; check the address."
    )
