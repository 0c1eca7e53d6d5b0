"""Broadcasters for servers without relay.v1: the same frames at the same times, over each server's own interface."""

import asyncio
import base64
import contextlib
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from relay.loadtest.plan import LoadPlan
from relay.loadtest.source import PacedSource
from relay.loadtest.target import stamp, stamp_for_stream
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError

FILLER_SECONDS = 0.02
FLUSH_BYTES = 4 * 1400
"""The padding after the last frame that makes Icecast release it: Icecast waits for whole blocks of 1400 bytes."""


class NchanSource(PacedSource):
    """Publishes to nchan over a WebSocket; an async context manager."""

    def __init__(self, plan: LoadPlan, url: str, channel: str) -> None:
        super().__init__(plan)
        self._connecting = connect(f"{url}/publish/{channel}", compression=None, proxy=None)
        self._connection: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._connection = await self._connecting
        self._reading = asyncio.get_running_loop().create_task(self._read(self._connection))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        assert self._reading is not None
        await self._connection.close()
        await self._reading

    async def send(self, channel: int, seq: int) -> None:  # noqa: ARG002 - these servers have one channel
        assert self._connection is not None
        try:
            await self._connection.send(stamp(seq, relay_clock(), self._audio))
        except ConnectionClosed as error:
            raise RelayError("The connection to nchan was lost.") from error

    async def end(self) -> None:
        """Do nothing: a channel of nchan has no end, and listeners leave once they have everything."""

    async def _read(self, connection: ClientConnection) -> None:
        """Read nchan's answer to each message."""
        with contextlib.suppress(ConnectionClosed):
            async for _ in connection:
                pass


class HttpSource(PacedSource):
    """A source client of Icecast; an async context manager.

    Before the audio, it sends bytes that are not frames, because Icecast admits no listener without incoming data.
    """

    def __init__(self, plan: LoadPlan, port: int, mount: str) -> None:
        super().__init__(plan)
        self._port = port
        self._mount = mount
        self._writer: asyncio.StreamWriter | None = None
        self._filling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        password = base64.b64encode(b"source:bench").decode()
        self._writer.write(
            f"SOURCE /{self._mount} HTTP/1.0\r\nAuthorization: Basic {password}\r\n"
            "Content-Type: audio/mpeg\r\n\r\n".encode()
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.partition(b"\r\n")[0] + b" ":
            raise RelayError(f"The server did not take the source: {answer.decode(errors='replace').strip()}")
        self._filling = asyncio.get_running_loop().create_task(self._fill(self._writer))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writer is not None
        await self._stop_filling()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def play(self, begins_at: float) -> None:
        await asyncio.sleep(begins_at - relay_clock() - FILLER_SECONDS)
        await self._stop_filling()
        await super().play(begins_at)
        await self._write(bytes(FLUSH_BYTES))

    async def send(self, channel: int, seq: int) -> None:  # noqa: ARG002 - these servers have one channel
        await self._write(stamp_for_stream(seq, relay_clock(), self._audio))

    async def end(self) -> None:
        """Do nothing: listeners leave once they have everything."""

    async def _write(self, data: bytes) -> None:
        assert self._writer is not None
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise RelayError("The source's connection was lost.") from error

    async def _fill(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(len(self._audio)))
                await writer.drain()
                await asyncio.sleep(FILLER_SECONDS)

    async def _stop_filling(self) -> None:
        assert self._filling is not None
        self._filling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._filling
