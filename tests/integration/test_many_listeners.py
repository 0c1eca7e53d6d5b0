"""The main job with real processes: one broadcaster and fifty listeners, one of them stopped for half a minute.

The recordings must match the sent audio sample for sample, and the metrics must match in CloudWatch (moto's server).
"""

import asyncio
import signal
import wave
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.cloudwatch import REGION, cloudwatch_endpoint, cloudwatch_reader
from tests.support.processes import Process, RelayProcess, relay_process, running

pytestmark = [pytest.mark.timed, pytest.mark.long]

LISTENERS = 50
FRAME_BYTES = 640
STARTING_AT_ONCE = 4
STOPPED_SECONDS = 30.0
SPEECH_SECONDS = 42
BOUND_SECONDS = 10.0
KERNEL_SECONDS = 8.0
"""More than the kernels on both sides hold for a listener that does not read, at 16 kHz."""


SETTINGS = {
    "RELAY_LISTENER_STALL_LIMIT_SECONDS": "never",
    "RELAY_LOG_LEVEL": "debug",
    "RELAY_CLOUDWATCH_ENABLED": "true",
    "RELAY_CLOUDWATCH_REGION": REGION,
    "RELAY_CLOUDWATCH_FLUSH_INTERVAL_SECONDS": "2",
    "RELAY_CLOUDWATCH_UTILIZATION_INTERVAL_SECONDS": "0.5",
    "RELAY_CLOUDWATCH_SESSION_DIMENSION": "true",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}


def speech() -> bytes:
    """Return the shipped voice, repeated, as 16 kHz mono."""
    with wave.open(str(files("relay") / "samples" / "counting.wav"), "rb") as voice:
        assert (voice.getframerate(), voice.getnchannels()) == (16_000, 1)
        once = voice.readframes(voice.getnframes())
    return (once * 5)[: SPEECH_SECONDS * 32_000]


def write_wav(path: Path, audio: bytes) -> None:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(audio)


def read_wav(path: Path) -> bytes:
    with wave.open(str(path), "rb") as wav:
        return wav.readframes(wav.getnframes())


@asynccontextmanager
async def listening(relay: RelayProcess, session: str, folder: Path) -> AsyncIterator[list[Process]]:
    """Run fifty `relay listen` processes that all wait for the broadcaster."""
    async with AsyncExitStack() as stack:
        gate = asyncio.Semaphore(STARTING_AT_ONCE)

        async def start(number: int) -> Process:
            async with gate:
                arguments = ("listen", session, "--url", relay.url, "-o", str(folder / f"{number}.wav"))
                process = await stack.enter_async_context(running(*arguments))
                await process.line(lambda line: line.startswith("listening to"))
                return process

        async with asyncio.TaskGroup() as group:
            starting = [group.create_task(start(number)) for number in range(LISTENERS)]
        yield [task.result() for task in starting]


async def test_every_sample_reaches_fifty_listeners_and_a_stopped_one_loses_only_its_oldest(tmp_path: Path) -> None:
    sent = speech()
    write_wav(tmp_path / "speech.wav", sent)
    with cloudwatch_endpoint() as endpoint:
        settings = SETTINGS | {"RELAY_CLOUDWATCH_ENDPOINT_URL": endpoint}
        async with relay_process(**settings) as relay, listening(relay, "ev1", tmp_path) as listeners:
            async with running("broadcast", "ev1", str(tmp_path / "speech.wav"), "--url", relay.url) as broadcaster:
                await relay.event("broadcaster joined")
                await asyncio.sleep(2)
                stopped = listeners[7]
                stopped.signal(signal.SIGSTOP)
                await asyncio.sleep(STOPPED_SECONDS)
                stopped.signal(signal.SIGCONT)
                assert await broadcaster.wait(60) == 0, broadcaster.text
            for listener in listeners:
                assert await listener.wait(60) == 0, listener.text
            assert await relay.terminate() == 0, relay.text
            log = relay.log

        healthy = [read_wav(tmp_path / f"{number}.wav") for number in range(LISTENERS) if number != 7]
        assert all(audio == sent for audio in healthy)

        received = read_wav(tmp_path / "7.wav")
        assert len(received) == len(sent), "lost audio is silence of the same length"
        frames = range(0, len(sent), FRAME_BYTES)
        missing = [n for n in frames if received[n : n + FRAME_BYTES] != sent[n : n + FRAME_BYTES]]
        # Silent frames of the speech may begin or end the piece that is missing, which is silent, too.
        first, last = missing[0], missing[-1] + FRAME_BYTES
        assert not any(received[first:last]), "more than one piece is missing"
        lost = round(float(stopped.lines[-1].partition("lost ")[2].partition(" s")[0]) * 32_000)
        assert last - first <= lost
        least = STOPPED_SECONDS - BOUND_SECONDS - KERNEL_SECONDS
        assert least <= lost / 32_000 <= STOPPED_SECONDS - BOUND_SECONDS + 1

        began = next(record for record in log if record["event"] == "listeners began to lose audio")
        assert (began["session"], began["listeners"], began["overflowing_listeners"]) == ("ev1", LISTENERS, 1)
        dropped = sum(
            record.get("dropped_frames", 0) for record in log if "losing" in record["event"] or record is began
        )

        async with cloudwatch_reader(endpoint) as told:
            overflow = await told.statistics("AudioRelay", "BufferOverflow", "ev1")
            assert overflow["Sum"] >= dropped > 0
            assert overflow["Sum"] * FRAME_BYTES <= lost <= (overflow["Sum"] + 100) * FRAME_BYTES, (
                "one overflow for each frame dropped"
            )
            assert (await told.statistics("AudioRelay", "MaxBufferUtilization", "ev1"))["Maximum"] > 99.0
            average = await told.statistics("AudioRelay", "AverageBufferUtilization", "ev1")
            assert 99.0 / LISTENERS <= average["Maximum"] < 5.0
            assert (await told.statistics("AudioRelay", "ActiveBuffers", "ev1"))["Maximum"] == LISTENERS
