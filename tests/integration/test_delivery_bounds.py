"""The promises to a listener on the wire of a real relay: the age of its audio, its account, and its isolation."""

import asyncio
import random
import signal
import statistics
from collections.abc import Sequence
from itertools import groupby

import pytest

from relay.hub.batch import MAX_WRITE_SECONDS
from relay.server.kernel import UNSENT_SECONDS
from tests.support.live_session import (
    FRAME_SECONDS,
    LATE_MS,
    LOOPS,
    Broadcaster,
    Lateness,
    ask_repeatedly,
    broadcasting,
    check_accounts,
    check_prompt,
    check_untouched,
    end_age_ms,
    listen_beside,
    on_both_loops,
)
from tests.support.processes import RelayProcess, relay_process, running
from tests.support.tries import best_of_three, check_in_time
from tests.support.wire_listener import (
    SMALL_BUFFER_BYTES,
    WireListener,
    closing,
    open_listener,
    read_at,
    take_snapshots,
)

pytestmark = pytest.mark.timed

STEREO = "?rate=48000&channels=2"
STEREO_BYTES = 3840
STEREO_BYTES_PER_SECOND = 192_000
"""A small receive buffer holds only 20 ms of this format, so nearly all of a listener's backlog is in the relay."""

HEADERS_BYTES = 20
"""What the wire adds to a frame: the WebSocket header and the relay's header."""

SLACK_MS = 60
"""How long other processes may delay the relay between a look at the clock and the write."""


@best_of_three
async def test_no_byte_older_than_the_bound_is_written_to_a_listener_at_half_speed(lateness: Lateness) -> None:
    async def scenario(relay: RelayProcess) -> None:
        healthy = await listen_beside(relay, "ev1", 1)
        slow = [
            await open_listener(
                relay.url, f"/v1/listen/ev1{query}", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
            )
            for query in ("?buffer_ms=1000", "")
        ]
        with closing([*healthy, *slow]):
            async with broadcasting(relay, "ev1", STEREO, frame_bytes=STEREO_BYTES) as broadcaster:
                async with asyncio.TaskGroup() as group:
                    group.create_task(broadcaster.play(9.5))
                    group.create_task(take_snapshots(slow, 9.5))
                    await read_at(slow, STEREO_BYTES_PER_SECOND / 2, 8)
                    for listener in slow:
                        listener.resume()
                await broadcaster.end()
                await check_accounts([*healthy, *slow], broadcaster)
        check_untouched(healthy, broadcaster, lateness)
        assert [listener.hello["buffer_ms"] for listener in slow] == [1000, 2000]
        for listener in slow:
            check_written_in_time(listener, lateness.most_ms)
            check_in_time(end_age_ms(listener), LATE_MS + lateness.most_ms, "the end")

    await on_both_loops(scenario, RELAY_LISTENER_MAX_BUFFER_SECONDS="2")


def check_written_in_time(listener: WireListener, lateness_ms: float) -> None:
    """Check the ages of a stereo listener's frames against its bound, after it read at half speed for a time."""
    bound_ms = listener.hello["buffer_ms"]
    assert len(listener.gaps) >= 3, "it was not slow enough"
    # A frame was at least this old when its last byte was written.
    ages = [listener.least_age_ms(frame, 0) for frame in listener.frames]
    check_in_time(max(ages), bound_ms + FRAME_SECONDS * 1000 + SLACK_MS, "the oldest frame")
    assert max(ages) >= bound_ms - 2 * MAX_WRITE_SECONDS * 1000, "it loses more than its bound demands"
    # The kernels hold what the relay lets wait for the network, plus the small windows: bytes in transit, received
    # bytes and bytes being acknowledged.
    held_bytes = max(snapshot.held_bytes for snapshot in listener.snapshots)
    assert held_bytes <= UNSENT_SECONDS * STEREO_BYTES_PER_SECOND + 4 * SMALL_BUFFER_BYTES
    # At half speed, the bytes in transit ahead of a frame take twice their duration, and so does a delay of this
    # process.
    under_way_ms = 2 * (held_bytes / STEREO_BYTES_PER_SECOND + MAX_WRITE_SECONDS) * 1000
    check_in_time(listener.oldest_ms, bound_ms + under_way_ms + 2 * SLACK_MS + 2 * lateness_ms, "the oldest frame read")


