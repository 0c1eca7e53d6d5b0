"""Sources whose rate is not the one that they announced, all at the same time: the relay says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.processes import RelayProcess, relay_process

SECONDS = 60.0
"""Ten are needed, on a machine that does nothing else."""


FRAME_SECONDS = 0.02


def audio_of(rate: int) -> bytes:
    """A frame of silence."""
    return bytes(2 * round(rate * FRAME_SECONDS))


@asynccontextmanager
async def broadcasting(relay: RelayProcess, session: str, announced: int, rate: int) -> AsyncIterator[None]:
    """Broadcast audio of a rate in real time, announced as of another, while the block runs."""
    address = f"{relay.websocket_url}/v1/broadcast/{session}?rate={announced}"
    async with connect(address, subprotocols=[Subprotocol("relay.v1")], proxy=None, compression=None) as socket:

        async def send() -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in count(1):
                await asyncio.sleep(max(0.0, began + number * FRAME_SECONDS - loop.time()))
                await socket.send(audio_of(rate))

        sending = asyncio.ensure_future(send())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def until_found(relay: RelayProcess, session: str) -> dict[str, object]:
    return await relay.event("audio does not arrive in real time", SECONDS, session=session)


async def test_the_relay_says_when_the_rate_is_not_the_one_that_was_announced() -> None:
    async with (
        relay_process() as relay,
        broadcasting(relay, "fast", 16_000, 24_000),
        broadcasting(relay, "slow", 24_000, 16_000),
        broadcasting(relay, "right", 16_000, 16_000),
    ):
        fast, slow = await asyncio.gather(until_found(relay, "fast"), until_found(relay, "slow"))
        assert fast["arrival_rate"] == pytest.approx(1.5, rel=0.1)
        assert slow["arrival_rate"] == pytest.approx(2 / 3, rel=0.1)
        assert (fast["announced"], slow["announced"]) == ("16000 Hz, mono", "24000 Hz, mono")
        sessions = [line["session"] for line in relay.log if line["event"] == "audio does not arrive in real time"]
        assert sorted(sessions) == ["fast", "slow"], "each once, and no other"
