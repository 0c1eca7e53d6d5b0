"""HTTP responses, as far as a server of WebSockets and a few pages needs them."""

from collections.abc import Mapping
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Response


def text_response(status: int, sentence: str, **headers: str) -> Response:
    """Make a response for a person to read; nobody keeps it. Of a header's name, `_` stands for `-`."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    body = f"{sentence}\n".encode()
    return make_response(status, "text/plain; charset=utf-8", body, {"Cache-Control": "no-store", **more})


def not_modified_response(headers: Mapping[str, str]) -> Response:
    """Make the answer to a browser that has the file already, with the headers that it would have had."""
    return Response(HTTPStatus.NOT_MODIFIED, "Not Modified", Headers({"Connection": "close", **headers}), b"")


def make_response(status: int, content_type: str, body: bytes, more: Mapping[str, str]) -> Response:
    """Make a response after which the connection ends; of `more` headers, none replaces one of these."""
    headers = Headers()
    headers["Content-Type"] = content_type
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    headers["X-Content-Type-Options"] = "nosniff"
    for name, value in more.items():
        if name not in headers:
            headers[name] = value
    return Response(int(status), HTTPStatus(status).phrase, headers, body)
