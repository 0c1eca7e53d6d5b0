"""Promise 2: memory is bounded, whatever listeners do.

tests/unit/test_audio_buffer_manager_properties.py proves the bounds of a single queue.
"""

import asyncio
from collections.abc import Coroutine

import pytest

from tests.reliability.conftest import Figure
from tests.reliability.loads import BOUNDS, Load
from tests.support.live_session import broadcasting, check_accounts, on_both_loops, resident_bytes
from tests.support.processes import RelayProcess
from tests.support.wire_listener import SMALL_BUFFER_BYTES, closing, open_listener

pytestmark = pytest.mark.timed

STEREO = "?rate=48000&channels=2"
STEREO_BYTES = 3840

FLAT_AFTER = 15
"""After this many times the bound, memory must not grow."""

NOISE_BYTES = 1_000_000
"""The growth that the allocator may still cause."""


async def test_memory_is_flat_when_every_listener_is_stalled(load: Load, figure: Figure) -> None:
    query = f"?buffer_ms={load.bound_seconds * 1000:.0f}"
    figures = []

    async def scenario(relay: RelayProcess) -> None:
        before = resident_bytes(relay)
        stalled = [
            await open_listener(
                relay.url, f"/v1/listen/ev1{query}", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
            )
            for _ in range(load.stalled_listeners)
        ]
        with closing(stalled):
            async with broadcasting(relay, "ev1", STEREO, frame_bytes=STEREO_BYTES) as broadcaster:
                sizes = await sizes_while(relay, broadcaster.play(load.bound_seconds * BOUNDS), load.bound_seconds)
                for listener in stalled:
                    listener.resume()
                await broadcaster.end()
                await check_accounts(stalled, broadcaster)
        lost = sum(gap["to_seq"] - gap["from_seq"] + 1 for listener in stalled for gap in listener.gaps)
        assert lost > load.stalled_listeners * broadcaster.published[-1] * 0.8, "they were not stalled"
        flat = sizes[FLAT_AFTER:]
        figures.append(f"{before / 1e6:.1f} MB before, {flat[0] / 1e6:.1f} when full, {flat[-1] / 1e6:.1f} at the end")
        assert max(flat) - flat[0] <= NOISE_BYTES

    await on_both_loops(
        scenario,
        RELAY_LISTENER_STALL_LIMIT_SECONDS="never",
        RELAY_LISTENER_HISTORY_SECONDS=str(load.bound_seconds),
    )
    figure(
        f"{load.stalled_listeners} stalled listeners on each event loop, {BOUNDS} times their bound of "
        f"{load.bound_seconds:g} s: {'; '.join(figures)}"
    )


async def sizes_while(relay: RelayProcess, playing: Coroutine[None, None, None], every: float) -> list[int]:
    """Return the relay's memory at intervals while `playing` runs."""
    sizes = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(playing)
        while not task.done():
            sizes.append(resident_bytes(relay))
            await asyncio.sleep(every)
    return sizes
