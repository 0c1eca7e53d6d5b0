"""The relay reports sources whose rate differs from the one that they announced."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from time import sleep

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from relay.vocabulary.clock import relay_clock
from tests.support.client_commands import client
from tests.support.processes import RelayProcess, relay_process

pytestmark = pytest.mark.timed

SECONDS = 180.0
"""An idle machine needs ten seconds. After this time the message will not come."""


FRAME_SECONDS = 0.02


def audio_of(rate: int) -> bytes:
    """Return one frame of silence."""
    return bytes(2 * round(rate * FRAME_SECONDS))


@asynccontextmanager
async def broadcasting(relay: RelayProcess, session: str, announced: int, rate: int) -> AsyncIterator[None]:
    """Broadcast in real time at one rate but announce another, while the block runs."""
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


async def sentence_about_a_pipe(relay: RelayProcess, announced: int, rate: int) -> str:
    """Pipe live audio of a rate into `relay broadcast`, and return its message about the speed."""
    reading, writing = os.pipe()
    is_over = threading.Event()

    def write() -> None:
        began = relay_clock()
        with suppress(BrokenPipeError):
            for number in count(1):
                sleep(max(0.0, began + number * FRAME_SECONDS - relay_clock()))
                if is_over.is_set():
                    return
                os.write(writing, audio_of(rate))

    writer = threading.Thread(target=write, daemon=True)
    arguments = ("broadcast", f"pipe-{rate}", "-", "--raw", "--rate", str(announced))
    try:
        async with client({"RELAY_CLIENT_URL": relay.url}, *arguments, stdin=reading) as sender:
            await sender.line(lambda line: line.startswith("broadcasting "))
            writer.start()
            return await sender.line(lambda line: line.startswith("the audio arrives "), SECONDS)
    finally:
        is_over.set()
        os.close(reading)
        await asyncio.to_thread(writer.join, 10)
        os.close(writing)


async def test_the_command_says_when_a_pipe_has_another_rate() -> None:
    """Only the command can detect a pipe that is too fast, because the relay never sees the audio that still waits."""
    async with relay_process() as relay:
        fast, slow = await asyncio.gather(
            sentence_about_a_pipe(relay, 16_000, 24_000), sentence_about_a_pipe(relay, 24_000, 16_000)
        )
    assert "it looks like 24000 Hz, mono" in fast
    assert "it looks like 16000 Hz, mono" in slow
