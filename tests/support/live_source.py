"""A live broadcaster of the ruler, which knows when each moment of it was spoken.

The signal is a microphone's: the frame with the samples of a span of time is sent when that span is over.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from relay.protocol.json_messages import encode
from relay.protocol.wire import SUBPROTOCOL
from tests.support.ruler import PERIOD_SECONDS, ruler_pcm

CHANNELS = 2
_SAMPLE_BYTES = 2


class LiveSource:
    """What a broadcaster does while `live` runs.

    Attributes:
        frame_seconds: How long each message is.
        began: When the first sample of the ruler was spoken, in seconds of the relay's clock.
        delays: Of each frame so far: when it was due, in seconds of the relay's clock, and how much later it was sent.
    """

    def __init__(self, rate: int, frame_seconds: float) -> None:
        self._rate = rate
        self.frame_seconds = frame_seconds
        self._twice = 2 * ruler_pcm(rate)
        self.began = 0.0
        self.delays: list[tuple[float, float]] = []

    @property
    def address_query(self) -> str:
        """The format, as a broadcaster's address says it."""
        return f"rate={self._rate}&channels={CHANNELS}"

    async def frames(self) -> AsyncIterator[bytes]:
        """Give frame after frame, each when it is due."""
        loop = asyncio.get_running_loop()  # its clock is the relay's
        sample_bytes = CHANNELS * _SAMPLE_BYTES
        frame_samples = round(self.frame_seconds * self._rate)
        self.began = loop.time()
        sent = 0
        while True:
            first = sent % (self._rate * PERIOD_SECONDS)
            sent += frame_samples
            due = self.began + sent / self._rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.delays.append((due, loop.time() - due))
            yield self._twice[first * sample_bytes : (first + frame_samples) * sample_bytes]


@asynccontextmanager
async def live(relay_url: str, session: str, rate: int, frame_seconds: float = 0.02) -> AsyncIterator[LiveSource]:
    """Broadcast the ruler while the block runs, then end the session.

    Args:
        relay_url: `http://…`.
        session: Its id; the channel is `main`.
        rate: Samples a second.
        frame_seconds: How long each message is.
    """
    source = LiveSource(rate, frame_seconds)
    address = f"{relay_url.replace('http', 'ws', 1)}/v1/broadcast/{session}?{source.address_query}"
    async with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None, compression=None) as socket:
        await socket.recv()

        async def send() -> None:
            async for frame in source.frames():
                await socket.send(frame)

        async def read() -> None:
            async for _ in socket:
                pass

        async with asyncio.TaskGroup() as tasks:
            reading, sending = tasks.create_task(read()), tasks.create_task(send())
            try:
                yield source
            finally:
                sending.cancel()
                await asyncio.wait([sending])
                await socket.send(encode("end"))
                await asyncio.wait([reading])
