"""A live broadcaster of the ruler signal that knows when each moment of the signal was spoken.

Like a microphone, it sends a frame when the time that the frame covers is over.
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
    """The state of a broadcaster while `live` runs.

    Attributes:
        frame_seconds: The length of each message.
        began: When the first sample was spoken, in seconds of the relay's clock.
        delays: For each frame so far, when it was due, in seconds of the relay's clock, and how many seconds later it
            was sent.
    """

    def __init__(self, rate: int, frame_seconds: float, pace: str) -> None:
        self._rate = rate
        self._pace = pace
        self.frame_seconds = frame_seconds
        self._twice = 2 * ruler_pcm(rate)
        self.began = 0.0
        self.delays: list[tuple[float, float]] = []

    @property
    def address_query(self) -> str:
        """Return the format as the query of a broadcaster's address."""
        return f"rate={self._rate}&channels={CHANNELS}&pace={self._pace}"

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield each frame when it is due."""
        loop = asyncio.get_running_loop()  # uses the same clock as the relay
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
async def live(
    relay_url: str, session: str, rate: int, frame_seconds: float = 0.02, pace: str = "live"
) -> AsyncIterator[LiveSource]:
    """Broadcast the ruler while the block runs, then end the session.

    Args:
        relay_url: `http://…`.
        session: The session's id; the channel is `main`.
        rate: Samples per second.
        frame_seconds: The length of each message.
        pace: `live` or `speech`. The audio comes in real time in either.
    """
    source = LiveSource(rate, frame_seconds, pace)
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
