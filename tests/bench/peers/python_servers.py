"""Other ways to send one broadcaster's audio to many listeners, with enough of `relay.v1` for the same measurement.

    python -m tests.bench.peers.python_servers broadcast|tasks|picows PORT

- `broadcast`: `websockets.broadcast()`, the library's own way, without a bound or backpressure.
- `tasks`: the obvious first design: for each listener, a queue and a task that awaits `connection.send()`.
- `picows`: a WebSocket library in Cython; writes each frame to every transport, without a bound.
"""

import asyncio
import contextlib
import importlib
import json
import sys
from asyncio import Queue
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.protocol.wire import SUBPROTOCOL, Header
from relay.vocabulary.clock import relay_clock, wire_milliseconds

FORMAT = {"codec": "pcm_s16le", "rate": 16_000, "channels": 1, "clock_rate": 16_000}
QUEUE_FRAMES = 500


def hello(state: str, next_seq: int) -> str:
    return json.dumps(
        {
            "type": "hello",
            "protocol": SUBPROTOCOL,
            "connection_id": "baseline",
            "session": "baseline",
            "channel": "main",
            "state": state,
            "format": FORMAT,
            "epoch": 1,
            "next_seq": next_seq,
            "clock_ms": wire_milliseconds(relay_clock()),
            "buffer_ms": 10_000,
            "resumed": False,
        }
    )


def pong(text: str) -> str:
    return json.dumps(json.loads(text) | {"type": "pong", "clock_ms": wire_milliseconds(relay_clock())})


class Sessions:
    """Sessions by path, each with its listeners (in the server's own form) and its next seq."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[set[Any], list[int]]] = {}

    def of(self, path: str) -> tuple[set[Any], list[int]]:
        name = path.partition("?")[0].split("/")[3]
        return self._sessions.setdefault(name, (set(), [0]))


def framed(audio: bytes, numbers: list[int]) -> bytes:
    """Return the next frame's header and the audio."""
    seq = numbers[0]
    numbers[0] += 1
    return Header(1, seq, seq * len(audio) // 2, wire_milliseconds(relay_clock())).pack() + audio


async def serve_websockets(port: int, send: Callable[[set[Any], bytes], None], handle_listener: Any) -> None:
    sessions = Sessions()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        listeners, numbers = sessions.of(path)
        if not path.startswith("/v1/broadcast/"):
            await connection.send(hello("live", numbers[0]))
            await handle_listener(connection, listeners)
            return
        await connection.send(hello("live", 0))
        async for message in connection:
            if isinstance(message, bytes):
                send(listeners, framed(message, numbers))
            elif json.loads(message)["type"] == "end":
                await asyncio.gather(
                    *(getattr(listener, "connection", listener).close() for listener in list(listeners))
                )
                return

    options: dict[str, Any] = {"compression": None, "subprotocols": [Subprotocol(SUBPROTOCOL)], "backlog": 4096}
    async with serve(handle, "127.0.0.1", port, **options):
        await asyncio.get_running_loop().create_future()


async def answer_pings(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            if isinstance(message, str):
                await connection.send(pong(message))


async def serve_broadcast(port: int) -> None:
    async def handle_listener(connection: ServerConnection, listeners: set[ServerConnection]) -> None:
        listeners.add(connection)
        try:
            await answer_pings(connection)
        finally:
            listeners.discard(connection)

    await serve_websockets(port, broadcast, handle_listener)


class QueuedListener:
    """A listener with a queue, and the task that empties it."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.queue: Queue[bytes] = Queue(QUEUE_FRAMES)

    async def send_all(self) -> None:
        try:
            while True:
                await self.connection.send(await self.queue.get())
        except ConnectionClosed:
            return


async def serve_tasks(port: int) -> None:
    def send(listeners: set[QueuedListener], message: bytes) -> None:
        for listener in listeners:
            if listener.queue.full():
                listener.queue.get_nowait()
            listener.queue.put_nowait(message)

    async def handle_listener(connection: ServerConnection, listeners: set[QueuedListener]) -> None:
        listener = QueuedListener(connection)
        listeners.add(listener)
        sender = asyncio.ensure_future(listener.send_all())
        try:
            await answer_pings(connection)
        finally:
            listeners.discard(listener)
            sender.cancel()

    await serve_websockets(port, send, handle_listener)


async def serve_picows(port: int) -> None:  # noqa: C901 - the whole peer in one place
    # An optional peer, not a dependency.
    picows: Any = importlib.import_module("picows")

    sessions = Sessions()

    class Peer(picows.WSListener):  # type: ignore[misc] # a package without types
        def __init__(self, path: str) -> None:
            self.path = path
            self.listeners, self.numbers = sessions.of(path)

        def on_ws_connected(self, transport: Any) -> None:
            self.transport = transport
            is_listener = self.path.startswith("/v1/listen/")
            transport.send(picows.WSMsgType.TEXT, hello("live", self.numbers[0] if is_listener else 0).encode())
            if is_listener:
                self.listeners.add(transport)

        def on_ws_disconnected(self, transport: Any) -> None:
            self.listeners.discard(transport)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == picows.WSMsgType.BINARY:
                message = framed(frame.get_payload_as_bytes(), self.numbers)
                for listener in self.listeners:
                    listener.send(picows.WSMsgType.BINARY, message)
            elif frame.msg_type == picows.WSMsgType.TEXT:
                text = frame.get_payload_as_utf8_text()
                if json.loads(text)["type"] == "ping":
                    transport.send(picows.WSMsgType.TEXT, pong(text).encode())
                    return
                for listener in [*self.listeners, transport]:
                    listener.send_close(picows.WSCloseCode.OK)
                    listener.disconnect()
            elif frame.msg_type == picows.WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())

    def accept(request: Any) -> Any:
        headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL}
        return picows.WSUpgradeResponseWithListener(
            picows.WSUpgradeResponse.create_101_response(headers), Peer(request.path.decode())
        )

    server = await picows.ws_create_server(accept, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


SERVERS = {"broadcast": serve_broadcast, "tasks": serve_tasks, "picows": serve_picows}

if __name__ == "__main__":
    asyncio.run(SERVERS[sys.argv[1]](int(sys.argv[2])))
