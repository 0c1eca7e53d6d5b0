"""The drain task and a listener's account, with sockets whose fullness the test decides."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from relay.hub.batch import MAX_WRITE_FRAMES, MAX_WRITE_SECONDS
from relay.hub.framing import RAW
from relay.hub.listener import MAX_NOTES
from relay.limits.names import Limit
from relay.metrics.distribution import Distribution
from relay.process.tasks import TaskRegistry
from relay.protocol.requests import Delivery
from relay.settings.settings import ListenerSettings
from relay.vocabulary.audio import FRAMES_PER_SECOND, AudioFormat
from relay.vocabulary.errors import CloseCode
from tests.support.hub_bench import (
    FRAME,
    FRAME_SECONDS,
    Bench,
    FakePort,
    block,
    check_account,
    serialize,
    split,
    unblock,
)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


async def test_one_write_for_each_frame_while_the_socket_keeps_up(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    for _ in range(3):
        bench.publish(source)
        await bench.settle()
    assert port.kinds == ["hello", "format", "state"]
    assert len(port.writes) == 3
    check_account(port, 3)


async def test_what_queued_up_is_joined_once_and_shared(bench: Bench) -> None:
    ports = [bench.join(name) for name in ("a", "b")]
    raw = bench.join("raw", RAW)
    source = bench.claim()
    await bench.settle()
    for _ in range(3):
        bench.publish(source)
    await bench.settle()
    assert len(ports[0].writes) == 1
    assert ports[0].writes[0] is ports[1].writes[0]
    assert raw.writes == [serialize(FRAME) * 3]
    assert raw.told == []
    check_account(ports[0], 3)


async def test_a_joined_write_carries_no_more_than_its_limit(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    for _ in range(30):
        bench.publish(source)
    await bench.settle()
    most = int(MAX_WRITE_SECONDS / FRAME_SECONDS)
    assert [len(split(write)) for write in port.writes] == [most, most, 30 - 2 * most]
    check_account(port, 30)


async def test_a_full_socket_is_left_alone_and_loses_its_oldest(bench: Bench) -> None:
    healthy, stalled = bench.join("healthy"), bench.join("stalled")
    source = bench.claim()
    await bench.settle()
    stalled.room = 5
    for _ in range(100):
        bench.publish(source)
        bench.now += FRAME_SECONDS
        await bench.settle()
    assert len(stalled.frames) == 5
    assert len(healthy.frames) == 100
    assert bench.manager.get_buffer_utilization("stalled") == 100.0
    unblock(stalled)
    await bench.settle()
    check_account(healthy, 100)
    check_account(stalled, 100)
    gap = next(message for message in stalled.told if message["type"] == "gap")
    assert (gap["from_seq"], gap["to_seq"], gap["reason"]) == (5, 49, "overflow")
    assert gap["duration_ms"] == 45 * 20
    assert stalled.frames[-1].seq == 99


async def test_a_line_about_lost_audio_counts_the_listeners_of_the_session(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    slow = bench.join("slow")
    for number in range(3):
        bench.join(f"german {number}", channel="de")
    block(slow)
    bench.publish(bench.claim(), 60)
    (line,) = [record for record in caplog.records if record.message == "listeners began to lose audio"]
    assert (line.__dict__["listeners"], line.__dict__["overflowing_listeners"]) == (4, 1)


async def test_audio_older_than_the_bound_is_not_written(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    await bench.settle()
    block(port)
    for _ in range(10):
        bench.publish(source)
        bench.now += 0.15
    unblock(port)
    await bench.settle()
    gap = port.told[-1]
    assert (gap["type"], gap["from_seq"], gap["to_seq"], gap["reason"]) == ("gap", 0, 3, "stale")
    check_account(port, 10)
    assert all(bench.now * 1000 - header.due_ms <= 1000 for header in port.frames)


async def test_states_keep_their_place_between_the_frames(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    await bench.settle()
    block(port)
    bench.publish(source)
    bench.release(source)
    source = bench.claim()
    bench.publish(source)
    unblock(port)
    await bench.settle()
    shape = [
        message["state"] if isinstance(message, dict) else "audio"
        for message in port.written[2:]
        if not (isinstance(message, dict) and message["type"] == "channels")
    ]
    assert shape == ["live", "audio", "source_lost", "live", "audio"]


async def test_what_was_lost_before_a_new_epoch_is_told_in_the_old_one(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    await bench.settle()
    block(port)
    old_epoch = source.channel.place.epoch
    for _ in range(10):
        bench.publish(source)
    bench.release(source)
    source = bench.claim(AudioFormat(rate=48_000, channels=2))
    for _ in range(60):
        bench.publish(source, audio=bytes(48 * 20 * 4))
    unblock(port)
    await bench.settle()
    told = [message for message in port.told if message["type"] != "channels"][3:]
    assert [message["type"] for message in told] == ["gap", "state", "format", "state", "gap"]
    assert (told[0]["epoch"], told[0]["from_seq"], told[0]["to_seq"]) == (old_epoch, 0, 9)
    assert told[0]["duration_ms"] == 200
    assert told[2]["epoch"] == (old_epoch + 1) % 65536
    assert (told[4]["epoch"], told[4]["from_seq"], told[4]["to_seq"]) == (told[2]["epoch"], 0, 9)
    assert [header.seq for header in port.frames] == list(range(10, 60))
    assert port.bytes_per_second == 192_000


async def test_a_session_that_ends_gives_everybody_what_is_owed_first(bench: Bench) -> None:
    quick, slow = bench.join("quick"), bench.join("slow")
    source = bench.claim()
    await bench.settle()
    block(slow)
    bench.publish(source)
    bench.hub.broadcasting.end(source)
    await bench.settle()
    assert quick.closed == (CloseCode.SESSION_ENDED, "The session ended.")
    assert slow.closed is None
    unblock(slow)
    await bench.settle()
    assert slow.closed == quick.closed
    check_account(slow, 1)


async def test_a_stalled_listener_is_cut_off_at_the_limit(bench: Bench) -> None:
    port, other = bench.join(), bench.join("other")
    block(port)
    bench.now += 14.9
    bench.hub.keep_house()
    assert not port.aborted
    bench.now += 0.1
    bench.hub.keep_house()
    assert port.aborted
    assert not other.aborted
    assert (port.aborted_by, port.aborted_because) == (Limit.SILENCE, "Its socket took nothing for 15 s.")


async def test_without_a_limit_a_stalled_listener_stays() -> None:
    bench = Bench(stall_limit_seconds=None)
    port = bench.join()
    block(port)
    bench.now += 1e6
    bench.hub.keep_house()
    assert not port.aborted
    await bench.tasks.close()


async def test_a_listener_that_left_gets_nothing_and_is_not_resurrected(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    await bench.settle()
    assert port.listener is not None
    bench.publish(source)
    bench.hub.listening.leave(port.listener)
    bench.hub.listening.leave(port.listener)
    bench.hub.listening.unblock(port.listener)
    bench.publish(source)
    await bench.settle()
    assert port.writes == []
    assert bench.manager.buffers == {}


async def test_one_who_is_too_many_changes_behind_is_cut_off(bench: Bench) -> None:
    port = bench.join()
    block(port)
    source = bench.claim()
    for _ in range(MAX_NOTES // 2):
        bench.release(source)
        source = bench.claim()
    assert port.aborted
    assert (port.aborted_by, port.aborted_because) == (Limit.NOTES, "It was 64 changes behind.")


@pytest.mark.parametrize("sessions", [1, 200])
async def test_a_pass_gives_way_to_the_loop(sessions: int) -> None:
    """With a clock that runs, a long pass lets other work in between two slices."""
    bench = Bench(bound_seconds=100.0, clock=_Ticking())
    ports = [bench.join(f"l{n}", session=f"s{n % sessions}") for n in range(200)]
    sources = [bench.claim(session=f"s{n}") for n in range(sessions)]
    for source in sources:
        bench.publish(source)
    progress = [0]
    async with asyncio.timeout(10):
        while progress[-1] < 200:
            await asyncio.sleep(0)
            progress.append(sum(bool(port.writes) for port in ports))
    assert max(after - before for before, after in pairwise(progress)) <= 50, progress
    await bench.tasks.close()


async def test_a_large_channel_keeps_nobody_waiting() -> None:
    """A batch to it takes twice as long as a frame lasts, so there is always a next one."""
    bench = Bench(bound_seconds=10.0, clock=lambda: now)
    now, published, late, over = 0.0, 0, list[FakePort](), asyncio.Event()

    def take(wire: bytes) -> int:
        nonlocal now, published
        now += 0.0001
        if now >= published * FRAME_SECONDS and published < 50:
            published += 1
            for source in sources:
                bench.publish(source)
            if published == 25:
                late.append(bench.join("late", session="large"))
        elif published == 50:
            over.set()
        return len(wire)

    for n in range(400):
        bench.join(f"large {n}", session="large").send = take
    small = bench.join(session="small")
    sources = bench.claim(session="large"), bench.claim(session="small")
    await bench.settle()
    for source in sources:
        bench.publish(source)
    async with asyncio.timeout(20):
        await over.wait()
    assert len(small.frames) >= 49, "it is served between two slices of the large one"
    assert len(late[0].frames) >= 20, "who joins the large one is served between two of its batches"
    assert 0.0 < bench.drain.busy_seconds < 0.05
    await bench.tasks.close()


async def test_a_fault_in_serving_one_listener_ends_that_one_only(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(wire: bytes) -> int:
        raise ZeroDivisionError

    broken, healthy = bench.join("broken"), bench.join("healthy")
    broken.send = fail
    source = bench.claim()
    bench.publish(source, 3)
    await bench.settle()
    assert (broken.aborted, healthy.aborted) == (True, False)
    assert len(healthy.frames) == 3
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "listener cut off: serving it failed"
    ]


async def test_lag_is_counted_for_each_listener_while_a_run_is_written() -> None:
    now = 0.0

    def take(wire: bytes) -> int:
        nonlocal now
        now += 0.0001
        return len(wire)

    bench = Bench(clock=lambda: now)
    for n in range(64):
        bench.join(f"l{n}").send = take
    source = bench.claim()
    bench.publish(source)
    await bench.settle()
    (group,) = source.channel.groups
    bench.publish(source)
    await asyncio.sleep(0)
    now += 1.0
    counted, lags = Distribution(), [lag for lag, _ in group.lags(now)]
    group.note_lag(counted, now)
    assert 0 < lags.count(0.0) < len(lags) == 64, "some have got the batch and some have not"
    assert len(counted) == 64
    assert counted.total == pytest.approx(1000 * sum(lags))
    await bench.tasks.close()


async def test_audio_gets_as_much_time_as_what_else_there_is() -> None:
    """When each turn of others takes 8 ms, a slice does, too."""
    now = 0.0

    def take(wire: bytes) -> int:
        nonlocal now
        now += 0.00005
        written.append(now)
        return len(wire)

    bench = Bench(clock=lambda: now)
    for n in range(600):
        bench.join(f"l{n}").send = take
    written: list[float] = []
    source = bench.claim()
    await bench.settle()
    bench.publish(source)
    await bench.settle()
    written.clear()
    bench.publish(source)
    slices: list[int] = []
    while sum(slices) < 600:
        before = len(written)
        await asyncio.sleep(0)
        now += 0.008
        slices.append(len(written) - before)
    served = [count for count in slices if count]
    assert served[0] < 60, slices
    assert min(served[1:-1]) > 150, slices
    await bench.tasks.close()


class _Ticking:
    """A clock that moves a millisecond each time it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


