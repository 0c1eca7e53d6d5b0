"""The drain task and a listener's account, with sockets whose fullness the test decides."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core.audio_buffer_manager import AudioBufferManager
from relay.core.wire import Header
from relay.runtime.drain import MAX_WRITE_SECONDS, Drain
from relay.runtime.hub import Hub
from relay.runtime.listener import MAX_NOTES, Framing, Listener
from relay.runtime.tasks import TaskRegistry
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.names import ChannelAddress
from relay.vocabulary.settings import BroadcastSettings, ListenerSettings

ADDRESS = ChannelAddress("ev1")
MONO = AudioFormat()
FRAME_SECONDS = 0.02
FRAME = bytes(640)


def serialize(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def split(wire: bytes) -> list[bytes]:
    """The payloads that were serialized and joined."""
    payloads = []
    while wire:
        length = int.from_bytes(wire[:4], "big")
        payloads.append(wire[4 : 4 + length])
        wire = wire[4 + length :]
    return payloads


class FakePort:
    """A socket that takes `room` writes and then none, until the test makes room."""

    def __init__(self) -> None:
        self.room = 1_000_000
        self.written: list[bytes | dict[str, Any]] = []
        self.closed: tuple[CloseCode, str] | None = None
        self.aborted = False
        self.cut = b""
        self.hub: Hub | None = None
        self.listener: Listener | None = None

    def write(self, wire: bytes) -> int:
        self.room -= 1
        if self.room > 0:
            self.written.append(wire)
            return len(wire)
        if self.room == 0:
            self.cut = wire[: len(wire) // 2]
            return len(self.cut)
        raise BlockingIOError

    def write_rest(self, rest: bytes) -> None:
        self.written.append(self.cut + rest)
        self.cut = b""
        assert self.hub is not None
        assert self.listener is not None
        self.hub.block(self.listener)

    def send_text(self, text: str) -> None:
        self.written.append(json.loads(text))

    def fit_kernel(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def abort(self) -> None:
        self.aborted = True

    @property
    def told(self) -> list[dict[str, Any]]:
        return [message for message in self.written if isinstance(message, dict)]

    @property
    def writes(self) -> list[bytes]:
        return [message for message in self.written if isinstance(message, bytes)]

    @property
    def frames(self) -> list[Header]:
        """Headers of all frames written, in order."""
        return [Header.unpack(payload) for write in self.writes for payload in split(write)]


class Bench:
    """A hub with a clock that the test moves, and its drain task."""

    def __init__(self, *, bound_seconds: float = 1.0, stall_limit_seconds: float | None = 15.0) -> None:
        self.now = 1_000.0
        self.tasks = TaskRegistry()
        self.manager = AudioBufferManager(bound_seconds, clock=lambda: self.now)
        self.drain = Drain(lambda: self.now, serialize)
        self.hub = Hub(
            self.manager,
            self.drain,
            clock=lambda: self.now,
            serialize=serialize,
            broadcast=BroadcastSettings(),
            listener=ListenerSettings(stall_limit_seconds=stall_limit_seconds),
        )
        self.tasks.start(self.drain.run(), "drain")

    def join(self, name: str = "listener", framing: Framing = Framing.RELAY_V1) -> FakePort:
        port = FakePort()
        port.hub = self.hub
        port.listener = self.hub.join(ADDRESS, name, port, framing)
        return port

    async def settle(self) -> None:
        """Let the drain finish what it has been woken for."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()


def block(port: FakePort) -> None:
    assert port.hub is not None
    assert port.listener is not None
    port.hub.block(port.listener)


def unblock(port: FakePort) -> None:
    assert port.hub is not None
    assert port.listener is not None
    port.room = 1_000_000
    port.hub.unblock(port.listener)


def check_account(port: FakePort, published: int) -> None:
    """Delivered plus gaps are exactly the published frames of the epoch, in order, without overlap."""
    expected = 0
    for message in port.written:
        if isinstance(message, dict):
            if message["type"] == "gap":
                assert message["from_seq"] == expected
                expected = message["to_seq"] + 1
            continue
        for payload in split(message):
            assert Header.unpack(payload).seq == expected
            expected += 1
    assert expected == published


async def test_one_write_for_each_frame_while_the_socket_keeps_up(bench: Bench) -> None:
    port = bench.join()
    live = bench.hub.claim(ADDRESS, MONO, "source")
    for _ in range(3):
        bench.hub.publish(live, FRAME)
        await bench.settle()
    assert [message["type"] for message in port.told] == ["hello", "format", "state"]
    assert len(port.writes) == 3
    check_account(port, 3)


async def test_what_queued_up_is_joined_once_and_shared(bench: Bench) -> None:
    ports = [bench.join(name) for name in ("a", "b")]
    raw = bench.join("raw", Framing.RAW)
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    for _ in range(3):
        bench.hub.publish(live, FRAME)
    await bench.settle()
    assert len(ports[0].writes) == 1
    assert ports[0].writes[0] is ports[1].writes[0]
    assert raw.writes == [serialize(FRAME) * 3]
    assert raw.told == []
    check_account(ports[0], 3)


