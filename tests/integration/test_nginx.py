"""The site in config/nginx.conf in front of a relay, with a real nginx."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from relay.protocol.wire import HEADER_BYTES
from tests.support.certificates import Certificate, make_certificate
from tests.support.nginx import nginx
from tests.support.processes import RelayProcess, relay_process

FRAME = bytes(640)


@dataclass(frozen=True, slots=True)
class Site:
    relay: RelayProcess
    certificate: Certificate
    http_port: int
    https_port: int
    directory: Path

    @asynccontextmanager
    async def client(
        self, target: str, *, own_address: str = "127.0.0.1", **headers: str
    ) -> AsyncIterator[ClientConnection]:
        async with connect(
            f"wss://127.0.0.1:{self.https_port}{target}",
            ssl=self.certificate.trusting,
            subprotocols=[Subprotocol("relay.v1")],
            additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
            compression=None,
            proxy=None,
            local_addr=(own_address, 0),
        ) as connection:
            yield connection

    async def get(self, path: str, *, secure: bool = True) -> http.client.HTTPResponse:
        connection: http.client.HTTPConnection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        if secure:
            trusting = self.certificate.trusting
            connection = http.client.HTTPSConnection("127.0.0.1", self.https_port, context=trusting, timeout=10)
        try:
            await asyncio.to_thread(connection.request, "GET", path)
            response = await asyncio.to_thread(connection.getresponse)
            response.read()
        finally:
            connection.close()
        return response


@asynccontextmanager
async def site(directory: Path, **settings: str) -> AsyncIterator[Site]:
    certificate = make_certificate(directory)
    async with relay_process(**settings) as relay:
        port = urlsplit(relay.url).port
        assert port is not None
        async with nginx(directory, certificate, port) as (http_port, https_port):
            yield Site(relay, certificate, http_port, https_port, directory)


async def test_audio_and_pages_come_through_and_the_client_s_address_too(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        origin = f"https://127.0.0.1:{here.https_port}"
        async with (
            here.client("/v1/listen/ev1?token=secret-word", Origin=origin) as listener,
            here.client("/v1/broadcast/ev1", own_address="127.0.0.2", X_Forwarded_For="198.51.100.66") as broadcaster,
        ):
            assert json.loads(await listener.recv())["type"] == "hello"
            assert json.loads(await broadcaster.recv())["type"] == "hello"
            for _ in range(100):
                await broadcaster.send(FRAME)
            heard = 0
            async with asyncio.timeout(20):
                while heard < 100:
                    message = await listener.recv()
                    heard += isinstance(message, bytes) and message[HEADER_BYTES:] == FRAME
            # The client's own entry stands further left; the trusted nginx appended the address that it saw.
            opened = await here.relay.event("connection opened", session="ev1")
            assert opened["client"] == "127.0.0.2"
            await broadcaster.send('{"type":"end"}')
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    await listener.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1000
        page = await here.get("/listen/ev1")
        assert page.status == 200
        assert "default-src" in (page.headers["Content-Security-Policy"] or "")
        assert (await here.get("/readyz")).status == 403
        moved = await here.get("/listen/ev1", secure=False)
        assert (moved.status, moved.headers["Location"]) == (308, "https://127.0.0.1/listen/ev1")
        access_log = here.directory / "access.log"
        async with asyncio.timeout(20):
            while "/v1/listen/ev1" not in (log := access_log.read_text(encoding="utf-8")):  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.02)
        assert "secret-word" not in log


async def test_limits_hold_for_addresses_behind_it_and_refusals_pass(tmp_path: Path) -> None:
    # The test's own address is trusted, so it acts as a second proxy in front of nginx: the client that it names
    # counts.
    settings = {"RELAY_LIMITS_MAX_CONNECTIONS_PER_ADDRESS": "1", "RELAY_LIMITS_MAX_CONNECTIONS": "2"}
    async with site(tmp_path, **settings) as here:
        for address in ("198.51.100.7", "198.51.100.8"):
            async with here.client("/v1/listen/ev1", X_Forwarded_For=address):
                with pytest.raises(InvalidStatus) as caught:
                    async with here.client("/v1/listen/ev1", X_Forwarded_For=address):
                        raise AssertionError("it was let in")
                assert caught.value.response.status_code == 429
                assert 2 <= int(caught.value.response.headers["Retry-After"]) <= 10
                async with here.client("/v1/listen/ev1"):
                    with pytest.raises(InvalidStatus) as caught:
                        async with here.client("/v1/listen/ev1"):
                            raise AssertionError("it was let in")
                    assert caught.value.response.status_code == 503
                    assert "Retry-After" in caught.value.response.headers


async def test_a_page_of_another_site_may_not_connect(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        with pytest.raises(InvalidStatus) as caught:
            async with here.client("/v1/listen/ev1", Origin="https://evil.example"):
                raise AssertionError("it was let in")
        assert caught.value.response.status_code == 403
