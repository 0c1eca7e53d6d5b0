"""What the site in config/nginx.conf keeps out of its logs, and how it chooses among several relays."""

import asyncio
import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.certificates import make_certificate
from tests.support.nginx import SITE, nginx
from tests.support.ports import free_port
from tests.support.processes import relay_process

HSTS = "Strict-Transport-Security"
SECRET = "a-secret-word"  # noqa: S105 - not a real secret


def ask(
    port: int, path: str, context: ssl.SSLContext | None, body: bytes | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Send a request through the site, over TLS if there is a context; return the status, body and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if context is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


async def test_what_is_for_the_operator_is_not_for_the_world(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with relay_process(RELAY_PROMETHEUS_ENABLED="true") as relay:
        port = urlsplit(relay.url).port
        assert port is not None
        async with nginx(tmp_path, certificate, port) as (_, secure_port):
            for path in ("/healthz", "/readyz", "/metrics"):
                status, _, headers = await asyncio.to_thread(ask, secure_port, path, certificate.trusting)
                assert (status, headers.get_all(HSTS)) == (403, ["max-age=31536000"]), path


async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Fail in the way that the path names, unlike a real relay."""
    path = (await reader.readline()).split()[1]
    if path.startswith(b"/garbage"):
        writer.write(b"HTTP/1.1 200 OK\r\n\x00: x\r\n\r\n")
    elif path.startswith(b"/large"):
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 8192 + b"\r\n\r\n")
    elif path.startswith(b"/short"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
    elif path.startswith(b"/silent"):
        await reader.read()
    writer.close()


async def test_no_log_has_what_stands_in_a_query(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    port = free_port()
    changes = {
        # One path has a short time limit; the others keep theirs.
        "proxy_read_timeout    60s;": "location /silent { proxy_pass http://relay; proxy_read_timeout 200ms; }",
        # nginx logs a bind to another machine's address at a higher level than other failures.
        "proxy_http_version 1.1;": "proxy_http_version 1.1; proxy_bind $arg_from;",
    }
    asked: list[tuple[str, int]] = []
    async with nginx(tmp_path, certificate, port, changes=changes) as (plain_port, secure_port):

        async def refused(path: str, status: int, body: bytes | None = None, query: str = "") -> None:
            asked.append((path, status))
            for name in ("token", "key"):
                target = f"{path}?{name}={SECRET}{query}"
                found, _, headers = await asyncio.to_thread(ask, secure_port, target, certificate.trusting, body)
                assert (found, headers.get_all(HSTS)) == (status, ["max-age=31536000"]), path

        server = await asyncio.start_server(misbehave, "127.0.0.1", port)
        async with server:
            for path, status in (("/close", 502), ("/garbage", 502), ("/large", 502), ("/silent", 504)):
                await refused(path, status)
            with pytest.raises(http.client.IncompleteRead):
                await refused("/short", 200)
            await refused("/bound", 500, query="&from=192.0.2.1")
            await refused("/post", 413, b"x" * 2000)
            await refused("/metrics", 403)
        await refused("/v1/listen/ev1", 502)
        moved, _, headers = await asyncio.to_thread(ask, plain_port, f"/moved?token={SECRET}", None)
        assert (moved, headers[HSTS]) == (308, None)
        await broken_records(secure_port, certificate.trusting)
    names = ("access.log", "all.log", "error.log")
    logs = {name: (tmp_path / name).read_text(encoding="utf-8", errors="replace") for name in names}
    for path, status in [*asked, ("/moved", 308)]:
        assert f' {path}" {status} ' in logs["access.log"]
    assert f"127.0.0.1:{port} 502" in logs["access.log"], "it names the relay"
    assert {name: text for name, text in logs.items() if SECRET in text} == {}


async def test_no_log_has_it_when_connections_run_out(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    port = free_port()
    arrived = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        writer.close()

    async def fill(own_port: int, with_a_half: bool) -> bytes:
        """Send requests until nginx has no connection left, perhaps beside a partial one; return the last answer."""
        guests: list[asyncio.StreamWriter] = []
        try:
            while True:
                reader, writer = await asyncio.open_connection("127.0.0.1", own_port, ssl=certificate.trusting)
                guests.append(writer)
                writer.write(f"GET /full?token={SECRET} HTTP/1.1\r\nHost: x\r\n".encode())
                if with_a_half and len(guests) == 1:
                    continue
                writer.write(b"\r\n")
                answer, came = asyncio.ensure_future(reader.readline()), asyncio.ensure_future(arrived.wait())
                await asyncio.wait({answer, came}, return_when=asyncio.FIRST_COMPLETED)
                arrived.clear()
                came.cancel()
                if answer.done():
                    return answer.result()
                answer.cancel()
        except OSError:
            return b""
        finally:
            for writer in guests:
                writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", port)
    changes = {"worker_connections 512;": "worker_connections 12;"}
    said = []
    async with server, asyncio.timeout(30):
        for number, with_a_half in enumerate((False, True)):
            directory = tmp_path / str(number)
            directory.mkdir()
            async with nginx(directory, certificate, port, changes=changes) as (_, secure_port):
                said.append(await fill(secure_port, with_a_half))
            errors = (directory / "error.log").read_text(encoding="utf-8")
            assert SECRET not in errors
            if not said[-1]:
                assert "worker_connections are not enough" in errors, "who is not accepted is still told of"
    # A client takes two connections. So in one of the two cases a client gets the last one and none is left for the
    # relay.
    assert sorted(said) == [b"", b"HTTP/1.1 500 Internal Server Error\r\n"]


async def broken_records(port: int, context: ssl.SSLContext) -> None:
    """Begin a request over TLS, and continue with invalid TLS records."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
            secure.write(f"GET /v1/listen/ev1?token={SECRET} HTTP/1.1\r\nHost: x\r\n".encode())
            writer.write(outgoing.read() + b"\x63\x03\x03\x00\x05hello" * 9)
            await reader.read()
            while await reader.read(65536):
                pass
    finally:
        writer.close()


async def test_tls_keeps_no_tickets_and_speaks_http_1(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with nginx(tmp_path, certificate, free_port()) as (_, port):
        context = certificate.trusting
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        secure = writer.get_extra_info("ssl_object")
        assert (secure.session.has_ticket, bool(secure.session.id)) == (False, True)
        assert secure.selected_alpn_protocol() == "http/1.1"
        writer.close()


async def test_of_several_relays_a_session_has_one(tmp_path: Path) -> None:
    # Two servers that identify themselves stand in for two relays.
    ports = [free_port() for _ in range(2)]
    names = "".join(f"server {{ listen 127.0.0.1:{port}; return 200 {port}; }}\n" for port in ports)
    certificate = make_certificate(tmp_path)
    addresses = ("/v1/listen/{}", "/v1/listen/{}/de?buffer_ms=500", "/v1/broadcast/{}/main", "/listen/{}")
    async with nginx(tmp_path, certificate, *ports, site=names + SITE) as (_, secure_port):
        chosen_by_session = {
            session: {
                (await asyncio.to_thread(ask, secure_port, address.format(session), certificate.trusting))[1]
                for address in addresses
            }
            for session in map(str, range(20))
        }
    assert all(len(relays) == 1 for relays in chosen_by_session.values()), chosen_by_session
    assert len(set.union(*chosen_by_session.values())) == 2
