"""The peers of the pages under test: a broadcaster, a listener, a bad network before the relay, and other websites."""

import asyncio
import contextlib
import mimetypes
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.pages.files import Pages
from relay.protocol.json_messages import encode
from relay.protocol.wire import HEADER_BYTES, SUBPROTOCOL, Header
from tests.support.ports import free_port

FRAME_SECONDS = 0.02


@asynccontextmanager
async def broadcasting(relay_url: str, path: str, rate: int, second: bytes) -> AsyncIterator[None]:
    """Broadcast one second of PCM in a loop while the block runs, then end the session.

    Args:
        relay_url: `http://…`.
        path: `SESSION` or `SESSION/CHANNEL`, with an optional query.
        rate: Samples per second; the length of `second` determines whether it is mono or stereo.
        second: Audio that loops without a break.
    """
    channels = len(second) // (2 * rate)
    path, _, said = path.partition("?")
    query = f"rate={rate}&channels={channels}&{said}"
    address = f"{relay_url.replace('http', 'ws', 1)}/v1/broadcast/{path}?{query}"
    # The relay's messages are not read. In a bounded queue they would fill it, and pongs would wait behind them.
    async with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None, max_queue=None) as socket:
        await socket.recv()
        frame_bytes = round(len(second) * FRAME_SECONDS)
        twice = second + second

        async def send() -> None:
            loop = asyncio.get_running_loop()
            start = loop.time()
            position = 0
            count = 0
            while True:
                await socket.send(twice[position : position + frame_bytes])
                position = (position + frame_bytes) % len(second)
                count += 1
                await asyncio.sleep(max(0.0, start + count * FRAME_SECONDS - loop.time()))

        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send())
            try:
                yield
            finally:
                sending.cancel()
                await asyncio.wait([sending])
        await socket.send(encode("end"))
        await socket.wait_closed()


@asynccontextmanager
async def claimed(relay_url: str, path: str, query: str = "") -> AsyncIterator[ClientConnection]:
    """Hold a channel as its broadcaster, without sending audio, while the block runs."""
    address = f"{relay_url.replace('http', 'ws', 1)}/v1/broadcast/{path}?{query}"
    async with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as socket:
        await socket.recv()
        yield socket


async def listen(relay_url: str, path: str) -> AsyncGenerator[bytes]:
    """Yield the payloads of a channel's frames from the first that is not silent; fail on a missing frame."""
    address = f"{relay_url.replace('http', 'ws', 1)}/v1/listen/{path}"
    expected_seq = None
    heard = False
    async with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as socket:
        async for message in socket:
            if isinstance(message, str):
                continue
            seq = Header.unpack(message).seq
            assert expected_seq in (None, seq)
            expected_seq = seq + 1
            payload = message[HEADER_BYTES:]
            heard = heard or any(payload)
            if heard:
                yield payload


class Network:
    """Forwards HTTP and WebSocket connections to a relay, and misbehaves on request.

    Attributes:
        url: The address at which a browser reaches the relay through it.
        requested: The targets of all requests, in order.
        was_disturbed: Whether a test made it misbehave.
    """

    def __init__(self, relay_port: int, extra: Mapping[str, bytes]) -> None:
        """Create a network that also serves the files `extra`, by path, as if they came from the relay."""
        self._relay_port = relay_port
        self._extra = extra
        self._writers: set[asyncio.StreamWriter] = set()
        self._generation = 0
        self._broken = False
        self._blocks_websockets = self._blocks_streams = False
        self.was_disturbed = False
        self.url = ""
        self.requested: list[str] = []

    def break_down(self) -> None:
        """Cut every connection, and each new one until `repair`."""
        self._broken = self.was_disturbed = True
        for writer in self._writers:
            writer.transport.abort()

    def block_websockets(self) -> None:
        """Refuse every WebSocket until `repair`, like a proxy that supports only HTTP."""
        self._blocks_websockets = self.was_disturbed = True

    def block_audio(self) -> None:
        """Refuse every WebSocket and cut every HTTP stream until `repair`, like a network that allows only pages."""
        self.block_websockets()
        self._blocks_streams = True

    def repair(self) -> None:
        self._broken = self._blocks_websockets = self._blocks_streams = False

    def swallow(self) -> None:
        """Forward nothing more on the present connections, but keep them open; new ones work."""
        self._generation += 1
        self.was_disturbed = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. The relay must close it after its response, so that the network sees each request."""
        if self._broken:
            writer.transport.abort()
            return
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        target = request.split(b" ", 2)[1].decode()
        self.requested.append(target)
        is_websocket = b"\r\nupgrade: websocket\r\n" in request.lower()
        if not is_websocket:
            request = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", request[:-2]) + b"Connection: close\r\n\r\n"
        if self._blocks_streams and target.startswith("/stream/"):
            writer.transport.abort()
            return
        if self._blocks_websockets and is_websocket:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        path = target.partition("?")[0]
        if path in self._extra:
            writer.write(_response(path, self._extra[path]))
            writer.close()
            return
        relay_reader, relay_writer = await asyncio.open_connection("127.0.0.1", self._relay_port)
        relay_writer.write(request)
        pair = {writer, relay_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, relay_writer))
                tasks.create_task(self._pump(relay_reader, writer))
        finally:
            self._writers -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation = self._generation
        try:
            while data := await reader.read(65536):
                if generation == self._generation:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


def _response(path: str, body: bytes) -> bytes:
    """Return a file with the headers of the relay's own pages, including their Content-Security-Policy."""
    page = Pages().find("/")
    assert page is not None
    content_type = "text/javascript" if path.endswith(".js") else "text/html"
    head = {"Content-Type": content_type, "Content-Length": len(body), "Connection": "close", **page.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body


@asynccontextmanager
async def network(relay_url: str, extra: Mapping[str, bytes], port: int | None = None) -> AsyncIterator[Network]:
    """Run a `Network` in front of a relay, at `port` or a free one, and end all its connections with the block."""
    between = Network(int(relay_url.rpartition(":")[2]), extra)
    port = port or free_port()
    server = await asyncio.start_server(between.serve, "127.0.0.1", port)
    between.url = f"http://127.0.0.1:{port}"
    try:
        yield between
    finally:
        server.close()
        between.break_down()
        await server.wait_closed()


def free_origin() -> str:
    """Return an unused origin on this machine: `http://127.0.0.1:PORT`."""
    return f"http://127.0.0.1:{free_port()}"


@asynccontextmanager
async def website(origin: str, files: Mapping[str, bytes], policy: str = "") -> AsyncIterator[None]:
    """Run a third-party website while the block runs.

    Args:
        origin: The website's origin, from `free_origin`.
        files: The files it serves, by path.
        policy: The Content-Security-Policy of every response; none if empty.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode().partition("?")[0]
            status = "200 OK" if path in files else "404 Not Found"
            head = {
                "Content-Type": mimetypes.guess_type(path)[0] or "text/html",
                "Connection": "close",
                **({"Content-Security-Policy": policy} if policy else {}),
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
            writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + files.get(path, b""))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", int(origin.rpartition(":")[2]))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