@best_of_three
async def test_a_listener_that_stalled_resumes_at_what_its_bound_allows(lateness: Lateness) -> None:
    async def scenario(relay: RelayProcess) -> None:
        healthy = await listen_beside(relay, "ev1", 5)
        stalled = await open_listener(relay.url, "/v1/listen/ev1?buffer_ms=500", receive_buffer=SMALL_BUFFER_BYTES)
        with closing([*healthy, stalled]):
            async with broadcasting(relay, "ev1") as broadcaster:
                await broadcaster.play(0.4)
                stalled.pause()
                await broadcaster.play(3)
                assert not stalled.has_ended
                stalled.resume()
                await broadcaster.play(1.2)
                await broadcaster.end()
                await check_accounts([*healthy, stalled], broadcaster)
        check_untouched(healthy, broadcaster, lateness)
        # If more frames grow too old while the relay sends a gap, a second gap follows right behind it.
        first_lost, last_lost = stalled.gaps[0]["from_seq"], stalled.gaps[-1]["to_seq"]
        before = [frame for frame in stalled.frames if frame.seq < first_lost]
        after = [frame for frame in stalled.frames if frame.seq > last_lost]
        assert len(before) + len(after) == len(stalled.frames), "more than one piece is missing"
        assert len(before) * FRAME_SECONDS <= 0.4 + 1.0, "more was under way than a write and small buffers hold"
        check_in_time(max(frame.age_ms for frame in after), 500 + LATE_MS + lateness.most_ms, "the oldest frame")
        check_in_time(end_age_ms(stalled), LATE_MS + lateness.most_ms, "the end")

    await on_both_loops(scenario, RELAY_LISTENER_STALL_LIMIT_SECONDS="never")


async def test_audio_that_grew_old_while_the_source_paused_is_not_written() -> None:
    async def scenario(relay: RelayProcess) -> None:
        stalled = await open_listener(
            relay.url, "/v1/listen/ev1?buffer_ms=500", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False
        )
        with closing([stalled]):
            async with broadcasting(relay, "ev1") as broadcaster:
                await broadcaster.play(1.6)
                await asyncio.sleep(0.8)
                stalled.resume()
                await broadcaster.end()
                await check_accounts([stalled], broadcaster)
            assert stalled.gaps[-1]["to_seq"] == broadcaster.published[-1] - 1
            assert len(stalled.frames) * FRAME_SECONDS <= 1.0

    await on_both_loops(scenario)


async def test_what_a_listener_asks_for_is_clamped_and_told() -> None:
    settings = {"RELAY_LISTENER_MAX_BUFFER_SECONDS": "2.5", "RELAY_LISTENER_COALESCE_MS": "60"}
    async with relay_process(**settings) as relay:
        for query, buffer_ms, coalesce_ms in (
            ("", 2500, 60),
            ("?buffer_ms=50&coalesce_ms=0", 200, 0),
            ("?buffer_ms=700&coalesce_ms=80", 700, 80),
            ("?buffer_ms=99999&coalesce_ms=500", 2500, 200),
        ):
            listener = await open_listener(relay.url, f"/v1/listen/ev1{query}")
            with closing([listener]):
                assert (listener.hello["buffer_ms"], listener.hello["coalesce_ms"]) == (buffer_ms, coalesce_ms)


