"""Clients that attack a relay in every way at once, in a separate process, until it is stopped.

python -m tests.reliability.hostile URL
"""

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from urllib.parse import urlsplit

from websockets.frames import Opcode

from tests.support.floods import FLOODERS, FLOODS, frames
from tests.support.wire_listener import upgrade

TURN_SECONDS = 0.4
"""How long one connection floods, unless the relay cuts it off earlier."""

PATIENCE_SECONDS = 3.0
"""How long a client waits for an answer before it tries again."""

SLOW_HANDSHAKES = 100

HUGE = {
    "a frame of 4 EiB": b"\x82\xff" + (1 << 62).to_bytes(8) + bytes(4),
    "a message over the limit": frames(Opcode.BINARY, bytes(300_000), 1),
    "a control message over the limit": frames(Opcode.TEXT, b"x" * 5000, 1),
    "a ping over the limit": b"\x89\xfe\x01\x00" + bytes(4 + 256),
    "frames without a mask": b"\x82\x04\0\0\0\0" * 100,
    "reserved bits": b"\xf2\x80" + bytes(4),
}

Kind = Callable[[str], Coroutine[None, None, None]]


def flooding(target: str, data: bytes) -> Kind:
    """Join, send the same data again and again, and read nothing."""

    async def flood(url: str) -> None:
        sock, _, _ = await upgrade(url, target)
        with sock:
            async with asyncio.timeout(TURN_SECONDS):
                while True:
                    await asyncio.get_running_loop().sock_sendall(sock, data)

    return flood


async def knock(url: str) -> None:
    """Connect and disconnect as often as possible."""
    address = urlsplit(url)
    async with asyncio.timeout(TURN_SECONDS):
        while True:
            with socket.socket() as sock:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))


async def shake_hands_slowly(url: str) -> None:
    """Open many handshakes that each send one byte at a time."""
    address = urlsplit(url)
    socks = [socket.socket() for _ in range(SLOW_HANDSHAKES)]
    try:
        for sock in socks:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
        for byte in b"GET /v1/listen/ev1 HTTP/1.1\r\n":
            for sock in socks:
                with suppress(BlockingIOError):
                    sock.send(bytes([byte]))
            await asyncio.sleep(0.05)
    finally:
        for sock in socks:
            sock.close()


async def ask_for_pages(url: str) -> None:
    """Send ordinary HTTP requests, one after another."""
    address = urlsplit(url)
    async with asyncio.timeout(TURN_SECONDS):
        while True:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.read()
            writer.close()


def kinds() -> dict[str, Kind]:
    """Return every kind of attack."""
    floods = {
        f"{who}: {what}": flooding(target, data) for who, target in FLOODERS.items() for what, data in FLOODS.items()
    }
    huge = {f"{who}: {what}": flooding(target, data) for who, target in FLOODERS.items() for what, data in HUGE.items()}
    doors = {"connections": knock, "slow handshakes": shake_hands_slowly, "pages": ask_for_pages}
    return floods | huge | doors


async def main(url: str) -> None:
    async def repeat(kind: Kind) -> None:
        while True:
            # The relay may refuse the client, cut it off or slow it down.
            with suppress(OSError, TimeoutError, AssertionError, EOFError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await kind(url)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for kind in kinds().values():
            group.create_task(repeat(kind))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
