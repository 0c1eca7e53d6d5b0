"""Whatever happens to its connections and the channel, a client accounts for every frame exactly once."""

import asyncio
import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from relay.client.reception import Reception, UnknownLoss
from relay.client.reconnect import Reconnected
from relay.hub.channel import Broadcaster
from relay.protocol.messages import FormatChange, Gap, Hello, read_listener_event
from relay.protocol.requests import Delivery, Offer, Resume
from relay.protocol.wire import Audio
from relay.vocabulary.audio import AudioFormat, Pace
from tests.support.hub_bench import FRAME, Bench, FakePort, split

pytestmark = pytest.mark.long

FORMATS = (AudioFormat(), AudioFormat(rate=48_000, channels=2))
WORDS = 1 << 32


class Client:
    """A listening program: one reception over successive connections.

    Attributes:
        port: The current connection's socket at the relay, or None between connections.
        epoch: Epoch of the last frame that was passed on or reported lost.
        seq: Number of the next frame to account for.
    """

    def __init__(self, port: FakePort) -> None:
        self.port: FakePort | None = port
        self.reception: Reception | None = None
        self.epoch = self.seq = -1
        self._taken = 0

    def read(self, limit: int | None = None) -> None:
        """Receive the messages that the relay has written, at most `limit` of them."""
        assert self.port is not None
        messages = [one for item in self.port.written for one in self._messages(item)]
        for message in messages[self._taken : None if limit is None else self._taken + limit]:
            self._taken += 1
            self._receive(message)

    def reconnect(self, port: FakePort) -> None:
        self.port = port
        self._taken = 0

    @staticmethod
    def _messages(item: object) -> list[str | bytes]:
        return list(split(item)) if isinstance(item, bytes) else [json.dumps(item)]

    def _receive(self, message: str | bytes) -> None:
        event = read_listener_event(message)
        assert event is not None
        if self.reception is None:
            assert isinstance(event, Hello)
            self.reception = Reception(event)
            self.epoch, self.seq = event.epoch, event.next_seq
            return
        if isinstance(event, Hello):
            passed = self.reception.resume(event)
            assert passed[0] == Reconnected(event.resumed)
        else:
            passed = self.reception.take(event)
        for one in passed:
            match one:
                case UnknownLoss():
                    assert isinstance(event, Hello)
                    # The hub never restarts, so it knows every epoch that had a frame.
                    assert self.seq == 0
                    assert not event.resumed
                    self.epoch, self.seq = event.epoch, event.next_seq
                case FormatChange(epoch=epoch) if epoch != self.epoch:
                    self.epoch, self.seq = epoch, 0
                case Audio(header=header):
                    self._account(header.epoch, header.seq, header.seq)
                case Gap():
                    assert one.reason != "untold"
                    self._account(one.epoch, one.from_seq, one.to_seq)
                case _:
                    pass

    def _account(self, epoch: int, first: int, last: int) -> None:
        assert (epoch, first) == (self.epoch, self.seq), "out of order, twice, or left out"
        self.seq = last + 1


class Cuts(RuleBasedStateMachine):
    """One channel of a hub, successive sources, and a client that can be cut off at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = self.loop.run_until_complete(self._make())
        self.source: Broadcaster | None = None
        self.joined = 0
        self.client = Client(self._join(Delivery()))

    async def _make(self) -> Bench:
        return Bench(bound_seconds=1.0, stall_limit_seconds=None)

    def teardown(self) -> None:
        try:
            if self.client.port is None:
                self.return_()
            self.make_room()
            self.settle()
            self.client.read()
            self._check_nothing_is_owed()
        finally:
            self.bench.hub.broadcasting.close()
            self.loop.run_until_complete(self.bench.tasks.close())
            self.loop.close()

    def _check_nothing_is_owed(self) -> None:
        reception = self.client.reception
        assert reception is not None
        (live,) = self.bench.hub.directory
        place = live.place
        assert reception.resume_point == (place.epoch, (place.seq - 1) % WORDS)
        assert reception.audio_format == live.audio_format
        assert reception.state is live.state
        assert reception.stats.duplicate_frames == 0

    def _join(self, delivery: Delivery) -> FakePort:
        self.joined += 1

        async def join() -> FakePort:
            return self.bench.join(f"connection {self.joined}", delivery=delivery)

        return self.loop.run_until_complete(join())

    @precondition(lambda self: self.client.port is not None)
    @rule(received=st.integers(0, 30))
    def cut(self, received: int) -> None:
        """Cut the client off after it has received `received` of the messages that the relay has written."""
        client = self.client
        assert client.port is not None
        # Without the greeting, the client would have no place and would return as a new one.
        client.read(max(received, 1) if client.reception is None else received)
        self.bench.leave(client.port)
        client.port = None

    @precondition(lambda self: self.client.port is None)
    @rule()
    def return_(self) -> None:
        reception = self.client.reception
        assert reception is not None
        self.client.reconnect(self._join(Delivery(resume=Resume(*reception.resume_point))))

    @precondition(lambda self: self.client.port is not None)
    @rule(received=st.integers(1, 30))
    def receive(self, received: int) -> None:
        self.client.read(received)

    @precondition(lambda self: self.client.port is not None)
    @rule(room=st.integers(1, 4))
    def tighten(self, room: int) -> None:
        assert self.client.port is not None
        self.client.port.room = room

    @precondition(lambda self: self.client.port is not None)
    @rule()
    def make_room(self) -> None:
        port = self.client.port
        assert port is not None
        assert port.listener is not None
        port.room = 1_000_000
        self.bench.hub.listening.unblock(port.listener)

    @rule(audio_format=st.sampled_from(FORMATS), pace=st.sampled_from(Pace))
    def take_over(self, audio_format: AudioFormat, pace: Pace) -> None:
        async def claim() -> Broadcaster:
            return self.bench.claim(offer=Offer(audio_format, pace, takeover=True))

        self.source = self.loop.run_until_complete(claim())

    @precondition(lambda self: self.source is not None)
    @rule(frames=st.integers(1, 40))
    def publish(self, frames: int) -> None:
        source = self.source
        assert source is not None

        async def publish() -> None:
            self.bench.publish(source, frames, FRAME)

        self.loop.run_until_complete(publish())

    @precondition(lambda self: self.source is not None)
    @rule()
    def clear(self) -> None:
        source = self.source
        assert source is not None

        async def clear() -> None:
            self.bench.hub.broadcasting.clear(source)

        self.loop.run_until_complete(clear())

    @precondition(lambda self: self.source is not None)
    @rule()
    def lose_the_source(self) -> None:
        source, self.source = self.source, None
        assert source is not None

        async def release() -> None:
            self.bench.hub.broadcasting.release(source)

        self.loop.run_until_complete(release())

    @rule(seconds=st.sampled_from((0.01, 0.2, 0.9, 5.0)))
    def time_passes(self, seconds: float) -> None:
        async def release() -> None:
            for live in self.bench.hub.directory:
                self.bench.hub.broadcasting.release_due(live)
            self.bench.hub.keep_house()

        self.bench.now += seconds
        self.loop.run_until_complete(release())

    @rule()
    def settle(self) -> None:
        self.loop.run_until_complete(self.bench.settle())
        self.bench.now += 0.003


TestCuts = Cuts.TestCase
TestCuts.settings = settings(max_examples=150, stateful_step_count=40)