@best_of_three
async def test_frames_wait_for_each_other_as_long_as_the_listener_or_the_relay_says(lateness: Lateness) -> None:
    async def scenario(relay: RelayProcess) -> None:
        intervals_ms = {"": 100, "?coalesce_ms=0": 0, "?coalesce_ms=60": 60}
        listeners = {query: await open_listener(relay.url, f"/v1/listen/ev1{query}") for query in intervals_ms}
        with closing(listeners.values()):
            async with broadcasting(relay, "ev1") as broadcaster:
                await broadcaster.play(2)
                await broadcaster.end()
                await check_accounts(listeners.values(), broadcaster)
        for query, interval_ms in intervals_ms.items():
            listener = listeners[query]
            # The median ignores bursts that this process read late. The first frame waits for those that follow.
            runs = [len(list(run)) for _, run in groupby(listener.frames, key=lambda frame: frame.read_index)]
            together = interval_ms / (FRAME_SECONDS * 1000)
            assert together <= statistics.median(runs) <= together + 1
            ages = sorted(frame.age_ms for frame in listener.frames)
            check_in_time(ages[int(len(ages) * 0.9)], interval_ms + SLACK_MS, "most of the frames")
            check_untouched([listener], broadcaster, lateness, interval_ms + LATE_MS)

    await on_both_loops(scenario, RELAY_LISTENER_COALESCE_MS="100")


@best_of_three
async def test_a_stalled_listener_is_cut_off_at_the_limit_and_nobody_else(lateness: Lateness) -> None:
    async def scenario(relay: RelayProcess) -> None:
        loop = asyncio.get_running_loop()
        healthy = await listen_beside(relay, "ev1", 3)
        stalled = await open_listener(relay.url, "/v1/listen/ev1", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False)
        with closing([*healthy, stalled]):
            async with broadcasting(relay, "ev1") as broadcaster, asyncio.TaskGroup() as group:
                playing = group.create_task(broadcaster.play(3.5))
                began = loop.time()
                ended = await relay.event("connection closed", connection=stalled.hello["connection_id"], seconds=15)
                assert ended["reason"] == "The client read nothing for 1 s."
                assert loop.time() - began >= 1
                stalled.resume()
                await stalled.until_ended()
                assert stalled.close_code is None
                await playing
                await broadcaster.end()
                await check_accounts(healthy, broadcaster)
            check_untouched(healthy, broadcaster, lateness)
            stalled.account()
            assert sum(record["event"] == "connection closed" for record in relay.log) == 1

    await on_both_loops(scenario, RELAY_LISTENER_STALL_LIMIT_SECONDS="1")


@pytest.mark.parametrize("loop", LOOPS)
@best_of_three
async def test_control_messages_are_prompt_beside_a_large_fan_out(loop: str, lateness: Lateness) -> None:
    # A separate process, because otherwise this one would measure its own reading speed.
    crowd = ("--listeners", "200", "--duration", "60", "--fail-if", "gaps>0", "--fail-if", "unaccounted_frames>0")
    async with (
        relay_process(RELAY_SERVER_LOOP=loop) as relay,
        running("loadtest", "--url", relay.websocket_url, *crowd) as listening,
    ):
        joined = await relay.event("broadcaster joined")
        (witness,) = await listen_beside(relay, joined["session"], 1)
        with closing([witness]):
            await witness.until(lambda: bool(witness.frames), 60)
            check_prompt(await ask_repeatedly(witness, 60), lateness)
            listening.signal(signal.SIGINT)
            assert await listening.wait() == 0, listening.text
            assert witness.gaps == []


async def come_and_go(
    relay: RelayProcess, choice: random.Random, done: asyncio.Event, listeners: list[WireListener]
) -> None:
    """Join, stall, read in pieces and leave at random until `done` is set; then stay and read on."""
    while not done.is_set():
        query = f"buffer_ms={choice.choice((200, 500, 2000))}&coalesce_ms={choice.choice((0, 0, 40, 100))}"
        receive_buffer = choice.choice((None, SMALL_BUFFER_BYTES))
        listener = await open_listener(relay.url, f"/v1/listen/ev1?{query}", receive_buffer=receive_buffer)
        listeners.append(listener)
        for _ in range(choice.randint(1, 4)):
            await behave(listener, choice, choice.uniform(0.1, 1.5), done)
        if not done.is_set() and choice.random() < 0.7:
            listener.close()


