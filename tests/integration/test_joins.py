"""What each joining client receives through the kernel, and what a join spares the kernel."""

import asyncio
import gc
import math
import socket
import struct

import pytest

from relay.cli.app import RunningRelay, running_relay
from relay.server.connection import RelayConnection
from relay.server.kernel import KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES
from relay.server.server import DEAD_PEER_SECONDS
from tests.support.in_process import settings_with

HANDSHAKE = (
    b"GET /v1/listen/ev1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SUBPROTOCOL = b"Sec-WebSocket-Protocol: relay.v1\r\n"
DATA_SEGMENTS = struct.Struct("152xI")
"""Linux's `struct tcp_info` up to `tcpi_data_segs_in`, the count of received segments with data."""


async def join(relay: RunningRelay, headers: bytes, last: bytes) -> socket.socket:
    """Join as a listener, and read until `last` arrives."""
    loop, read = asyncio.get_running_loop(), b""
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", int(relay.url.rpartition(":")[2])))
    await loop.sock_sendall(client, HANDSHAKE + headers + b"\r\n")
    async with asyncio.timeout(10):
        while last not in read:
            data = await loop.sock_recv(client, 65536)
            assert data, read
            read += data
    return client


async def test_the_response_and_the_greeting_leave_in_one_system_call() -> None:
    async with running_relay(settings_with({})) as relay:
        with await join(relay, SUBPROTOCOL, b'"hello"') as client:
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS.size)
    assert DATA_SEGMENTS.unpack(info) == (1,)


async def test_a_listener_that_reads_no_messages_gets_its_response_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A ping would flush the response with it.
    monkeypatch.setattr("relay.server.keepalive.ASK_AFTER_SECONDS", math.inf)
    async with running_relay(settings_with({})) as relay:
        (await join(relay, b"", b"\r\n\r\n")).close()


@pytest.mark.parametrize(
    ("stall_limit_seconds", "most_ms"), [(15, (15 + DEAD_PEER_SECONDS) * 1000), (3e6, 2**31 - 1), ("never", 0)]
)
async def test_accepted_sockets_inherit_how_the_kernel_notices_dead_peers(
    stall_limit_seconds: float | str, most_ms: float
) -> None:
    async with running_relay(settings_with({"listener.stall_limit_seconds": stall_limit_seconds})) as relay:
        with await join(relay, SUBPROTOCOL, b'"hello"'):
            (connection,) = (each for each in gc.get_objects() if type(each) is RelayConnection)
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [
                KEEPALIVE_IDLE_SECONDS,
                KEEPALIVE_INTERVAL_SECONDS,
                KEEPALIVE_PROBES,
                most_ms,
            ]
            del connection, accepted
