"""A connection returns all that it took at the door when it ends, in whatever order things happen."""

import asyncio
import gc
import random
import socket
import struct
import time

import pytest

from relay.cli.app import RunningRelay, running_relay
from relay.limits.names import Limit
from relay.server.connection import RelayConnection
from relay.server.http import HttpConnection
from tests.support.in_process import settings_with

UPGRADE = (
    b"GET /v1/listen/ev1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: relay.v1\r\n\r\n"
)
PING = b'{"type":"ping","id":1}'
RACE_SECONDS = 2.5


def port_of(relay: RunningRelay) -> int:
    return int(relay.url.rpartition(":")[2])


def connections() -> int:
    return sum(type(each) in (HttpConnection, RelayConnection) for each in gc.get_objects())


async def read(reader: asyncio.StreamReader) -> bytes:
    """Read more; fail at the end of the stream."""
    more = await reader.read(4096)
    assert more, "it was cut off"
    return more


async def attack(port: int, chance: random.Random) -> None:
    """Open connections with whole and partial requests, and end them in every way at every moment."""
    loop = asyncio.get_running_loop()
    end = loop.time() + RACE_SECONDS
    held: list[socket.socket] = []
    while loop.time() < end:
        sock = socket.socket()
        sock.setblocking(False)
        held.append(sock)
        try:
            await loop.sock_connect(sock, ("127.0.0.1", port))
            for part in chance.choice(([UPGRADE], [UPGRADE[:50]], [UPGRADE[:50], UPGRADE[50:]], [])):
                sock.send(part)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
        except OSError:
            pass
        while len(held) > chance.randrange(20):
            gone = held.pop(chance.randrange(len(held)))
            if chance.random() < 0.5:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
    for sock in held:
        sock.close()


@pytest.mark.parametrize(
    ("most_pending", "timeout_seconds", "limit"),
    [(4, 10, Limit.PENDING_HANDSHAKES), (1000, 0.02, Limit.HANDSHAKE_SECONDS)],
)
async def test_evictions_resets_and_time_outs_leave_nothing_taken(
    most_pending: int, timeout_seconds: float, limit: Limit
) -> None:
    options = {
        "broadcast.open": True,
        "limits.max_pending_handshakes": most_pending,
        "limits.handshake_timeout_seconds": timeout_seconds,
    }
    async with running_relay(settings_with(options)) as relay:
        seed = random.randrange(2**32)  # noqa: S311 - not a secret
        chances = [random.Random(seed + number) for number in range(6)]  # noqa: S311 - not a secret
        await asyncio.gather(*(attack(port_of(relay), chance) for chance in chances))
        assert relay.limits.counters[limit], "nothing raced"
        async with asyncio.timeout(30):
            while not relay.door.is_deserted or connections():
                await asyncio.sleep(0.05)
                gc.collect()


async def test_a_request_that_completes_in_the_turn_of_its_deadline_is_served() -> None:
    options = {
        "broadcast.open": True,
        "limits.handshake_timeout_seconds": 2.0,
    }
    async with running_relay(settings_with(options)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(relay))
        writer.write(UPGRADE[:50])
        await asyncio.sleep(0.1)
        writer.write(UPGRADE[50:])
        time.sleep(2.5)  # noqa: ASYNC251 - the loop must see the request and the deadline in one iteration
        said = b""
        async with asyncio.timeout(20):
            while b'"hello"' not in said:
                said += await read(reader)
            writer.write(bytes((0x81, 0x80 | len(PING), 0, 0, 0, 0)) + PING)
            while b'"pong"' not in said:
                said += await read(reader)
        writer.close()
