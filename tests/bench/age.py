"""How old the audio is that a server writes to a listener whose receive side is throttled, seen from that listener.

What a listener reads late may have been written early and waited in the kernels. So while it reads at half speed it
also asks the kernels, every 10 ms, how far the server's bytes have come: a byte that was in neither of them at a moment
was not written then, so it was at least as old when it was.
"""

import asyncio
from dataclasses import dataclass

from relay.client import broadcast
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import relay_clock
from tests.bench.servers import Server, serving
from tests.support.wire_listener import (
    SMALL_BUFFER_BYTES,
    closing,
    numbered_audio,
    open_listener,
    read_at,
    take_snapshots,
)

BOUND_MS = 1000
FORMAT = AudioFormat(rate=48_000, channels=2)
"""Of this a small receive buffer holds 20 ms, so that nearly all that the listener is behind by is the server's."""

FRAME_SECONDS = 0.02
FRAME_BYTES = 3840
HEADERS_BYTES = 20
"""What the wire adds to a frame: the WebSocket's header and the relay's."""

SLOW_SECONDS = 6.0
REST_SECONDS = 1.0


@dataclass(frozen=True)
class Ages:
    """What a throttled listener saw.

    Attributes:
        bound_ms: What it was promised.
        written_ms: The oldest that a frame certainly was when it was written.
        read_ms: The oldest that a frame was when it was read.
        gaps: How often it was told of a loss.
    """

    bound_ms: int
    written_ms: int
    read_ms: int
    gaps: int


def measure_ages(server: Server) -> Ages:
    """Measure a relay once.

    Raises:
        AssertionError: What was delivered and what was told lost is not what was published.
    """
    with serving(server) as running:
        return asyncio.run(_measure(running.port))


async def _measure(port: int) -> Ages:
    listener = await open_listener(
        f"http://127.0.0.1:{port}",
        f"/v1/listen/bench?buffer_ms={BOUND_MS}",
        receive_buffer=SMALL_BUFFER_BYTES,
        is_reading=False,
    )
    frames = round((SLOW_SECONDS + REST_SECONDS) / FRAME_SECONDS)
    with closing([listener]):
        async with broadcast(f"ws://127.0.0.1:{port}", "bench", audio_format=FORMAT, reconnect=None) as broadcaster:

            async def play() -> None:
                began = relay_clock()
                for number in range(frames):
                    await asyncio.sleep(began + number * FRAME_SECONDS - relay_clock())
                    await broadcaster.send(numbered_audio(number, FRAME_BYTES))

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(play())
                tasks.create_task(take_snapshots([listener], SLOW_SECONDS + REST_SECONDS))
                await read_at([listener], FORMAT.bytes_per_second / 2, SLOW_SECONDS)
                listener.resume()
            await broadcaster.end()
        await listener.until_ended()
    assert listener.account()[-1] == frames
    # The last byte of each frame.
    written = [listener.least_age_ms(frame, 0) for frame in listener.frames]
    return Ages(BOUND_MS, max(written), listener.oldest_ms, len(listener.gaps))
