"""However slowly a socket is read, the kernel gets no frame that is older than the listener's bound."""

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.hub.framing import RAW, RELAY_V1, Framing
from relay.protocol.wire import Header
from tests.support.hub_bench import Bench, FakePort, block, check_account, split, unblock
from tests.support.wire_listener import numbered_audio

pytestmark = pytest.mark.long

RATE = 32_000
"""Bytes per second of 16 kHz mono."""

UNSENT_BYTES = RATE // 5
"""Bytes that may wait in the kernel: 200 ms."""

SEGMENT_BYTES = 1000
"""The kernel checks how many bytes wait before each segment of this size."""

STEP_SECONDS = 0.005


class SlowPort(FakePort):
    """A socket whose peer reads more slowly than real time, with the kernel's bound on unsent bytes.

    Attributes:
        ages_ms: Age of each frame when its last byte went to the kernel.
    """

    def __init__(self, bench: Bench, name: str = "listener", framing: Framing = RELAY_V1) -> None:
        super().__init__()
        self.send = self._take_part
        self.ages_ms: list[float] = []
        self.published_at = [bench.now]
        self._bench = bench
        self._unsent_bytes = 0.0
        self._handed = b""
        self._is_awaited = False
        bench.join(name, framing, port=self)

    def _take_part(self, wire: bytes) -> int:
        taken = 0
        while taken < len(wire) and self._unsent_bytes < UNSENT_BYTES:
            segment = wire[taken : taken + SEGMENT_BYTES]
            self._hand_over(segment)
            taken += len(segment)
        if not taken:
            raise BlockingIOError
        return taken

    def complete(self, rest: bytes) -> None:
        self._hand_over(rest)

    def await_room(self) -> None:
        self._is_awaited = True
        block(self)

    def read(self, byte_count: float) -> None:
        self._unsent_bytes = max(0.0, self._unsent_bytes - byte_count)
        if self._is_awaited and self._unsent_bytes < UNSENT_BYTES / 2:
            self._is_awaited = False
            unblock(self)

    def _hand_over(self, data: bytes) -> None:
        self._unsent_bytes += len(data)
        self._handed += data
        while len(self._handed) >= 4 and len(self._handed) >= (end := 4 + int.from_bytes(self._handed[:4])):
            message, self._handed = self._handed[:end], self._handed[end:]
            self.written.append(message)
            number = int.from_bytes(message[-4:])
            self.ages_ms.append((self._bench.now - self.published_at[number]) * 1000)


async def read_slowly(bound_seconds: float, speed: float, frame_seconds: float) -> None:
    """Read nothing until the bound is reached, then at `speed` times real time, then everything."""
    bench = Bench(bound_seconds=bound_seconds, stall_limit_seconds=None)
    port = SlowPort(bench)
    raw = SlowPort(bench, "raw", RAW)
    raw.published_at = port.published_at
    source = bench.claim()
    await bench.settle()
    published_at = port.published_at
    published_at.clear()
    began = bench.now

    async def go_on(seconds: float, speed: float) -> None:
        end = bench.now + seconds
        while bench.now < end:
            bench.now += STEP_SECONDS
            if bench.now - began >= (len(published_at) + 1) * frame_seconds:
                audio = numbered_audio(len(published_at), round(frame_seconds * RATE))
                published_at.append(bench.now)
                bench.publish(source, audio=audio)
            for each in (port, raw):
                each.read(speed * RATE * STEP_SECONDS)
            await bench.settle()

    await go_on(bound_seconds + 0.5, 0.0)
    delivered = len(port.ages_ms)
    slow_seconds = 4.0
    await go_on(slow_seconds, speed)
    slowly = len(port.ages_ms) - delivered
    await go_on(1.0, 100.0)
    await bench.tasks.close()
    check_account(port, len(published_at))
    assert max(*port.ages_ms, *raw.ages_ms) <= (bound_seconds + frame_seconds) * 1000 + 20
    # Headers take up some of the rate, and data written before the slowdown is sent first.
    assert slowly * frame_seconds >= 0.8 * speed * slow_seconds - UNSENT_BYTES / RATE - frame_seconds, "it starves"


@settings(max_examples=40, deadline=None)
@given(
    bound_ms=st.integers(200, 10_000),
    speed=st.floats(0.1, 0.95),
    frame_ms=st.sampled_from((10, 20, 60, 100, 250)),
)
@example(bound_ms=1500, speed=0.5, frame_ms=20)
@example(bound_ms=200, speed=0.1, frame_ms=20)
@example(bound_ms=200, speed=0.1, frame_ms=250)
@example(bound_ms=10_000, speed=0.95, frame_ms=20)
def test_no_frame_is_handed_over_older_than_the_bound_at_any_speed(bound_ms: int, speed: float, frame_ms: int) -> None:
    asyncio.run(read_slowly(bound_ms / 1000, speed, frame_ms / 1000))


async def test_what_a_clear_takes_back_is_not_behind_a_write() -> None:
    """The socket accepts part of a write. A clear also drops the frames of that write that have not begun."""
    bench = Bench()
    port = SlowPort(bench)
    source = bench.claim()
    await bench.settle()
    for _ in range(3):
        bench.publish(source, 10)
        await bench.settle()
    before = len(port.writes)
    assert 0 < before < 20
    bench.hub.broadcasting.clear(source)
    bench.publish(source)
    port.read(UNSENT_BYTES)
    await bench.settle()
    assert len(port.writes) == before + 1
    assert port.told[-1]["type"] == "clear"
    assert port.of_type("gap")[-1]["reason"] == "clear"
    check_account(port, 31)
    await bench.tasks.close()


async def test_who_switches_is_written_nothing_of_the_old_channel_but_what_was_begun() -> None:
    bench = Bench()
    port = SlowPort(bench)
    old, new = bench.claim(), bench.claim(channel="de")
    await bench.settle()
    bench.publish(old, 30)
    await bench.settle()
    before = len(port.writes)
    bench.switch(port, "de")
    bench.publish(old)
    bench.publish(new)
    port.read(UNSENT_BYTES)
    await bench.settle()
    assert len(port.writes) == before + 1
    assert Header.unpack(split(port.writes[-1])[0]).epoch == port.of_type("hello")[-1]["epoch"]
    await bench.tasks.close()


async def test_a_socket_that_is_broken_is_aborted_and_not_asked_again() -> None:
    writes: list[bytes] = []

    def break_off(wire: bytes) -> int:
        writes.append(wire)
        raise BrokenPipeError

    bench = Bench()
    port = bench.join()
    source = bench.claim()
    await bench.settle()
    port.send = break_off
    bench.publish(source)
    await bench.settle()
    unblock(port)
    for _ in range(3):
        bench.publish(source)
        await bench.settle()
    assert port.aborted
    assert len(writes) == 2
    await bench.tasks.close()
