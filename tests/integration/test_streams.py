"""A channel over HTTP: programs that know nothing of the relay play it, by the rules for every listener."""

import asyncio
import io
import re
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.media.ogg_pages import Page, PageReader
from relay.vocabulary.containers import Container
from tests.support.certificates import Certificate, make_certificate
from tests.support.nginx import nginx
from tests.support.operator import ask
from tests.support.processes import RelayProcess, relay_process
from tests.support.tokens import SECRET, seconds_from_now, token
from tests.support.tone import Samples, sine, to_pcm

HZ = 1000
RATE = 16_000
FRAME_SECONDS = 0.02
HANG_SECONDS = 60.0
"""After this something hangs; no measure of how fast it is."""

ADMIN = {"RELAY_ACCESS_ADMIN_KEY": "key-of-an-operator", "RELAY_PROMETHEUS_ENABLED": "true"}
SMALL_BUFFER_BYTES = 4096


@asynccontextmanager
async def broadcaster(relay: RelayProcess, session: str = "ev1") -> AsyncIterator[ClientConnection]:
    async with connect(
        f"{relay.websocket_url}/v1/broadcast/{session}?name=Floor&session_name=Café",
        subprotocols=[Subprotocol("relay.v1")],
        compression=None,
        proxy=None,
        max_queue=None,
    ) as connection:
        await connection.recv()
        yield connection


async def play(connection: ClientConnection, seconds: float) -> None:
    """Send a tone in real time."""
    second = to_pcm(sine(HZ, RATE, 1.0))
    size = round(RATE * FRAME_SECONDS) * 2
    loop = asyncio.get_running_loop()
    began = loop.time()
    for count in range(round(seconds / FRAME_SECONDS)):
        await asyncio.sleep(began + count * FRAME_SECONDS - loop.time())
        at = count * size % len(second)
        await connection.send(second[at : at + size])


@asynccontextmanager
async def tone(relay: RelayProcess, session: str = "ev1") -> AsyncIterator[ClientConnection]:
    """Broadcast a tone while the block runs."""
    async with broadcaster(relay, session) as connection:
        playing = asyncio.get_running_loop().create_task(play(connection, 3600))
        try:
            yield connection
        finally:
            playing.cancel()
            await asyncio.wait([playing])


