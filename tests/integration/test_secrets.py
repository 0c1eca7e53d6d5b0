"""Canaries: a relay receives secrets in its settings and in every kind of request, and none may appear in its output.

The test searches the log in both formats at the finest level, every response, error message and close reason, the
metrics, the requests to CloudWatch, what other users see of the processes, and the output of the commands.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from tests.support.cloudwatch import REGION, cloudwatch_endpoint
from tests.support.ports import free_port
from tests.support.processes import Process, environment, few_at_once, running
from tests.support.tokens import ED25519_KEY, private_pem, token

BROADCAST_KEY = "canary-of-the-broadcast-key"
ADMIN_KEY = "canary-of-the-admin-key"
TOKEN_SECRET = "canary-of-the-shared-secret-of-tokens"  # noqa: S105 - a canary
AWS_SECRET = "canary-of-the-cloud"  # noqa: S105 - a canary
RIGHT = token(key=TOKEN_SECRET, role=["listen", "broadcast"], session="*")
EXPIRED = token(key=TOKEN_SECRET, exp=1)
GUESS = "canary-of-somebody-who-guesses"
SESSION_CLAIMS = token(key=TOKEN_SECRET, session="canary of a claim")

HANDSHAKE = "Host: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
NO_FRAME = b"\x81\x00"
GZIP = b"\x1f\x8b\x08"
KEY_LINE = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


def canaries(private_key: str) -> list[str]:
    """Return the texts that must appear nowhere; for a token, the part that needs the key."""
    signatures = [shown.rpartition(".")[2] for shown in (RIGHT, EXPIRED, SESSION_CLAIMS)]
    return [BROADCAST_KEY, ADMIN_KEY, TOKEN_SECRET, AWS_SECRET, GUESS, *signatures, private_key.splitlines()[1]]


def requests(host: str) -> Iterator[bytes]:
    """Yield requests with right and wrong secrets in every place, in valid and in broken requests."""
    for shown in (RIGHT, EXPIRED, SESSION_CLAIMS, GUESS, BROADCAST_KEY, ADMIN_KEY):
        for method, path in (("GET", ""), ("GET", "/ev1"), ("DELETE", "/ev9"), ("DELETE", f"/ev1/connections/{shown}")):
            bare = f"Host: {host}\r\n"
            yield f"{method} /v1/sessions{path} HTTP/1.1\r\n{bare}Authorization: Bearer {shown}\r\n\r\n".encode()
            yield f"{method} /v1/sessions{path}?token={shown} HTTP/1.1\r\n{bare}Cookie: {shown}\r\n\r\n".encode()
        for role in ("listen", "broadcast"):
            for version in ("relay.v1", "other"):
                good = HANDSHAKE.format(host=host) + KEY_LINE
                offer = f"Sec-WebSocket-Protocol: {version}, relay.token.{shown}\r\n"
                for line, head in (
                    (f"GET /v1/{role}/ev1 HTTP/1.1", f"{good}Authorization: Bearer {shown}\r\n"),
                    (f"GET /v1/{role}/ev1 HTTP/1.1", good + offer),
                    (f"GET /v1/{role}/ev1?token={shown} HTTP/1.1", good),
                    (f"GET /v1/{role}/ev1?token={shown}&token={shown} HTTP/1.1", good),
                    (f"GET /v1/{role}/ev1?token={shown}&rate=x HTTP/1.1", good + offer),
                    (
                        f"GET /v1/{role}/ev1?token={shown} HTTP/1.1",
                        good + offer.replace("relay.token", "relay. @ token"),
                    ),
                    (f"GET /v1/{role}/ev1 HTTP/1.1", HANDSHAKE.format(host=host) + offer),
                    (f"GET /v1/{role}/ev1 HTTP/1.1", good + f"Sec-WebSocket-Protocol: @relay.token.{shown}@\r\n"),
                    (f"GET /v1/{role}/ev1 HTTP/1.1", good.replace("13", "12") + offer),
                    (f"GET /v1/{role}/ev1?token={shown} HTTP/9.9 x", good),
                    (f"POST /v1/{role}/ev1?token={shown} HTTP/1.1", good + offer),
                    (f"GET /healthz?token={shown} HTTP/1.1", good + offer),
                    (f"GET /metrics?token={shown} HTTP/1.1", good),
                    (f"GET /{role}/ev1?token={shown} HTTP/1.1", good + offer),
                    (f"GET /nothing?token={shown} HTTP/1.1", f"{good}Origin: https://evil.example\r\n{offer}"),
                    (f"GET /v1/{role}/ev1?token={shown} HTTP/1.1", f"{good}Origin: https://evil.example\r\n{offer}"),
                    (f"GET /v1/{role}/ev1 HTTP/1.1", f"{good}{offer}no colon in {shown}\r\n"),
                    (f"GET /v1/{role}/ev1 HTTP/1.1", f"{good}X: {shown * 300}\r\n"),
                ):
                    yield f"{line}\r\n{head}\r\n".encode()


async def ask(host: str, request: bytes) -> bytes:
    """Send a request, and a forbidden frame if it is accepted; return everything received until the end."""
    name, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    try:
        async with asyncio.timeout(20):
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer.startswith(b"HTTP/1.1 101"):
                if b"relay.v1" in answer:
                    answer += await reader.read(2)
                writer.write(NO_FRAME)
            else:
                with contextlib.suppress(OSError):  # the relay then closes the connection after the response
                    writer.write_eof()
            return answer + await reader.read()
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


class Recorded:
    """The bytes that clients sent through a proxy."""

    def __init__(self) -> None:
        self.data = b""
        self._news = asyncio.Event()

    def add(self, data: bytes) -> None:
        self.data += data
        self._news.set()

    @property
    def text(self) -> bytes:
        """Return all bytes, with a decompressed copy of what was compressed."""
        starts = [match.start() for match in re.finditer(re.escape(GZIP), self.data)]
        return self.data + b"".join(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(self.data[at:]) for at in starts)

    async def wait_for(self, wanted: bytes) -> None:
        async with asyncio.timeout(20):
            while wanted not in self.text:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def recorder(target: str) -> AsyncIterator[tuple[str, Recorded]]:
    """Run a TCP proxy in front of `target`; yield its URL and what its clients send."""
    sent = Recorded()
    name, _, port = target.rpartition(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: Recorded) -> None:
        try:
            while data := await reader.read(65536):
                record.add(data)
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(name, int(port))
        await asyncio.gather(copy(reader, there_writer, sent), copy(there_reader, writer, Recorded()))

    server = await asyncio.start_server(serve, "127.0.0.1", free_port())
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
    finally:
        server.close()


def process_titles(pid: int) -> bytes:
    """Return what other users see of a process: its arguments and the names of its threads."""
    folder = Path(f"/proc/{pid}")
    return (folder / "cmdline").read_bytes() + b"".join(path.read_bytes() for path in folder.glob("task/*/comm"))


async def output(*arguments: str, **settings: str) -> bytes:
    """Return all output of a command."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(settings),
    )
    printed, _ = await command.communicate()
    return printed


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """Return the settings of a relay with every kind of secret."""
    key = tmp_path / "own.pem"
    key.write_text(private_pem(ED25519_KEY))
    return {
        "RELAY_BROADCAST_KEY": BROADCAST_KEY,
        "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY,
        "RELAY_ACCESS_TOKEN_SECRET": TOKEN_SECRET,
        "RELAY_ACCESS_TOKEN_KEY_FILES": str(key),
        "RELAY_ACCESS_OPEN_SESSIONS": "[]",
        "RELAY_ACCESS_TOKEN_IN_QUERY": "true",
        "RELAY_CLIENT_TOKEN": RIGHT,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "AWS_CONFIG_FILE": os.devnull,
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_secret_leaves_a_running_relay(secrets: dict[str, str], tmp_path: Path, log_format: str) -> None:
    with cloudwatch_endpoint() as moto:
        async with recorder(urlsplit(moto).netloc) as (endpoint, to_cloudwatch):
            settings = secrets | {
                "RELAY_LOG_LEVEL": "debug",
                "RELAY_LOG_FORMAT": log_format,
                "RELAY_CLOUDWATCH_ENABLED": "true",
                "RELAY_CLOUDWATCH_ENDPOINT_URL": endpoint,
                "RELAY_CLOUDWATCH_REGION": REGION,
                "RELAY_CLOUDWATCH_SESSION_DIMENSION": "true",
                "RELAY_CLOUDWATCH_FLUSH_INTERVAL_SECONDS": "0.2",
                "RELAY_CLOUDWATCH_UTILIZATION_INTERVAL_SECONDS": "0.1",
            }
            async with running("serve", "--port", str(free_port()), **settings) as relay:
                host = await ready_host(relay)
                answers = b"".join([await ask(host, request) for request in requests(host)])
                titles = process_titles(relay.pid)
                headers = {"Authorization": f"Bearer {RIGHT}"}
                async with connect(f"ws://{host}/v1/listen/ev2", additional_headers=headers, proxy=None):
                    await to_cloudwatch.wait_for(b"ActiveBuffers")
                assert await relay.terminate() == 0
                log = relay.text
    # Make sure that there was something to search.
    assert answers.count(b"101 Switching Protocols") > 30
    assert b"Not allowed" in answers
    assert b"403 Forbidden" in answers
    assert b'"sessions":[' in answers
    assert "a client was refused" in log
    assert "broadcaster joined" in log
    assert "listener joined" in log
    assert "Traceback" not in log
    everything = {"answers": answers, "log": log.encode(), "titles": titles, "CloudWatch": to_cloudwatch.text}
    found = {
        (place, canary)
        for place, text in everything.items()
        for canary in canaries(secrets_key(tmp_path))
        if canary.encode() in text
    }
    assert not found


def secrets_key(folder: Path) -> str:
    return (folder / "own.pem").read_text()


async def ready_host(relay: Process) -> str:
    line = await relay.line(lambda line: "relay ready" in line)
    match = re.search(r"http://([0-9.]+:[0-9]+)", line)
    assert match is not None
    return match[1]


async def test_no_secret_is_in_what_commands_print(secrets: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text(f'[broadcast]\nkey = "{GUESS} with a space"\n[access]\ntoken_secret = ["{GUESS}"]\n')
    damaged = tmp_path / "damaged.pem"
    damaged.write_text((tmp_path / "own.pem").read_text().replace("M", "N", 1))
    commands: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
        "config": (("config",), {}),
        "config toml": (("config", "--format", "toml"), {}),
        "config json": (("config", "--format", "json"), {}),
        "wrong settings": (("config", "--config", str(broken)), {}),
        "wrong secret": (("serve",), {"RELAY_ACCESS_TOKEN_SECRET": f"{GUESS} {'x' * 40}"}),
        "damaged key": (("serve",), {"RELAY_ACCESS_TOKEN_KEY_FILES": str(damaged)}),
        "no relay": (("broadcast", "ev1", "relay/samples/counting.wav", "--url", "ws://127.0.0.1:1"), {}),
        "listen": (("listen", "ev1", "--url", "ws://127.0.0.1:1"), {}),
        "sessions": (("sessions", "--url", "ws://127.0.0.1:1"), {}),
        "one key for both": (("serve",), {"RELAY_ACCESS_ADMIN_KEY": BROADCAST_KEY}),
        "a token": (("token", "--role", "listen", "--session", "ev1", "--key-id", "secret"), {}),
        "an explanation": (("token", "inspect", EXPIRED), {}),
        "a refusal": (("token", "inspect", GUESS), {}),
    }
    outputs = await few_at_once([output(*arguments, **secrets | more) for arguments, more in commands.values()])
    printed = dict(zip(commands, outputs, strict=True))
    assert b"broadcast.key" in printed["config"]
    assert b"expired" in printed["an explanation"]
    for name, text in printed.items():
        assert text, name
        for canary in canaries(secrets_key(tmp_path)):
            assert canary.encode() not in text, (name, canary)
            assert json.dumps(canary).encode() not in text, (name, canary)
