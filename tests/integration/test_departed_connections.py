"""A closed connection frees its memory at once, without a garbage collection, which would stall every listener."""

import asyncio
import gc

import pytest

from relay.cli.app import RunningRelay, running_relay
from relay.server.connection import RelayConnection
from relay.server.http import HttpConnection
from tests.support.in_process import settings_with

HANDSHAKE = (
    "GET /v1/{target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: relay.v1\r\n\r\n"
)
CLOSE = bytes((0x88, 0x80, 0, 0, 0, 0))


async def connect(relay: RunningRelay, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(relay.url.rpartition(":")[2]))
    writer.write(HANDSHAKE.format(target=target).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    assert await reader.read(2)
    return reader, writer


def connections() -> int:
    return sum(type(each) in (HttpConnection, RelayConnection) for each in gc.get_objects())


@pytest.mark.parametrize("target", ["listen/ev1", "broadcast/ev1", "listen/%20"])
@pytest.mark.parametrize("ending", ["close frame", "end of the stream", "reset"])
async def test_nothing_of_a_connection_waits_for_the_collector(target: str, ending: str) -> None:
    async with running_relay(settings_with({"broadcast.open": True})) as relay:
        gc.collect()
        gc.disable()
        try:
            reader, writer = await connect(relay, target)
            assert connections() == 1
            match ending:
                case "close frame":
                    writer.write(CLOSE)
                case "end of the stream":
                    writer.write_eof()
                case _:
                    writer.transport.abort()
            if ending != "reset":
                await reader.read()
                writer.close()
            async with asyncio.timeout(10):
                while connections():  # noqa: ASYNC110 - no event shows that nothing refers to it any more
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()
