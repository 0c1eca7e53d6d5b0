"""A proxy that makes a relay appear as several relays on machines whose clocks differ.

It forwards connections to one relay, and rewrites what a clock says in the WebSocket messages to listeners: `clock_ms`,
`clock_id`, and the due time of each frame. So the nodes carry the same audio, and the difference of their clocks is
exact.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from relay.protocol.wire import HEADER_BYTES, WORD_MASK
from tests.support.ports import free_port

_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_DUE_OFFSET = 12
_READ_BYTES = 65536


class Nodes:
    """Forwards connections to a relay, through one node after another.

    Attributes:
        url: Where clients connect.
    """

    def __init__(self, relay_url: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = urlsplit(relay_url).port
        self._ahead_ms = 0
        self._node = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def move(self, ahead_ms: int) -> None:
        """Lead all further connections to another node, whose clock is so far ahead of the relay's."""
        self._ahead_ms = ahead_ms
        self._node += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        relay_reader, relay_writer = await asyncio.open_connection("127.0.0.1", self._port)
        answer = _Answer(self._ahead_ms, f"node {self._node}")
        pair = {writer, relay_writer}
        self._writers |= pair
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_forward(reader, relay_writer))
            tasks.create_task(answer.forward(relay_reader, writer))
        self._writers -= pair

    def close(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class _Answer:
    """What the relay sends on one connection."""

    def __init__(self, ahead_ms: int, clock_id: str) -> None:
        self._ahead_ms = ahead_ms
        self._clock_id = clock_id

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward everything, and rewrite the messages of a WebSocket."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            if head.startswith(b"HTTP/1.1 101 "):
                while True:
                    writer.write(await self._read_frame(reader))
                    await writer.drain()
            await _forward(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read_frame(self, reader: asyncio.StreamReader) -> bytes:
        """Read one WebSocket frame from the relay, which masks and compresses none, and return the rewritten one."""
        first, length = await reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
        payload = await reader.readexactly(length)
        if first == _FINAL_TEXT:
            payload = self._rewrite_text(payload)
        elif first == _FINAL_BINARY and length >= HEADER_BYTES:
            due_ms = self._shift(int.from_bytes(payload[_DUE_OFFSET:HEADER_BYTES]))
            payload = payload[:_DUE_OFFSET] + due_ms.to_bytes(4) + payload[HEADER_BYTES:]
        size = len(payload)
        length_bytes = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2)
        return bytes([first]) + (length_bytes if size < 1 << 16 else b"\x7f" + size.to_bytes(8)) + payload

    def _rewrite_text(self, payload: bytes) -> bytes:
        message = json.loads(payload)
        if "clock_ms" not in message:
            return payload
        message["clock_ms"] = self._shift(message["clock_ms"])
        if message["type"] == "hello":
            message["clock_id"] = self._clock_id
        return json.dumps(message).encode()

    def _shift(self, wire_ms: int) -> int:
        return (wire_ms + self._ahead_ms) & WORD_MASK


@asynccontextmanager
async def nodes_of(relay_url: str) -> AsyncIterator[Nodes]:
    """Run the proxy in front of `http://127.0.0.1:PORT` while the block runs."""
    nodes = Nodes(relay_url, free_port())
    server = await asyncio.start_server(nodes.serve, "127.0.0.1", urlsplit(nodes.url).port)
    try:
        yield nodes
    finally:
        server.close()
        nodes.close()
        await server.wait_closed()
