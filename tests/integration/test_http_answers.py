"""Every request gets an HTTP response, however malformed, and every refusal is counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from tests.support.processes import RelayProcess, relay_process

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
MOST_BYTES = 32 * 1024

UNREADABLE = [
    (b"GET /listen/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400, "body"),
    (GET + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400, "body"),
    (b"DELETE /v1/sessions/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400, "body"),
    (b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n" + GET + b"\r\n", 400, "proxy_protocol"),
    (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + GET + b"\r\n", 400, "proxy_protocol"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
    ("GET /listen/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, "target"),
    (b"GET listen HTTP/1.1\r\nHost: x\r\n\r\n", 400, "target"),
    (b"HEAD listen HTTP/1.1\r\nHost: x\r\n\r\n", 400, "target"),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400, "body"),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n", 400, "header"),
    (b"HEAD / HTTP/2.0\r\n\r\n", 505, "version"),
    (b"hello\r\n", 400, "not_http"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not_http"),
    (b"GET /healthz HTTP/1.1\nHost: x\n\n", 400, "not_http"),
    (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "header"),
    (GET + b"Bad Name: 1\r\n\r\n", 400, "header"),
    (GET + b" folded\r\n\r\n", 400, "header"),
    (GET + b"X: 1\r\n" * 200 + b"\r\n", 431, "too_many_headers"),
    (GET + b"Cookie: " + b"c" * MOST_BYTES + b"\r\n\r\n", 431, "max_handshake_bytes"),
    (b"GET /" + b"p" * MOST_BYTES + b" HTTP/1.1\r\n\r\n", 414, "max_handshake_bytes"),
]

READABLE = [
    (GET + b"\r\n", 200),
    (GET + b"Cookie: " + b"c" * 9 * 1024 + b"\r\n\r\n", 200),
    (b"GET http://example.org/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    (b"GET http://example.org HTTP/1.0\r\n\r\n", 200),
    (GET + b"\r\n" + GET + b"\r\n", 200),
    (GET + b"Content-Length: 0\r\n\r\n", 200),
    (b"POST /listen/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405),
    (b"POST /listen/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000, 405),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"HEAD /v1/listen/ev1 HTTP/1.1\r\nHost: x\r\n\r\n", 426),
]


@asynccontextmanager
async def exchange(relay: RelayProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(relay.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


async def answer(relay: RelayProcess, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a whole request, and read the response until the relay is done."""
    async with exchange(relay) as (reader, writer):
        writer.write(request)
        await writer.drain()
        said = await reader.read()
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.startswith("HTTP/1.1 "), (request[:80], said)
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def check(request: bytes, headers: dict[str, str], body: bytes) -> None:
    assert "default-src" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Connection"].lower() == "close"
    assert headers["Server"] == "relay"
    length = int(headers["Content-Length"])
    assert (length > 0, body) == (True, b"") if request.startswith(b"HEAD ") else length == len(body)


async def test_a_request_that_can_not_be_read_is_answered_and_counted() -> None:
    async with relay_process() as relay:
        for request, status, _ in UNREADABLE:
            found, headers, body = await answer(relay, request)
            assert found == status, request[:80]
            check(request, headers, body)
        async with exchange(relay) as (reader, writer):
            writer.write(GET)
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        async with exchange(relay) as (reader, writer):
            writer.write_eof()
            assert await reader.read() == b"", "who says nothing is told nothing"
        assert await relay.terminate() == 0
        expected = [name for _, _, name in UNREADABLE] + ["cut_short"]
        counted: dict[str, int] = {}
        for record in relay.log:
            if record["event"] in ("requests could not be read", "limits were applied"):
                for name, count in record.items():
                    if isinstance(count, int):
                        counted[name] = counted.get(name, 0) + count
        assert counted == {name: expected.count(name) for name in expected}
        await relay.event("an address was refused", client="127.0.0.1", reason="body")


async def test_a_request_that_can_be_read_is_answered_whatever_comes_behind_it() -> None:
    async with relay_process() as relay:
        for request, status in READABLE:
            found, headers, body = await answer(relay, request)
            assert found == status, request[:80]
            check(request, headers, body)
        async with exchange(relay) as (reader, writer):
            writer.write(GET + b"\r\n")
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 200 "), "a client that closes its half reads on"


