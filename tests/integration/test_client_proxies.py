"""A proxy from the environment between the commands and a relay: errors name the proxy, not the relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.client_commands import KEY, noise, refused, write_wav
from tests.support.ports import free_port
from tests.support.processes import few_at_once

RELAY = "http://relay.invalid:8080"
AROUND = "; unset it, or set no_proxy to relay.invalid."


@asynccontextmanager
async def proxy(answer: bytes) -> AsyncIterator[str]:
    """Run a proxy that gives every request the same answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield f"http://user:s3cret@127.0.0.1:{port}"


def commands(tmp_path: Path) -> list[tuple[str, ...]]:
    sent = str(write_wav(tmp_path / "sent.wav", noise(1_600)))
    return [
        ("listen", "ev1", "-o", str(tmp_path / "heard.wav")),
        ("broadcast", "ev1", sent),
        ("loadtest", "--listeners", "1", "--duration", "1"),
    ]


async def test_a_dead_proxy_is_named_by_every_command(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    settings = {"RELAY_CLIENT_URL": RELAY, "RELAY_BROADCAST_KEY": KEY, "https_proxy": address, "no_proxy": ""}
    said = await few_at_once(refused(settings, *command, code=2) for command in commands(tmp_path))
    named = f"The proxy {address} that the environment variable https_proxy names accepts no connections{AROUND}"
    assert said == [named] * 3


async def test_who_operates_a_relay_is_told_that_it_is_asked_directly() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    # This address belongs to this machine but is not loopback, which would bypass the proxy.
    relay = f"http://0.0.0.0:{free_port()}"
    settings = {"RELAY_CLIENT_URL": relay, "RELAY_ACCESS_ADMIN_KEY": KEY, "https_proxy": address, "no_proxy": ""}
    said = await refused(settings, "sessions", code=2)
    assert said.startswith(f"Nothing listens at {relay}. ")
    assert said.endswith(
        f" This command connects directly, not through the proxy {address} that the environment variable https_proxy "
        "names."
    )


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", f"refuses to connect to {RELAY} (HTTP 403)"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", f"refuses to connect to {RELAY} (HTTP 502)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not answer like a proxy"),
        (b"", "does not answer like a proxy"),
    ],
)
async def test_a_proxy_that_refuses_is_named_without_its_password(tmp_path: Path, answer: bytes, what: str) -> None:
    async with proxy(answer) as address:
        settings = {"RELAY_CLIENT_URL": RELAY, "https_proxy": address, "no_proxy": ""}
        said = await refused(settings, "listen", "ev1", "-o", str(tmp_path / "heard.wav"), code=2)
    shown = address.replace("user:s3cret@", "")
    assert said == f"The proxy {shown} that the environment variable https_proxy names {what}{AROUND}"
