"""What a message costs on the bus: from one process to another, through a NATS server of their own."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from relay.cluster.nats_bus import open_bus
from tests.bench.nodes import cpu_seconds
from tests.bench.peer import on_all_cpus
from tests.support.nats import cluster_settings, nats

SUBJECTS, PER_SECOND, MESSAGE_BYTES = 64, 50, 660
WARM_UP_SECONDS = 1.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class BusMeasured:
    """One run.

    Attributes:
        p50_ms: The median of the time from `publish` to the subscriber's callback.
        p99_ms: Its 99th percentile.
        sender_us: The sender's CPU time for each message.
        receiver_us: The receiver's CPU time for each message.
        server_us: The server's CPU time for each message.
        lost: How many messages did not arrive.
    """

    p50_ms: float
    p99_ms: float
    sender_us: float
    receiver_us: float
    server_us: float
    lost: int


def measure_bus(seconds: float) -> BusMeasured:
    """Send messages on all subjects at their pace, evenly spread, and measure until all have arrived."""
    with on_all_cpus():
        return asyncio.run(_measure(seconds))


async def _measure(seconds: float) -> BusMeasured:
    with TemporaryDirectory() as directory:
        async with nats(Path(directory)) as server:
            receiver = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.bus", "receive", server.url, str(seconds)),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
            assert receiver.stdout is not None
            await receiver.stdout.readline()
            sender = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.bus", "send", server.url, str(seconds)),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
            sent, _ = await sender.communicate()
            server_seconds = cpu_seconds(server.pid)
            received, _ = await receiver.communicate()
    sending, receiving = json.loads(sent), json.loads(received)
    return BusMeasured(
        p50_ms=receiving["p50_ms"],
        p99_ms=receiving["p99_ms"],
        sender_us=sending["us"],
        receiver_us=receiving["us"],
        server_us=server_seconds / sending["count"] * 1e6,
        lost=sending["count"] - receiving["count"],
    )


async def _send(url: str, seconds: float) -> None:
    async with open_bus(cluster_settings(url)) as bus:
        payload = bytes(MESSAGE_BYTES - 8)
        interval = 1 / PER_SECOND / SUBJECTS
        began, used, count = time.perf_counter(), time.process_time(), 0
        while (now := time.perf_counter()) < began + seconds + WARM_UP_SECONDS:
            while began + count * interval <= now:
                bus.publish(f"audio.s.{count % SUBJECTS}", time.perf_counter_ns().to_bytes(8) + payload)
                count += 1
            await asyncio.sleep(max(0.0, began + count * interval - time.perf_counter()))
        used = time.process_time() - used
    print(json.dumps({"us": used / count * 1e6, "count": count}))


async def _receive(url: str, seconds: float) -> None:
    ages_ms: list[float] = []

    def take(payload: bytes) -> None:
        ages_ms.append((time.perf_counter_ns() - int.from_bytes(payload[:8])) / 1e6)

    async with open_bus(cluster_settings(url)) as bus:
        for number in range(SUBJECTS):
            await bus.subscribe(f"audio.s.{number}", take)
        print("ready", flush=True)
        while not ages_ms:  # noqa: ASYNC110 - the first message is no event of the bus
            await asyncio.sleep(0.01)
        used = time.process_time()
        await asyncio.sleep(seconds + WARM_UP_SECONDS + 1)
        used = time.process_time() - used
    warm = sorted(ages_ms[int(WARM_UP_SECONDS * PER_SECOND * SUBJECTS) :])
    figures = {"p50_ms": warm[len(warm) // 2], "p99_ms": warm[len(warm) * 99 // 100]}
    print(json.dumps({**figures, "us": used / len(ages_ms) * 1e6, "count": len(ages_ms)}))


if __name__ == "__main__":
    work: Callable[..., object] = {"send": _send, "receive": _receive}[sys.argv[1]]
    asyncio.run(work(sys.argv[2], float(sys.argv[3])))  # type: ignore[arg-type]