async def test_a_handshake_that_takes_too_long_gets_the_headers_of_every_answer() -> None:
    async with relay_process(RELAY_LIMITS_HANDSHAKE_TIMEOUT_SECONDS="0.5") as relay:
        for method in (b"GET", b"HEAD"):
            request = GET.replace(b"GET", method)
            status, headers, body = await answer(relay, request)
            assert status == 408
            check(request, headers, body)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_page_with_a_slash_at_its_end_leads_to_the_page(method: str) -> None:
    async with relay_process() as relay:
        found, headers, _ = await answer(
            relay, f"{method} /relay/../listen/ev1/?x=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        assert found == 404, "paths are matched as they are"
        found, headers, _ = await answer(relay, f"{method} /listen/ev1/?x=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (found, headers["Location"]) == (308, "../ev1")


async def test_head_is_get_without_the_body() -> None:
    async with relay_process(RELAY_PROMETHEUS_ENABLED="true") as relay:
        for path in ("/", "/healthz", "/readyz", "/listen/ev1", "/broadcast/ev1", "/nothing", "/v1/sessions"):
            got = await answer(relay, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = await answer(relay, f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert head == (got[0], got[1], b""), path
        metrics = await answer(relay, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (metrics[0], metrics[2]) == (200, b"")
        assert int(metrics[1]["Content-Length"]) > 0


BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"

PEOPLE = [
    (
        "/nothing",
        "de-AT,de;q=0.9,en;q=0.5",
        404,
        '<html lang="de" data-ready>',
        "Seite nicht gefunden",
        '<base href="./">',
    ),
    ("/a/b/c", "pt-BR, fr;q=0.5", 404, '<html lang="fr" data-ready>', "Page introuvable", '<base href="../../">'),
    (
        "/listen/town%20hall",
        "ar",
        400,
        '<html lang="ar" dir="rtl" data-ready>',
        "هذا العنوان غير صالح",
        '<base href="../">',
    ),
    ("/nothing", "arn, ja", 404, '<html lang="en" data-ready>', "Page not found", '<base href="./">'),
    ("/nothing", "", 404, '<html lang="en" data-ready>', "Page not found", '<base href="./">'),
]


async def test_a_person_gets_a_page_in_their_language_where_there_is_none() -> None:
    async with relay_process() as relay:
        for path, languages, status, *texts in PEOPLE:
            accept = BROWSER + (f"Accept-Language: {languages}\r\n" if languages else "")
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{accept}\r\n"
            found, headers, body = await answer(relay, request.encode())
            assert (found, headers["Content-Type"], headers["Cache-Control"]) == (
                status,
                "text/html; charset=utf-8",
                "no-store",
            )
            check(request.encode(), headers, body)
            for text in texts:
                assert text in body.decode(), (path, languages)
            assert "default-src 'self'" in headers["Content-Security-Policy"]
        found, headers, body = await answer(relay, b"GET /nothing HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n")
        assert (found, headers["Content-Type"]) == (404, "text/plain; charset=utf-8"), "a program gets a sentence"


async def test_a_person_who_is_turned_away_gets_a_page_too() -> None:
    async with relay_process(RELAY_LIMITS_MAX_REQUESTS_PER_SECOND="1") as relay:
        request = (
            f"GET /listen/ev1 HTTP/1.1\r\nHost: x\r\n{BROWSER}Connection: close\r\nAccept-Language: uk\r\n\r\n".encode()
        )
        for _ in range(40):
            found, headers, body = await answer(relay, request)
            if found != 200:
                break
        assert found == 503
        assert "Ретранслятор зайнятий" in body.decode()
        assert int(headers["Retry-After"]) > 0


async def test_a_connection_stays_open_for_the_next_page_and_ends_when_nothing_comes() -> None:
    page = b"GET /listen/ev1 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with relay_process() as relay, exchange(relay) as (reader, writer):
        for request in (page, b"HEAD /listen/ev1 HTTP/1.1\r\nHost: x\r\n\r\n", page):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"connection:" not in head.lower()
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            if request is page:
                assert b"</html>" in await reader.readexactly(length)
        assert await reader.read() == b"", "an idle connection is closed without an answer"
    async with relay_process() as relay:
        found, headers, body = await answer(relay, page + page)
        assert found == 200
        assert headers["Connection"] == "close", "two at once are not both answered"
        assert int(headers["Content-Length"]) == len(body)


async def test_a_body_is_bounded() -> None:
    head = b"POST /listen/ev1 HTTP/1.1\r\nHost: x\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    async with relay_process(RELAY_LIMITS_MAX_BODY_BYTES="10") as relay:
        for request, status in (
            (head + b"Content-Length: 10\r\n\r\n0123456789", 405),
            (head + b"Content-Length: 11\r\n\r\n0123456789", 413),
            (chunked + b"a\r\n0123456789\r\n0\r\n\r\n", 405),
            (chunked + b"a\r\n0123456789\r\n1\r\n0\r\n0\r\n\r\n", 413),
            (chunked + b"not a length\r\n", 400),
            (head + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n", 405),
        ):
            found, headers, body = await answer(relay, request)
            assert found == status, request
            check(request, headers, body)
        assert await relay.terminate() == 0
        await relay.event("limits were applied", max_body_bytes=2)