async def test_a_crash_of_a_task_is_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    registry = TaskRegistry()

    async def crash() -> None:
        raise RuntimeError("boom")

    registry.start(crash(), "unlucky")
    await registry.join()
    assert "a background task crashed" in caplog.text
    assert len(registry) == 0


async def test_what_a_task_starts_while_it_is_cancelled_is_joined_too() -> None:
    registry = TaskRegistry()

    async def last() -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            registry.start(last(), "late")

    registry.start(work(), "early")
    await asyncio.sleep(0)
    await registry.close()
    assert len(registry) == 0
    assert not registry.broken.is_set()


async def test_frames_of_one_sample_are_bounded_in_a_write_and_for_who_joins(bench: Bench) -> None:
    """Hundreds of thousands of frames fit into the seconds of the history, and each join would walk all of them."""
    port, source = bench.join(), bench.claim()
    await bench.settle()
    bench.publish(source, 5000, b"\0\0")
    block(port)
    bench.publish(source, 5000, b"\0\0")
    late = bench.join("late", delivery=Delivery(burst_ms=1000))
    for _ in range(100):
        await bench.settle()
    unblock(port)
    for _ in range(100):
        await bench.settle()
    assert late.hello["next_seq"] >= 10_000 - ListenerSettings().history_seconds * FRAMES_PER_SECOND
    for each in (port, late):
        check_account(each, 10_000)
        assert max(len(split(write)) for write in each.writes) <= MAX_WRITE_FRAMES
