"""The site in config/nginx.conf, changed for a relay under a path as in docs/guides/https.md, with a real nginx."""

import asyncio
import http.client
import ssl
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.support.certificates import Certificate, make_certificate
from tests.support.nginx import nginx, site_under_a_path
from tests.support.processes import relay_process, running

KEYS = {"RELAY_BROADCAST_KEY": "a-broadcast-key", "RELAY_ACCESS_ADMIN_KEY": "an-admin-key"}

SECONDS = 1
"""The length of the audio."""


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


@asynccontextmanager
async def site(folder: Path, certificate: Certificate) -> AsyncIterator[str]:
    """Run a relay and the site, and yield `127.0.0.1:PORT/relay`."""
    async with relay_process(**KEYS) as relay:
        port = urlsplit(relay.url).port
        assert port is not None
        async with nginx(folder, certificate, port, site=site_under_a_path()) as (_, secure_port):
            yield f"127.0.0.1:{secure_port}/relay"


def write_wav(path: Path) -> bytes:
    """Write a file in which no two samples are alike, and return its audio."""
    audio = np.random.default_rng(1).integers(-32768, 32768, 16_000 * SECONDS, np.int16).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(audio)
    return audio


async def run(*arguments: str, **settings: str) -> list[str]:
    """Run `relay ARGUMENTS`, which must succeed, and return the lines of standard error."""
    async with running(*arguments, **settings) as process:
        code = await process.wait()
        assert code == 0, process.text
        return process.lines


async def test_every_command_reaches_the_relay(tmp_path: Path, certificate: Certificate) -> None:
    settings = {**KEYS, "SSL_CERT_FILE": str(certificate.certificate)}
    async with site(tmp_path, certificate) as place:
        audio = write_wav(tmp_path / "sent.wav")
        received = tmp_path / "received.wav"
        listen = ("listen", "ev1", "--url", f"wss://{place}", "-o", str(received))
        async with running(*listen, **settings) as listener:
            await listener.line(lambda line: line.startswith(f"listening to ev1/main at wss://{place} "))
            await run("broadcast", "ev1", str(tmp_path / "sent.wav"), "--url", f"https://{place}/", **settings)
            assert await listener.wait() == 0, listener.text
        with wave.open(str(received)) as reader:
            assert reader.readframes(reader.getnframes()) == audio
        for url in (f"https://{place}", f"wss://{place}/"):
            assert await run("sessions", "--url", url, **settings) == ["there are no sessions"]
        await run("loadtest", "--url", f"https://{place}/", "--listeners", "2", "--duration", "1", **settings)


def ask(place: str, path: str, context: ssl.SSLContext) -> tuple[int, str | None]:
    """Request a path of the relay, and return the status and the Location header."""
    host, _, prefix = place.partition("/")
    connection = http.client.HTTPSConnection(host, context=context, timeout=10)
    try:
        connection.request("GET", f"/{prefix}{path}")
        response = connection.getresponse()
        return response.status, response.headers["Location"]
    finally:
        connection.close()


async def test_no_answer_leads_out_of_the_path_and_what_is_for_the_operator_stays_so(
    tmp_path: Path, certificate: Certificate
) -> None:
    paths = ["/listen/ev1/?a=b", "/broadcast/ev1/de/", "/healthz", "/readyz", "/metrics"]
    async with site(tmp_path, certificate) as place:
        answers = [await asyncio.to_thread(ask, place, path, certificate.trusting) for path in paths]
    assert answers == [(308, "../ev1"), (308, "../de"), *[(403, None)] * 3]