@dataclass
class Client:
    """A client of HTTP on a raw socket, which takes no more than the test reads.

    Attributes:
        body: What it got behind the head, as it came.
        has_ended: Whether the relay ended the connection.
    """

    sock: socket.socket
    head: str
    body: bytes
    has_ended: bool = False

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{name}: (.*?)\r?$", self.head, re.MULTILINE | re.IGNORECASE)
        return None if found is None else found[1]

    async def read(self, until_bytes: int | None = None) -> None:
        """Read so many bytes of the body in all, or to the end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(HANG_SECONDS):
            while until_bytes is None or len(self.body) < until_bytes:
                data = await loop.sock_recv(self.sock, 65_536)
                self.has_ended = not data
                if not data:
                    return
                self.body += data

    @property
    def chunks(self) -> list[bytes]:
        """The whole chunks so far; the last one is empty."""
        return list(split(self.body))


def split(body: bytes) -> Iterator[bytes]:
    while body:
        size, found, rest = body.partition(b"\r\n")
        length = int(size, 16) if found else len(rest) + 1
        if len(rest) < length + 2:
            return
        assert rest[length : length + 2] == b"\r\n"
        yield rest[:length]
        body = rest[length + 2 :]


@asynccontextmanager
async def client(relay: RelayProcess, request: str, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    """Send a request, such as `GET /stream/ev1.mp3 HTTP/1.1` with more headers, and read the head of the answer."""
    address = urlsplit(relay.url)
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await loop.sock_connect(sock, (address.hostname, address.port))
        lines = request.split("\n") + ([] if "Host:" in request else [f"Host: {address.netloc}"])
        await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
        said = b""
        async with asyncio.timeout(HANG_SECONDS):
            while b"\r\n\r\n" not in said:
                data = await loop.sock_recv(sock, 1024)
                assert data, said
                said += data
        head, _, body = said.partition(b"\r\n\r\n")
        yield Client(sock, head.decode(), body)


def decode(source: str | io.BytesIO, seconds: float) -> Samples:
    """Play so many seconds with FFmpeg, as one of its many programs does."""
    # PyAV keeps the interpreter's lock in short steps only, so this runs in a thread.
    with av.open(source, "r", timeout=HANG_SECONDS) as file:
        resampler = av.AudioResampler("s16p", "mono", 48_000)
        parts: list[Samples] = []
        for frame in file.decode(audio=0):
            parts += [each.to_ndarray()[0] / 32768 for each in resampler.resample(frame)]
            if sum(map(len, parts)) >= seconds * 48_000:
                break
    return np.concatenate(parts)


def loudest(samples: Samples) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * 48_000 / len(samples))


def pages(data: bytes) -> list[Page]:
    reader = PageReader(io.BytesIO(data))
    found = list(reader)
    assert not reader.damaged
    return found


async def listeners_of(relay: RelayProcess, session: str = "ev1") -> list[dict[str, object]]:
    reply = await ask(relay.url, "GET", f"/v1/sessions/{session}", ADMIN["RELAY_ACCESS_ADMIN_KEY"])
    return list(reply.json["worst_listeners"])


@pytest.mark.parametrize("container", Container)
async def test_ffmpeg_plays_a_channel_from_its_address(container: Container) -> None:
    async with relay_process() as relay, tone(relay):
        samples = await asyncio.to_thread(decode, f"{relay.url}/stream/ev1{container.ending}?burst_ms=1000", 5.0)
    assert len(samples) >= 5 * 48_000
    assert loudest(samples[24_000:]) == pytest.approx(HZ, abs=2)
    assert np.abs(samples[24_000:]).max() == pytest.approx(0.5, abs=0.1)


async def test_the_head_says_what_it_is_and_chunks_are_whole_pages() -> None:
    async with relay_process() as relay, tone(relay):
        for container in Container:
            path = f"/stream/ev1/main{container.ending}"
            async with client(relay, f"GET {path} HTTP/1.1") as listener:
                assert listener.status == 200
                assert listener.header("Content-Type") == container.media_type
                assert listener.header("Transfer-Encoding") == "chunked"
                assert listener.header("Cache-Control") == "no-store"
                assert listener.header("icy-name") == "Café – Floor"
                assert listener.header("Content-Length") is None
                await listener.read(4000)
                if container is Container.OGG:
                    head, *others = listener.chunks
                    assert [len(pages(head)), *{len(pages(each)) for each in others}] == [2, 1]
            async with client(relay, f"HEAD {path} HTTP/1.1") as listener:
                await listener.read()
                assert (listener.status, listener.body) == (200, b"")
                assert listener.header("Content-Type") == container.media_type
        async with client(relay, "GET /stream/ev1.opus HTTP/1.0") as listener:
            assert listener.header("Transfer-Encoding") is None
            await listener.read(4000)
            assert listener.body.startswith(b"OggS")
            assert len(pages(listener.body[: listener.body.rfind(b"OggS")])) > 2


async def test_a_session_that_waits_is_silent_and_then_heard() -> None:
    async with relay_process() as relay, client(relay, "GET /stream/ev1.opus HTTP/1.1") as listener:
        assert listener.status == 200
        await listener.read(600)
        quiet = len(listener.chunks)
        async with tone(relay):
            await listener.read(len(listener.body) + 20_000)
    samples = decode(io.BytesIO(b"".join(listener.chunks)), HANG_SECONDS)
    numbers = [page.number for page in pages(b"".join(listener.chunks))]
    assert quiet >= 2
    assert numbers == list(range(len(numbers))), "it was the first listener, so there is no hole behind the head"
    assert np.abs(samples[:24_000]).max() < 0.001
    assert loudest(samples[-48_000:]) == pytest.approx(HZ, abs=2)


async def test_a_slow_reader_loses_whole_pages_and_all_of_them_are_counted() -> None:
    settings = ADMIN | {"RELAY_LISTENER_MAX_BUFFER_SECONDS": "1", "RELAY_BROADCAST_OPEN": "true"}
    async with (
        relay_process(**settings) as relay,
        broadcaster(relay) as source,
        client(relay, "GET /stream/ev1.opus HTTP/1.1") as quick,
        client(relay, "GET /stream/ev1.opus HTTP/1.1", SMALL_BUFFER_BYTES) as slow,
    ):
        reading = asyncio.get_running_loop().create_task(quick.read())
        await play(source, 12)
        (worst, _) = await listeners_of(relay)
        assert worst["dropped_seconds"]
        reading_too = asyncio.get_running_loop().create_task(slow.read())
        await play(source, 2)
        await source.send('{"type":"end"}')
        await asyncio.wait([reading, reading_too])
        metrics = (await ask(relay.url, "GET", "/metrics")).body
    all_pages, got = pages(b"".join(quick.chunks)), pages(b"".join(slow.chunks))
    assert quick.chunks[-1] == slow.chunks[-1] == b""
    assert [page.number for page in all_pages] == list(range(all_pages[-1].number + 1))
    assert got[-1] == all_pages[-1]
    assert got[-1].is_last
    lost = {page.number for page in all_pages[2:]} - {page.number for page in got[2:]}
    assert len(lost) >= 20
    assert f"relay_frames_dropped_total {float(len(lost))}" in metrics
    assert f"relay_frames_delivered_total {float(len(all_pages) + len(got) - 4)}" in metrics
    assert decode(io.BytesIO(b"".join(slow.chunks)), HANG_SECONDS).any()


async def test_a_stream_is_admitted_like_a_listener() -> None:
    settings = {
        "RELAY_ACCESS_OPEN_SESSIONS": "open",
        "RELAY_ACCESS_TOKEN_SECRET": SECRET,
        "RELAY_ACCESS_ALLOWED_ORIGINS": "same-origin,https://www.example.org",
        "RELAY_LIMITS_MAX_LISTENERS_PER_SESSION": "1",
    }
    bearer, path = f"Authorization: Bearer {token()}", "/stream/ev1.mp3"
    async with relay_process(**settings) as relay:
        statuses = {}
        for request in (
            f"GET {path} HTTP/1.1",
            f"HEAD {path} HTTP/1.1",
            f"GET {path}?token={token()} HTTP/1.1",
            f"GET {path} HTTP/1.1\nAuthorization: Bearer {token(session='ev2')}",
            f"GET {path} HTTP/1.1\n{bearer}",
            "GET /stream/open.opus HTTP/1.1",
            "GET /stream/open HTTP/1.1",
            "GET /stream/open/main/more.opus HTTP/1.1",
            "GET /stream/open.wav?burst_ms=much HTTP/1.1",
            "POST /stream/open.wav HTTP/1.1",
            "GET /stream/open.wav HTTP/1.1\nOrigin: https://elsewhere.example.org",
        ):
            async with client(relay, request) as found:
                statuses[request.replace(token(), "TOKEN")] = found.status
        assert list(statuses.values()) == [401, 401, 401, 401, 200, 200, 400, 400, 400, 405, 403]
        shared = f"GET {path} HTTP/1.1\n{bearer}\nOrigin: https://www.example.org"
        async with client(relay, shared) as first:
            assert first.header("Access-Control-Allow-Origin") == "https://www.example.org"
            async with client(relay, f"GET {path} HTTP/1.1\n{bearer}") as second:
                await second.read()
                assert (second.status, second.header("Retry-After") is not None) == (503, True)
                assert second.body == b"This session is full; try again in a moment.\n"
        asked = f"OPTIONS {path} HTTP/1.1\nOrigin: https://www.example.org"
        async with client(relay, asked) as preflight:
            assert preflight.status == 204
            assert preflight.header("Access-Control-Allow-Headers") == "Authorization"
    settings |= {"RELAY_ACCESS_TOKEN_IN_QUERY": "true", "RELAY_ACCESS_ALLOWED_ORIGINS": "*"}
    async with (
        relay_process(**settings) as relay,
        client(relay, f"GET {path}?token={token()} HTTP/1.1\nOrigin: https://elsewhere.example.org") as listener,
    ):
        assert (listener.status, listener.header("Access-Control-Allow-Origin")) == (200, "*")


@pytest.mark.parametrize("asked", ["GET /stream/ev1.opus", "OPTIONS /stream/ev1.opus", "GET /v1/listen/ev1"])
async def test_no_page_has_two_origins(asked: str) -> None:
    origins = "Origin: https://a.example\nOrigin: https://b.example"
    async with relay_process(RELAY_ACCESS_ALLOWED_ORIGINS="*") as relay:
        async with client(relay, f"{asked} HTTP/1.1\n{origins}") as refused:
            assert refused.status == 403
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text


async def test_requests_for_streams_have_the_rate_of_joins() -> None:
    async with relay_process(RELAY_LIMITS_MAX_JOINS_PER_SECOND_PER_ADDRESS="1") as relay, asyncio.timeout(HANG_SECONDS):
        status = 200
        while status == 200:
            async with client(relay, "HEAD /stream/ev1.wav HTTP/1.1\nX-Forwarded-For: 198.51.100.7") as found:
                status = found.status
        assert (status, found.header("Retry-After") is not None) == (429, True)


async def test_what_a_relay_can_not_make_is_not_there() -> None:
    async with (
        relay_process(RELAY_STREAM_ENABLED="false") as relay,
        client(relay, "GET /stream/ev1.mp3 HTTP/1.1") as listener,
    ):
        await listener.read()
        assert listener.status == 404
        assert listener.body == b"This relay serves no HTTP streams; its operator can set stream.enabled.\n"


async def test_operators_and_metrics_see_streams_and_a_disconnected_one_ends_in_order() -> None:
    settings = ADMIN | {"RELAY_BROADCAST_OPEN": "true"}
    async with relay_process(**settings) as relay, tone(relay):
        async with client(relay, "GET /stream/ev1.mp3 HTTP/1.1") as listener:
            await listener.read(4000)
            (shown,) = await listeners_of(relay)
            assert (shown["codec"], shown["framing"], shown["client_address"]) == ("mp3", "http", "127.0.0.1")
            metrics = (await ask(relay.url, "GET", "/metrics")).body
            assert 'relay_codec_listeners{codec="mp3"} 1.0' in metrics
            assert re.search(r'relay_bytes_delivered_total\{codec="mp3"\} [1-9]', metrics)
            target = f"/v1/sessions/ev1/connections/{shown['connection_id']}"
            assert (await ask(relay.url, "DELETE", target, ADMIN["RELAY_ACCESS_ADMIN_KEY"])).status == 200
            await listener.read()
            assert listener.chunks[-1] == b""
        async with client(relay, "GET /stream/ev1.mp3 HTTP/1.1") as listener:
            await listener.read(4000)
        while await listeners_of(relay):
            pass
        metrics = (await ask(relay.url, "GET", "/metrics")).body
    assert 'relay_closings_total{code="4501",role="listen"} 1.0' in metrics
    assert re.search(r'relay_closings_total\{code="100[16]",role="listen"\} 1.0', metrics)


async def test_streams_end_in_order_when_the_relay_stops_and_when_a_token_expires() -> None:
    async with relay_process() as relay, tone(relay), client(relay, "GET /stream/ev1.opus HTTP/1.1") as listener:
        await listener.read(2000)
        stopping = asyncio.get_running_loop().create_task(relay.terminate())
        await listener.read()
        assert listener.chunks[-1] == b""
        assert await stopping == 0
    settings = {"RELAY_ACCESS_OPEN_SESSIONS": "[]", "RELAY_ACCESS_TOKEN_SECRET": SECRET}
    settings |= {"RELAY_ACCESS_TOKEN_LEEWAY_SECONDS": "0"}
    async with relay_process(**settings) as relay:
        soon = token(exp=int(seconds_from_now(3)))
        async with client(relay, f"GET /stream/ev1.opus HTTP/1.1\nAuthorization: Bearer {soon}") as listener:
            await listener.read()
            assert listener.chunks[-1] == b""
        await relay.event("connection closed", code=4001)


async def test_a_reader_that_stalls_or_sends_is_cut_off() -> None:
    settings = {"RELAY_LISTENER_STALL_LIMIT_SECONDS": "1", "RELAY_LISTENER_MAX_BUFFER_SECONDS": "1"}
    async with relay_process(**settings) as relay, tone(relay):
        async with client(relay, "GET /stream/ev1.wav HTTP/1.1", SMALL_BUFFER_BYTES):
            stalled = await relay.event("connection closed", role="listen")
            assert stalled["reason"] == "The client read nothing for 1 s."
        async with client(relay, "GET /stream/ev1.opus HTTP/1.1") as listener:
            loop = asyncio.get_running_loop()
            with pytest.raises(OSError, match=r"reset|pipe"):
                while True:
                    await loop.sock_sendall(listener.sock, bytes(1024))
                    await asyncio.sleep(0)


async def test_a_stream_comes_over_tls_and_through_nginx(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tls = {
        "RELAY_SERVER_TLS_CERTIFICATE": str(certificate.certificate),
        "RELAY_SERVER_TLS_KEY": str(certificate.key),
    }
    async with relay_process(**tls) as relay:
        url = f"{relay.url}/stream/ev1.opus".replace("127.0.0.1", "localhost")
        async with asyncio.timeout(HANG_SECONDS):
            data = await asyncio.to_thread(fetch, url, certificate, 3000)
        assert len(pages(data[: data.rfind(b"OggS")])) > 3
    async with relay_process() as relay:
        port = urlsplit(relay.url).port
        assert port is not None
        async with nginx(tmp_path, certificate, port) as (_, https_port), tone(relay):
            url = f"https://localhost:{https_port}/stream/ev1.mp3"
            data = await asyncio.to_thread(fetch, url, certificate, 24_000)
    assert loudest(decode(io.BytesIO(data), 10)[24_000:]) == pytest.approx(HZ, abs=2)


def fetch(url: str, certificate: Certificate, size: int) -> bytes:
    """Read so many bytes of a stream, as they come."""
    with urllib.request.urlopen(url, context=certificate.trusting, timeout=HANG_SECONDS) as response:  # noqa: S310 - https
        return bytes(response.read(size))
