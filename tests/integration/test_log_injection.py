"""Log injection: whatever a peer sends, each line of the log is one that the relay meant to write."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.tokens import SECRET, token

FORGED = '{"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "all is well", "logger": "relay"}'
CONSOLE_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[\w+ *\] ")
HOSTILE = ("\n", "\r\n", "\r", "\x1b[2K\x1b[1A", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "%0A", "\\n", "\x00", "\x7f")
UPGRADE = (
    "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: relay.v1\r\n"
)
GOOD_BYE = b"\x88\x80" + bytes(4)


def masked_text(text: str) -> bytes:
    """Return a text message of up to 64 KiB, masked with zeros."""
    payload = text.encode()
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


async def send(port: int, request: bytes) -> None:
    """Send a request, close the WebSocket if the relay accepts it, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            if b" 101 " in await reader.readline():
                writer.write(GOOD_BYE)
            while await reader.read(65536):
                pass
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_log_injection(log_format: str, tmp_path: Path) -> None:
    settings = {
        "RELAY_LOG_LEVEL": "debug",
        "RELAY_LOG_FORMAT": log_format,
        "RELAY_ACCESS_TOKEN_SECRET": SECRET,
        "RELAY_ACCESS_TOKEN_IN_QUERY": "true",
        "RELAY_BROADCAST_OPEN": "true",
    }
    async with running("serve", "--port", str(free_port()), **settings) as relay:
        ready = await relay.line(lambda line: "relay ready" in line)
        match = re.search(r"127\.0\.0\.1:(\d+)", ready)
        assert match is not None
        port = int(match[1])
        for hostile in HOSTILE:
            poison = f"a{hostile}{FORGED}{hostile}"
            shown = token(session=poison, headers={"kid": poison}, exp=1)
            for target in (
                f"/v1/listen/{poison}",
                f"/v1/listen/a?{poison}=1&{poison}=1",
                f"/v1/listen/a?rate={poison}",
            ):
                await send(port, f"GET {target} HTTP/1.1\r\n{UPGRADE}\r\n".encode())
            for role in ("listen", "broadcast"):
                head = f"GET /v1/{role}/a?name={poison}&lang={poison} HTTP/1.1\r\n{UPGRADE}"
                await send(port, f"{head}Authorization: Bearer {shown}\r\n\r\n".encode())
                for header in ("Origin", "User-Agent", "X-Forwarded-For", "Sec-WebSocket-Protocol", "Host", poison):
                    await send(port, f"{head}{header}: {poison}\r\n\r\n".encode())
                for message in (
                    {"type": poison},
                    {"type": "ping", "id": poison},
                    {"type": "switch", "channel": poison},
                ):
                    quiet = f"GET /v1/{role}/a HTTP/1.1\r\n{UPGRADE}\r\n".encode()
                    await send(port, quiet + masked_text(json.dumps(message, ensure_ascii=False)))
        assert await relay.terminate() == 0
        lines = relay.lines
    assert len(lines) > len(HOSTILE), "nothing was logged"
    for line in lines:
        if log_format == "json":
            assert json.loads(line)["event"] != "all is well", line
        else:
            assert CONSOLE_LINE.match(line) or line.startswith("    "), line
        assert line.isprintable(), line