async def test_a_joined_write_carries_no_more_than_its_limit(bench: Bench) -> None:
    port = bench.join()
    live = bench.hub.claim(ADDRESS, MONO, "source")
    for _ in range(30):
        bench.hub.publish(live, FRAME)
    await bench.settle()
    most = int(MAX_WRITE_SECONDS / FRAME_SECONDS)
    assert [len(split(write)) for write in port.writes] == [most, most, 30 - 2 * most]
    check_account(port, 30)


async def test_a_full_socket_is_left_alone_and_loses_its_oldest(bench: Bench) -> None:
    healthy, stalled = bench.join("healthy"), bench.join("stalled")
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    stalled.room = 5
    for _ in range(100):
        bench.hub.publish(live, FRAME)
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


async def test_audio_older_than_the_bound_is_not_written(bench: Bench) -> None:
    port = bench.join()
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    block(port)
    for _ in range(10):
        bench.hub.publish(live, FRAME)
        bench.now += 0.15
    unblock(port)
    await bench.settle()
    gap = port.told[-1]
    assert (gap["type"], gap["from_seq"], gap["to_seq"], gap["reason"]) == ("gap", 0, 3, "stale")
    check_account(port, 10)
    assert all(bench.now * 1000 - header.due_ms <= 1000 for header in port.frames)


async def test_states_keep_their_place_between_the_frames(bench: Bench) -> None:
    port = bench.join()
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    block(port)
    bench.hub.publish(live, FRAME)
    bench.hub.release(live, "source")
    bench.hub.claim(ADDRESS, MONO, "source")
    bench.hub.publish(live, FRAME)
    unblock(port)
    await bench.settle()
    shape = [message["state"] if isinstance(message, dict) else "audio" for message in port.written[2:]]
    assert shape == ["live", "audio", "source_lost", "live", "audio"]


async def test_what_was_lost_before_a_new_epoch_is_told_in_the_old_one(bench: Bench) -> None:
    port = bench.join()
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    block(port)
    old_epoch = live.channel.place.epoch
    for _ in range(10):
        bench.hub.publish(live, FRAME)
    bench.hub.release(live, "source")
    bench.hub.claim(ADDRESS, AudioFormat(rate=48_000, channels=2), "source")
    for _ in range(60):
        bench.hub.publish(live, bytes(48 * 20 * 4))
    unblock(port)
    await bench.settle()
    told = port.told[3:]
    assert [message["type"] for message in told] == ["gap", "state", "format", "state", "gap"]
    assert (told[0]["epoch"], told[0]["from_seq"], told[0]["to_seq"]) == (old_epoch, 0, 9)
    assert told[0]["duration_ms"] == 200
    assert told[2]["epoch"] == (old_epoch + 1) % 65536
    assert (told[4]["epoch"], told[4]["from_seq"], told[4]["to_seq"]) == (told[2]["epoch"], 0, 9)
    assert [header.seq for header in port.frames] == list(range(10, 60))
    assert port.bytes_per_second == 192_000


async def test_a_session_that_ends_gives_everybody_what_is_owed_first(bench: Bench) -> None:
    quick, slow = bench.join("quick"), bench.join("slow")
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    block(slow)
    bench.hub.publish(live, FRAME)
    bench.hub.end(live)
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
    live = bench.hub.claim(ADDRESS, MONO, "source")
    await bench.settle()
    assert port.listener is not None
    bench.hub.publish(live, FRAME)
    bench.hub.leave(port.listener)
    bench.hub.leave(port.listener)
    bench.hub.unblock(port.listener)
    bench.hub.publish(live, FRAME)
    await bench.settle()
    assert port.writes == []
    assert bench.manager.buffers == {}


async def test_one_who_is_too_many_changes_behind_is_cut_off(bench: Bench) -> None:
    port = bench.join()
    block(port)
    live = bench.hub.claim(ADDRESS, MONO, "source")
    for _ in range(MAX_NOTES // 2):
        bench.hub.release(live, "source")
        bench.hub.claim(ADDRESS, MONO, "source")
    assert port.aborted


async def test_idle_channels_are_forgotten(bench: Bench) -> None:
    port = bench.join()
    first = bench.hub.claim(ADDRESS, MONO, "source")
    bench.hub.release(first, "source")
    assert port.listener is not None
    bench.hub.leave(port.listener)
    bench.hub.keep_house()
    assert bench.hub.claim(ADDRESS, MONO, "source") is first, "the grace is not over"
    bench.hub.release(first, "source")
    bench.now += 30
    bench.hub.keep_house()
    assert bench.hub.claim(ADDRESS, MONO, "source") is not first


async def test_a_pass_gives_way_to_the_loop() -> None:
    """With a clock that runs, a long pass lets other work in between two slices."""
    bench = Bench()
    bench.drain = Drain(tick := _Ticking(), serialize)
    assert tick() < tick()
    ports = [bench.join(f"l{n}") for n in range(200)]
    bench.hub._drain = bench.drain
    live = bench.hub.claim(ADDRESS, MONO, "source")
    progress: list[int] = []

    async def watch() -> None:
        while len(progress) < 5:
            progress.append(sum(bool(port.writes) for port in ports))
            await asyncio.sleep(0)

    bench.hub.publish(live, FRAME)
    bench.tasks.start(bench.drain.run(), "drain")
    await watch()
    assert 0 < progress[2] < 200, progress
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
