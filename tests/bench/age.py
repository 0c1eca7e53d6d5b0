"""The age of the audio that a server writes to listeners that read too slowly, seen from those listeners.

Audio that a listener reads late may have been written early and then waited in the kernels. So while the listeners read
slowly, they also ask the kernels every 10 ms how far the server's bytes have come. A byte that was in neither kernel at
some moment was not yet written then, so it was at least as old when the server wrote it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from relay.client import broadcast
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import relay_clock
from tests.bench.servers import Server, serving
from tests.support.wire_listener import (
    SMALL_BUFFER_BYTES,
    WireListener,
    closing,
    numbered_audio,
    open_listener,
    read_at,
    take_snapshots,
)

BOUNDS_MS = (200, 1000, 10_000)
SPEEDS = (0.10, 0.25, 0.50, 0.75, 0.95)
"""The listeners' reading speeds, as shares of the broadcast rate. Each speed meets each bound, all in one channel."""

FORMAT = AudioFormat(rate=48_000, channels=2)
"""A small receive buffer holds only 20 ms of this format, so nearly all of a listener's backlog is in the server."""

FRAME_SECONDS = 0.02
FRAME_BYTES = 3840
ALLOWED_MS = 40
"""How much older than its bound a frame may be when it is written: one frame plus 20 ms."""

SLOW_SECONDS = 18.0
"""At a quarter of the speed, a listener falls behind by the longest bound after 13 s. After 20 s, the kernel ends a
connection whose window never has room for a segment, as on loopback with a small receive buffer.
"""

REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ages:
    """What a throttled listener saw.

    Attributes:
        bound_ms: The bound that the relay promised.
        speed: Its reading speed, as a share of the broadcast rate.
        written_ms: The greatest age that a frame certainly had when it was written.
        read_ms: The greatest age of a frame when it was read.
        gaps: How many gaps it received.
    """

    bound_ms: int
    speed: float
    written_ms: int
    read_ms: int
    gaps: int


def measure_ages(server: Server, bounds_ms: Sequence[int] = BOUNDS_MS, speeds: Sequence[float] = SPEEDS) -> list[Ages]:
    """Measure a relay once, with a listener for each bound and speed.

    Raises:
        AssertionError: Deliveries and gaps do not add up to what was published.
    """
    with serving(server) as running:
        return asyncio.run(_measure(running.port, list(product(bounds_ms, speeds))))


async def _measure(port: int, promises: Sequence[tuple[int, float]]) -> list[Ages]:
    listeners: list[WireListener] = []
    frames = round((SLOW_SECONDS + REST_SECONDS) / FRAME_SECONDS)
    with closing(listeners):
        for bound_ms, _ in promises:
            target = f"/v1/listen/bench?buffer_ms={bound_ms}"
            listeners.append(
                await open_listener(
                    f"http://127.0.0.1:{port}", target, receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
                )
            )
        async with broadcast(f"ws://127.0.0.1:{port}", "bench", audio_format=FORMAT, reconnect=None) as broadcaster:

            async def play() -> None:
                began = relay_clock()
                for number in range(frames):
                    await asyncio.sleep(began + number * FRAME_SECONDS - relay_clock())
                    await broadcaster.send(numbered_audio(number, FRAME_BYTES))

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(play())
                tasks.create_task(take_snapshots(listeners, SLOW_SECONDS + REST_SECONDS))
                for listener, (_, speed) in zip(listeners, promises, strict=True):
                    tasks.create_task(_read_slowly(listener, speed))
            await broadcaster.end()
        for listener in listeners:
            await listener.until_ended()
    return [_ages(listener, *promise, frames) for listener, promise in zip(listeners, promises, strict=True)]


async def _read_slowly(listener: WireListener, speed: float) -> None:
    await read_at([listener], FORMAT.bytes_per_second * speed, SLOW_SECONDS)
    listener.resume()


def _ages(listener: WireListener, bound_ms: int, speed: float, frames: int) -> Ages:
    assert listener.account()[-1] == frames
    # The age counts at the last byte of each frame.
    written_ms = max(listener.least_age_ms(frame, 0) for frame in listener.frames)
    return Ages(bound_ms, speed, written_ms, listener.oldest_ms, len(listener.gaps))
