"""The other end of the operator's API: one request to a relay, by the standard library's HTTP client.

Invariants: it follows no redirect, so what is shown goes to nobody else; what another machine said is shown so that it
can not steer a terminal; an answer that is not a relay's is one sentence.
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
"""How long connecting may take, and again each wait for the answer."""

_LONGEST_ANSWER = 4 << 20
_LONGEST_SENTENCE = 300
_PASSING = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})


def ask_relay(url: str, method: str, path: str, credential: str) -> dict[str, Any]:
    """Ask a relay something as its operator, and give what it answers.

    Args:
        url: Its address, with the path under which a proxy serves it, if any; `ws` stands for `http` and `wss` for
            `https`.
        method: `GET` or `DELETE`.
        path: Of the operator's API.
        credential: A token of role `admin`, or the relay's admin key.

    Raises:
        OSError: Nobody answers there.
        NotAllowedError: The relay's own sentence.
        UserError: What answers is no relay with such an API; an `UnreachableError` when later it may.
        RelayError: The relay refused; the text is its own sentence.
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
            if isinstance(error, OSError):  # one that was broken off is both
                raise
            raise UserError(f"{url} did not answer like a relay; check the address.") from error
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
        raise UnreachableError(f"{url} can not answer for now (HTTP {status}); try again later.")
    raise UserError(f"{url} answered HTTP {status} and no relay that shows its sessions; check the address.")
