"""HTTP requests of an operator on a raw socket, sent exactly as written."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A relay's HTTP response.

    Attributes:
        status: The HTTP status.
        headers: The headers, by lower-case name.
        body: The body as text.
    """

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        assert (self.status, self.headers["content-type"]) == (200, "application/json"), self
        return json.loads(self.body)


async def ask(url: str, method: str, path: str, shown: str | None = None, **headers: str) -> Reply:
    """Send a request to a relay's operator API.

    Args:
        url: `http://127.0.0.1:PORT`.
        method: The HTTP method.
        path: The path, with its query if any.
        shown: The token or key.
        headers: Further headers; `_` in a name stands for `-`.
    """
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {address.netloc}", "Connection: close"]
        lines += [] if shown is None else [f"Authorization: Bearer {shown}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(ANSWER_SECONDS):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *told = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in told)
    return Reply(int(status.split()[1]), {name.lower(): value for name, value in pairs}, body.decode())
