"""Many channels encoded at once: the cost of an encoder, and the lag of the event loop beside them.

Each channel has a broadcaster of PCM in real time and one listener. The relay has all CPUs, because it encodes beside
its event loop. A second measurement has listeners of PCM, so the difference is the cost of encoding.
"""

import asyncio
import math
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from prometheus_client.parser import text_string_to_metric_families

from relay.vocabulary.audio import Codec
from tests.bench.peer import Peer, connected, masked, on_all_cpus
from tests.bench.servers import FRAME_BYTES, Running, relay, serving

if TYPE_CHECKING:
    from tests.bench.bench import Bench

CHANNELS = 64
"""The most channels that a session may have."""

FRAME_SECONDS = 0.02
SHORT_BYTES, SHORT_HEAD_BYTES = 125, 2
"""The longest message whose header has two bytes; the other headers here have four (RFC 6455, section 5.2)."""
SETTLING_SECONDS, DRAIN_SECONDS = 1.0, 10.0
"""What comes before and after the measurement. A machine that is too slow encodes the last frames late."""

VOICE = Path(__file__).parents[2] / "relay/samples/counting.wav"

_LAG = "relay_loop_lag_seconds"


@dataclass(frozen=True)
class Encoded:
    """The results of a run with one codec.

    Attributes:
        cpu_percent: The server's CPU time per channel, in per cent of a core.
        lag_p99_ms: The 99th percentile of the event loop's lag: the upper bound of a range of the relay's metric.
        bytes_per_second: A listener's traffic on the wire, without TCP and IP.
        lost: Frames that did not arrive.
    """

    cpu_percent: float
    lag_p99_ms: float
    bytes_per_second: float
    lost: int


def measure_channels(bench: "Bench", codec: Codec) -> Encoded:
    bench.say(f"{CHANNELS} channels as {codec}")
    with (
        on_all_cpus(),
        serving(relay(RELAY_PROMETHEUS_ENABLED="true", RELAY_LIMITS_MAX_LAG_MS="never"), cpu=None) as running,
    ):
        return asyncio.run(_measure(running, codec, bench.seconds))


async def _measure(running: Running, codec: Codec, seconds: float) -> Encoded:
    process = psutil.Process(running.pid)
    async with AsyncExitStack() as stack:
        counts = [_Count() for _ in range(CHANNELS)]
        async with asyncio.TaskGroup() as tasks:
            for number, count in enumerate(counts):
                source = await stack.enter_async_context(connected(running.port, f"broadcast/bench/c{number}"))
                listener = connected(running.port, f"listen/bench/c{number}?codec={codec}", count.take)
                await stack.enter_async_context(listener)
                tasks.create_task(_play(source, SETTLING_SECONDS + seconds, number / CHANNELS * FRAME_SECONDS))
            await asyncio.sleep(SETTLING_SECONDS)
            lag, cpu = _read_lag(running), sum(process.cpu_times()[:2])
            got = sum(count.received_bytes for count in counts)
            await asyncio.sleep(seconds)
            lag_now, cpu_now = _read_lag(running), sum(process.cpu_times()[:2])
            got_now = sum(count.received_bytes for count in counts)
        sent = round((SETTLING_SECONDS + seconds) / FRAME_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while any(count.frames < sent for count in counts):  # noqa: ASYNC110 - only at the end
                    await asyncio.sleep(0.1)
    lags = {bound: count - lag[bound] for bound, count in lag_now.items()}
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

    def take(self, message: bytes, _at: float) -> None:
        self.frames += 1
        self.received_bytes += len(message) + (SHORT_HEAD_BYTES if len(message) <= SHORT_BYTES else 4)


async def _play(source: Peer, seconds: float, delay_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time() + delay_seconds
    for number, frame in zip(range(round(seconds / FRAME_SECONDS)), _voice(), strict=False):
        await asyncio.sleep(began + number * FRAME_SECONDS - loop.time())
        source.send(frame)


def _voice() -> Iterator[bytes]:
    with wave.open(str(VOICE)) as file:
        pcm = file.readframes(file.getnframes())
    return cycle([masked(pcm[start : start + FRAME_BYTES]) for start in range(0, len(pcm) - FRAME_BYTES, FRAME_BYTES)])


def _read_lag(running: Running) -> dict[float, float]:
    """Return how often the event loop's lag was at most each number of seconds."""
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
