"""Many channels that are encoded at once: what an encoder takes, and how late the event loop is beside them.

Each channel has a broadcaster of PCM in real time and one listener. The same is measured with listeners of PCM, so the
difference is what encoding costs.
"""

import asyncio
import math
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.vocabulary.audio import Codec
from tests.bench.servers import FRAME_BYTES, Running, relay, serving

if TYPE_CHECKING:
    from tests.bench.bench import Bench

CHANNELS = 64
"""The channels that a session may have live."""

FRAME_SECONDS = 0.02
SHORT_BYTES, SHORT_HEAD_BYTES = 125, 2
"""The longest message whose head has two bytes; others here have four (RFC 6455, section 5.2)."""
SETTLING_SECONDS = 1.0
VOICE = Path(__file__).parents[2] / "relay/samples/counting.wav"

_LAG = "relay_loop_lag_seconds"


@dataclass(frozen=True)
class Encoded:
    """What a run with one codec gave.

    Attributes:
        cpu_percent: CPU of the server for each channel, in per cent of a core.
        lag_p99_ms: 99 % of the time, the event loop was no later; the upper bound of a range of the relay's metric.
        bytes_per_second: What a listener got on the wire, without TCP and IP.
        lost: Frames that did not come.
    """

    cpu_percent: float
    lag_p99_ms: float
    bytes_per_second: float
    lost: int


def measure_channels(bench: "Bench", codec: Codec) -> Encoded:
    """Measure once."""
    bench.say(f"{CHANNELS} channels as {codec}")
    with serving(relay(RELAY_PROMETHEUS_ENABLED="true", RELAY_LIMITS_MAX_LAG_MS="never")) as running:
        return asyncio.run(_measure(running, codec, bench.seconds))


async def _measure(running: Running, codec: Codec, seconds: float) -> Encoded:
    process = psutil.Process(running.pid)
    async with AsyncExitStack() as stack:
        counts = [_Count() for _ in range(CHANNELS)]
        async with asyncio.TaskGroup() as tasks:
            for number, count in enumerate(counts):
                address = f"{running.url}/v1/{{}}/bench/c{number}"
                source = await stack.enter_async_context(_connect(address.format("broadcast")))
                listener = await stack.enter_async_context(_connect(f"{address.format('listen')}?codec={codec}"))
                tasks.create_task(_read(listener, count))
                tasks.create_task(_play(source, SETTLING_SECONDS + seconds, number / CHANNELS * FRAME_SECONDS))
            await asyncio.sleep(SETTLING_SECONDS)
            lag, cpu = _read_lag(running), sum(process.cpu_times()[:2])
            got = sum(count.received_bytes for count in counts)
            await asyncio.sleep(seconds)
            lag_now, cpu_now = _read_lag(running), sum(process.cpu_times()[:2])
            got_now = sum(count.received_bytes for count in counts)
    lags = {bound: count - lag[bound] for bound, count in lag_now.items()}
    sent = round((SETTLING_SECONDS + seconds) / FRAME_SECONDS)
    return Encoded(
        100 * (cpu_now - cpu) / seconds / CHANNELS,
        1000 * _percentile(lags, 99),
        (got_now - got) / seconds / CHANNELS,
        sum(max(0, sent - count.frames) for count in counts),
    )


@dataclass
class _Count:
    frames: int = 0
    received_bytes: int = 0


def _connect(url: str) -> connect:
    return connect(url, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None, max_queue=None)


async def _read(listener: ClientConnection, count: _Count) -> None:
    async for message in listener:
        if isinstance(message, bytes):
            count.frames += 1
            count.received_bytes += len(message) + (SHORT_HEAD_BYTES if len(message) <= SHORT_BYTES else 4)


async def _play(source: ClientConnection, seconds: float, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time() + delay_seconds
    for number, frame in zip(range(round(seconds / FRAME_SECONDS)), _voice(), strict=False):
        await asyncio.sleep(began + number * FRAME_SECONDS - loop.time())
        await source.send(frame)
    await source.send('{"type":"end"}')
    await source.wait_closed()


def _voice() -> Iterator[bytes]:
    with wave.open(str(VOICE)) as file:
        pcm = file.readframes(file.getnframes())
    return cycle([pcm[start : start + FRAME_BYTES] for start in range(0, len(pcm) - FRAME_BYTES, FRAME_BYTES)])


def _read_lag(running: Running) -> dict[float, float]:
    """Return how often the event loop was at most so many seconds late."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        float(sample.labels["le"]): sample.value
        for family in families
        if family.name == _LAG
        for sample in family.samples
        if sample.name == f"{_LAG}_bucket"
    }


def _percentile(counts: dict[float, float], percent: float) -> float:
    wanted = counts[math.inf] * percent / 100
    return next(bound for bound, count in sorted(counts.items()) if count >= wanted)