async def behave(listener: WireListener, choice: random.Random, seconds: float, done: asyncio.Event) -> None:
    """Read, pause, or read in pieces for some seconds or until `done` is set; then read everything."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    behaviour = choice.choice(("read", "stall", "read in pieces"))
    if behaviour != "read":
        listener.pause()
    while not done.is_set() and (left := until - loop.time()) > 0:
        if behaviour == "read in pieces":
            listener.read(choice.randint(1, 2000))
        await asyncio.sleep(min(left, FRAME_SECONDS))
    listener.resume()


async def test_every_account_is_exact_however_listeners_come_stall_and_go() -> None:
    async def scenario(relay: RelayProcess) -> None:
        listeners = await listen_beside(relay, "ev1", 1)
        with closing(listeners):
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for number in range(30):
                    choice = random.Random(number)  # noqa: S311 - repeatable, not a secret
                    group.create_task(come_and_go(relay, choice, done, listeners))
                async with broadcasting(relay, "ev1", STEREO, frame_bytes=STEREO_BYTES) as first:
                    await first.play(1.8)
                    async with asyncio.timeout(60):
                        while sum(len(listener.gaps) for listener in listeners) < 10:
                            await first.play(0.2)
                await relay.event("channel waits for its broadcaster", connection=first.connection_id)
                again = broadcasting(relay, "ev1", STEREO, frame_bytes=STEREO_BYTES, published=first.published)
                async with again as second:
                    await second.play(1.2)
                await relay.event("channel waits for its broadcaster", connection=second.connection_id)
                async with broadcasting(relay, "ev1", published=[*second.published, 0]) as last:
                    await last.play(1.5)
                    done.set()
                    await last.play(0.5)
                    await last.end()
            await check_accounts([listener for listener in listeners if not listener.is_closed], last)
        check_partial_accounts(listeners, last)

    await on_both_loops(scenario)


def check_partial_accounts(listeners: Sequence[WireListener], broadcaster: Broadcaster) -> None:
    """Check the accounts of listeners that left early. The first listener was there from the beginning."""
    for listener in listeners:
        account = listener.account()
        joined = (listener.hello["epoch"] - listeners[0].hello["epoch"]) % (1 << 16)
        published = broadcaster.published[joined : joined + len(account)]
        assert account[:-1] == published[:-1]
        assert account[-1] <= published[-1]


@pytest.mark.parametrize("loop", LOOPS)
@best_of_three
async def test_a_crowd_at_the_door_delays_nobody_inside(loop: str, lateness: Lateness) -> None:
    async with relay_process(RELAY_SERVER_LOOP=loop) as relay:
        present, crowd, broadcaster = await crowd_at_the_door(relay, "ev1")
        check_untouched(present, broadcaster, lateness, 2 * LATE_MS)
        check_untouched(crowd, broadcaster, lateness, 1000)


async def crowd_at_the_door(
    relay: RelayProcess, session: str
) -> tuple[list[WireListener], list[WireListener], Broadcaster]:
    """Let a crowd join beside a few listeners, check all accounts, and return the few, the crowd and the source."""
    crowd: list[WireListener] = []
    # A join costs this process as much as the relay, so only a few run at once.
    gate = asyncio.Semaphore(20)

    async def join() -> None:
        async with gate:
            crowd.append(await open_listener(relay.url, f"/v1/listen/{session}"))

    present = await listen_beside(relay, session, 20)
    with closing(present), closing(crowd):
        async with broadcasting(relay, session) as broadcaster:
            await broadcaster.play(0.4)
            async with asyncio.TaskGroup() as group:
                joining = [group.create_task(join()) for _ in range(300)]
                while not all(task.done() for task in joining):
                    await broadcaster.play(0.2)
            await broadcaster.play(0.6)
            await broadcaster.end()
            await check_accounts([*present, *crowd], broadcaster)
    assert all(listener.gaps == [] for listener in [*present, *crowd])
    return present, crowd, broadcaster
