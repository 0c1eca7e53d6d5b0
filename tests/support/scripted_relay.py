"""A scripted relay on real sockets, for behaviour that a real relay shows rarely or never."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from relay.protocol.wire import Header
from tests.support.ports import free_port

MONO = {"codec": "pcm_s16le", "rate": 16_000, "channels": 1, "clock_rate": 16_000}
STEREO = {"codec": "pcm_s16le", "rate": 48_000, "channels": 2, "clock_rate": 48_000}
HELLO = {
    "type": "hello",
    "protocol": "relay.v1",
    "connection_id": "c1",
    "state": "live",
    "format": MONO,
    "epoch": 1,
    "next_seq": 0,
}

Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script, **options: Any) -> AsyncIterator[str]:
    """Serve WebSockets and yield the URL; each connection runs `script` and is then closed with 1000."""
    options.setdefault("subprotocols", [Subprotocol("relay.v1")])
    async with serve(script, "127.0.0.1", free_port(), compression=None, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


async def say(connection: ServerConnection, *messages: dict[str, Any] | bytes) -> None:
    for message in messages:
        await connection.send(message if isinstance(message, bytes) else json.dumps(message))


def frame(seq: int, audio: bytes, epoch: int = 1) -> bytes:
    return Header(epoch, seq, 0, 0).pack() + audio


def in_turn(*scripts: Script) -> Script:
    """Run one script per connection, in order; a further connection fails the test."""
    left = iter(scripts)

    async def script(connection: ServerConnection) -> None:
        following = next(left, None)
        assert following is not None, "one connection more than the script has"
        await following(connection)

    return script


def query_of(connection: ServerConnection) -> dict[str, str]:
    """Return the query of a connection's address."""
    assert connection.request is not None
    return dict(parse_qsl(urlsplit(connection.request.path).query))


async def cut(connection: ServerConnection) -> None:
    """Drop a connection without a close frame, after the client has received everything sent."""
    await (await connection.ping())
    connection.transport.abort()
