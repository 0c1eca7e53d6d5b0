"""Whatever happens between the steps in which a batch is written, each listener's account is exact."""

import asyncio
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, initialize, multiple, rule

from relay.hub import drain
from relay.vocabulary.audio import Place
from tests.support.hub_bench import ADDRESS, FRAME, Bench, FakePort, block, check_account, slow_down, unblock


class Group(RuleBasedStateMachine):
    """The listeners of one stream. Their sockets are slow, so the drain yields after each write."""

    ports = Bundle("ports")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        # The sockets make time pass. It must not make audio too old, which would hide what is lost.
        self.bench = self.loop.run_until_complete(self._make())
        self.steps = mock.patch.object(drain, "_LISTENERS_AT_A_TIME", 1)
        self.steps.start()
        self.source = self.loop.run_until_complete(self._claim())
        self.channel = self.bench.hub.directory.open(ADDRESS)
        self.names = 0
        self.all_ports: list[FakePort] = []

    async def _make(self) -> Bench:
        return Bench(bound_seconds=1000.0)

    async def _claim(self) -> Any:
        return self.bench.claim()

    def teardown(self) -> None:
        try:
            for port in self.all_ports:
                unblock(port)
            self.settle()
            for port in self.all_ports:
                check_account(port, self.channel.place.seq)
            for group in self.channel.groups:
                assert not group.lagging, "a listener that is owed nothing lags"
                assert group.place is self.channel.place
        finally:
            self.steps.stop()
            self.loop.run_until_complete(self.bench.tasks.close())
            self.loop.close()

    @initialize(target=ports, count=st.just(12))
    def begin(self, count: int) -> MultipleResults[FakePort]:
        joined = self.join(count)
        self.settle()
        return joined

    @rule(target=ports, count=st.integers(1, 4))
    def join(self, count: int) -> MultipleResults[FakePort]:
        joined = []
        for _ in range(count):
            self.names += 1
            joined.append(self.bench.join(f"listener {self.names}"))
            slow_down(self.bench, joined[-1])
        self.all_ports += joined
        return multiple(*joined)

    @rule(port=consumes(ports))
    def leave(self, port: FakePort) -> None:
        self.bench.leave(port)
        self.all_ports.remove(port)

    @rule(port=ports)
    def block(self, port: FakePort) -> None:
        block(port)

    @rule(port=ports, room=st.integers(1, 4))
    def tighten(self, port: FakePort, room: int) -> None:
        port.room = room

    @rule(port=ports)
    def unblock(self, port: FakePort) -> None:
        unblock(port)

    @rule(frames=st.integers(1, 20), turns=st.integers(0, 3))
    def publish(self, frames: int, turns: int) -> None:
        self.bench.publish(self.source, frames)
        self.take_steps(turns)

    @rule(on=st.booleans())
    def mute(self, on: bool) -> None:
        self.bench.hub.broadcasting.mute(self.source, on=on)

    @rule(frames=st.integers(1, 5), turns=st.integers(0, 3))
    def lose_frames(self, frames: int, turns: int) -> None:
        place, ticks = self.channel.place, len(FRAME) // 2
        later = (place.position + frames, place.epoch, place.seq + frames, place.media_time + frames * ticks)
        self.channel.skip(Place(*later))
        self.take_steps(turns)

    def take_steps(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def settle(self) -> None:
        written = -1
        while written != (written := sum(len(port.written) for port in self.all_ports)):
            self.loop.run_until_complete(self.bench.settle())


TestGroup = Group.TestCase
TestGroup.settings = settings(max_examples=200, stateful_step_count=30)
