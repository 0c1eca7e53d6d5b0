"""Promise 3: the relay writes nothing older than a listener's bound, here over a network that is too slow.

tests/integration/test_delivery_bounds.py checks the wire byte by byte.
"""

import asyncio

import pytest

from tests.reliability.conftest import Figure
from tests.reliability.loads import Load
from tests.support.fault_proxy import fault_proxy
from tests.support.live_session import LATE_MS, Lateness, broadcasting, check_accounts, end_age_ms, listen_beside
from tests.support.processes import relay_process
from tests.support.tries import best_of_three, check_in_time
from tests.support.wire_listener import closing, open_listener

pytestmark = pytest.mark.timed

STEREO = "?rate=48000&channels=2"
STEREO_BYTES = 3840
STEREO_BYTES_PER_SECOND = 193_000
"""Audio plus headers."""

BOUND_MS = 1000

WINDOW_BYTES = 64 * 1024
"""What the network holds: the proxy's receive buffer (which the kernel doubles), one read, its line and a packet."""

UNSENT_MS = 200
"""How much audio the relay leaves in its kernel's queue, in real time."""


@best_of_three
async def test_a_listener_behind_a_network_at_half_speed_gets_nothing_old(
    load: Load, figure: Figure, lateness: Lateness
) -> None:
    async with relay_process() as relay, fault_proxy(relay.url) as network:
        network.down.line_bytes = 4096
        healthy = await listen_beside(relay, "ev1", 1)
        slow = [await open_listener(network.url, f"/v1/listen/ev1?buffer_ms={BOUND_MS}") for _ in range(3)]
        with closing([*healthy, *slow]):
            async with broadcasting(relay, "ev1", STEREO, frame_bytes=STEREO_BYTES) as broadcaster:
                async with asyncio.TaskGroup() as group:
                    group.create_task(broadcaster.play(load.half_speed_seconds + 3))
                    network.down.bytes_per_second = STEREO_BYTES_PER_SECOND / 2
                    await asyncio.sleep(load.half_speed_seconds)
                    network.down.bytes_per_second = None
                await broadcaster.end()
                await check_accounts([*healthy, *slow], broadcaster)
    assert healthy[0].gaps == []
    for listener in slow:
        assert len(listener.gaps) >= 3, "the network was not slow enough"
    oldest_ms = max(listener.oldest_ms for listener in slow)
    again_ms = max(end_age_ms(listener) for listener in slow)
    figure(
        f"{load.half_speed_seconds:g} s at half speed, bound {BOUND_MS / 1000:g} s: the oldest audio that arrived was "
        f"{oldest_ms / 1000:.2f} s old, and {again_ms:.0f} ms once the network was good again"
    )
    under_way_ms = 2 * (WINDOW_BYTES / STEREO_BYTES_PER_SECOND * 1000 + UNSENT_MS)
    # At half speed, a delay counts twice.
    check_in_time(oldest_ms, BOUND_MS + under_way_ms + 2 * (LATE_MS + lateness.most_ms), "the oldest audio")
    check_in_time(again_ms, LATE_MS + lateness.most_ms, "the end")


@best_of_three
async def test_who_was_not_reached_for_seconds_is_live_at_once(figure: Figure, lateness: Lateness) -> None:
    """After a stall, a long line drains: all waiting audio arrives in one burst, and then live audio."""

    async with relay_process() as relay, fault_proxy(relay.url) as network:
        network.down.line_bytes = 4096
        listener = await open_listener(network.url, "/v1/listen/ev1?buffer_ms=500")
        with closing([listener]):
            async with broadcasting(relay, "ev1", STEREO, frame_bytes=STEREO_BYTES) as broadcaster:
                await broadcaster.play(0.5)
                network.stall()
                await broadcaster.play(3)
                network.flow()
                await broadcaster.play(1)
                await broadcaster.end()
                await check_accounts([listener], broadcaster)
        lost_seconds = sum(gap["duration_ms"] for gap in listener.gaps) / 1000
        late_ms = end_age_ms(listener)
        figure(
            f"after 3 s without network: lost {lost_seconds:.1f} s with a bound of 0.5 s, then {late_ms:.0f} ms late"
        )
        assert 1 <= lost_seconds <= 3
        check_in_time(late_ms, LATE_MS + lateness.most_ms, "the end")
