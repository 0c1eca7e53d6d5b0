"""Two real relays behind the site in config/nginx.conf: no client can move a session to another relay."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from relay.protocol.wire import HEADER_BYTES
from tests.support.certificates import Certificate, make_certificate
from tests.support.nginx import nginx
from tests.support.operator import ask
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process

ADMIN_KEY = "an-admin-key"
OPERATED = {"RELAY_BROADCAST_OPEN": "true", "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY}
SESSIONS = [f"ev{number}" for number in range(20)]
FRAME = bytes(640)

LOGGED = {"error_log /dev/null emerg;": "error_log /var/log/nginx/error.log info;"}
"""Makes the error log show how nginx treats its relays."""

UPGRADE = b"GET /v1/listen/SESSION HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="
LONG = b"h" * 6000
"""Too long for nginx in the headers of a relay's answer, which may have 4 KiB."""

ATTACKS = (
    # Bodies.
    (b"GET /listen/SESSION HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 200),
    (b"GET /listen/SESSION HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 200),
    (b"GET /listen/SESSION HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
    (b"POST /listen/SESSION HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405),
    (b"POST /listen/SESSION HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 405),
    (b"POST /listen/SESSION HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", 405),
    (b"POST /listen/SESSION HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n", 413),
    (b"POST /listen/SESSION HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999, 413),
    (b"POST /listen/SESSION HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n" + b"x" * 0xFFF, 413),
    (b"PUT /v1/sessions/SESSION HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405),
    (b"DELETE /v1/sessions/SESSION HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 401),
    (UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\nContent-Length: 2\r\n\r\n{}", 101),
    # Other protocols, or none.
    (b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\nGET /listen/SESSION HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (b"GET /listen/SESSION HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 200),
    (UPGRADE + b"\r\n", 400),
    # Request lines.
    ("GET /v1/listen/SESSION/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400),
    (b"GET /listen/SESSION/?" + b"q" * 6000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 308),
    (b"GET /listen/SESSION?" + b"q" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    # Headers.
    (b"GET /stream/SESSION.wav HTTP/1.1\r\nHost: " + LONG + b"\r\nOrigin: https://" + LONG + b"\r\n\r\n", 403),
    (b"GET /listen/SESSION HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 9000 + b"\r\n\r\n", 200),
    (b"GET /listen/SESSION HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * 40_000 + b"\r\n\r\n", 400),
    (b"GET /listen/SESSION HTTP/1.1\r\nHost: x\r\n" + (b"Cookie: " + b"c" * 20_000 + b"\r\n") * 3 + b"\r\n", 431),
)
"""What a client may send, and the expected status."""


def port_of(relay: RelayProcess) -> int:
    port = urlsplit(relay.url).port
    assert port is not None
    return port


async def listeners(relay: RelayProcess) -> dict[str, int]:
    """Return the number of listeners of each session at a relay."""
    listed = (await ask(relay.url, "GET", "/v1/sessions", ADMIN_KEY)).json["sessions"]
    return {session["id"]: sum(channel["listeners"] for channel in session["channels"]) for session in listed}


@asynccontextmanager
async def joined(target: str, port: int, certificate: Certificate) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"wss://127.0.0.1:{port}/v1/{target}",
        ssl=certificate.trusting,
        subprotocols=[Subprotocol("relay.v1")],
        compression=None,
        proxy=None,
    ) as connection:
        assert json.loads(await connection.recv())["type"] == "hello"
        yield connection


async def attack(request: bytes, port: int, context: ssl.SSLContext) -> int:
    """Send a request exactly as written, and return the response status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        async with asyncio.timeout(20):
            writer.write(request)
            status = 100
            while status == 100:
                line = await reader.readline()
                status = int(line.split()[1])
                if status == 100:
                    await reader.readuntil(b"\r\n")
            return status
    finally:
        writer.close()


async def hears(listener: ClientConnection) -> bool:
    """Wait for the audio of `FRAME`."""
    async with asyncio.timeout(20):
        while not isinstance(message := await listener.recv(), bytes):
            pass
    return message[HEADER_BYTES:] == FRAME


async def test_no_client_costs_a_session_its_relay(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with (
        relay_process(**OPERATED) as first,
        relay_process(**OPERATED) as second,
        nginx(tmp_path, certificate, port_of(first), port_of(second), changes=LOGGED) as (_, port),
        AsyncExitStack() as guests,
    ):
        broadcasters = [
            await guests.enter_async_context(joined(f"broadcast/{session}", port, certificate)) for session in SESSIONS
        ]
        at_first, at_second = sorted(await listeners(first)), sorted(await listeners(second))
        assert sorted([*at_first, *at_second]) == sorted(SESSIONS)
        for sessions in (at_first, at_second):
            assert sessions, "both relays have some"

        for request, status in ATTACKS:
            for session in (at_first[0], at_second[0]):
                written = request.replace(b"SESSION", session.encode())
                assert await attack(written, port, certificate.trusting) == status, request[:120]
            # A listener that joins now finds its broadcaster.
            async with (
                joined(f"listen/{at_first[-1]}", port, certificate),
                joined(f"listen/{at_second[-1]}", port, certificate),
            ):
                assert sorted(await listeners(first)) == at_first, request[:120]
                assert sorted(await listeners(second)) == at_second, request[:120]

        heard = [
            await guests.enter_async_context(joined(f"listen/{session}", port, certificate)) for session in SESSIONS
        ]
        assert await listeners(first) == dict.fromkeys(at_first, 1)
        assert await listeners(second) == dict.fromkeys(at_second, 1)
        for broadcaster in broadcasters:
            await broadcaster.send(FRAME)
        assert all(await asyncio.gather(*map(hears, heard)))

        # An operator's request may have a body, which nginx does not forward.
        ending = f"DELETE /v1/sessions/{at_first[0]} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        bodied = ending.encode() + b"Content-Length: 2\r\n\r\n{}"
        assert await attack(bodied, port, certificate.trusting) == 200
        for relay in (first, second):
            assert await relay.terminate() == 0
            assert not any("body" in record for record in relay.log if record["event"] == "requests could not be read")
        assert await attack(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", port, certificate.trusting) == 502
    errors = (tmp_path / "error.log").read_text(encoding="utf-8")
    assert "while connecting to upstream" in errors, "it says what nginx makes of its relays"
    assert "no live upstreams" not in errors
    assert "temporarily disabled" not in errors


async def test_the_sessions_of_a_relay_that_is_away_wait_for_it(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    ports = free_port(), free_port()
    async with (
        relay_process("--port", str(ports[0]), **OPERATED) as first,
        relay_process("--port", str(ports[1]), **OPERATED) as second,
        nginx(tmp_path, certificate, *ports, changes=LOGGED) as (_, port),
    ):
        async with AsyncExitStack() as guests:
            for session in SESSIONS:
                await guests.enter_async_context(joined(f"listen/{session}", port, certificate))
            at_first, at_second = sorted(await listeners(first)), sorted(await listeners(second))
        assert await first.terminate() == 0
        for session in at_first:
            with pytest.raises(InvalidStatus) as caught:
                async with joined(f"listen/{session}", port, certificate):
                    raise AssertionError("it was let in elsewhere")
            assert caught.value.response.status_code == 502
        async with relay_process("--port", str(ports[0]), **OPERATED) as first_again, AsyncExitStack() as guests:
            for session in SESSIONS:
                await guests.enter_async_context(joined(f"listen/{session}", port, certificate))
            assert await listeners(first_again) == dict.fromkeys(at_first, 1)
            assert {session: (await listeners(second))[session] for session in at_second} == dict.fromkeys(at_second, 1)
            assert not set(at_first) & (await listeners(second)).keys()
