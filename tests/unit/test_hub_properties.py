"""In any order of events, each listener's account is exact and a channel has at most one broadcaster."""

import asyncio
import contextlib
import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from relay.access.grants import Grant, TokenRole
from relay.access.rules import OperatorPermit
from relay.audio.timeline import Farewell, number
from relay.hub.channel import DISCONNECTED, MAX_KNOWN_CONNECTIONS, Broadcaster
from relay.hub.channel_record import ChannelRecord
from relay.hub.lag import LagMeter
from relay.hub.listener import Listener, Note
from relay.hub.operations import Operations
from relay.hub.tap import Tap, TapOverflowError
from relay.hub.vital_signs import VitalSigns
from relay.protocol.messages import DeliveryChange
from relay.protocol.requests import Delivery, Offer, Resume
from relay.vocabulary.audio import AudioFormat, Codec, Frame, Pace, Place
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import BadRequestError, ChannelBusyError
from relay.vocabulary.names import ChannelAddress
from tests.support.hub_bench import FRAME, Bench, FakePort, serialize, split, unpack

pytestmark = pytest.mark.long

CHANNELS = ("main", "de")
EVERYTHING = OperatorPermit(("*",), Grant(frozenset({TokenRole.ADMIN}), ("*",), ("*",), "a test"))
FORMATS = (AudioFormat(), AudioFormat(rate=48_000, channels=2), AudioFormat(Codec.OPUS, 24_000))


class Account:
    """What a listener received, checked as it arrives.

    Attributes:
        epoch: Epoch of the next frame.
        seq: Number of the next frame that must arrive or be reported lost.
        due_ms: Deadline of the last frame; 0 before the first frame and after a clear.
        told: The reported state of the channel, and the reported reason for silence.
        codec: Codec of the listener's frames.
    """

    def __init__(self, port: FakePort, codec: Codec) -> None:
        self._port = port
        self.codec = codec
        self._read = 0
        self.epoch = self.seq = -1
        self.due_ms = 0
        self.channel = ""
        self.told: tuple[str, str | None] = ("", None)

    @property
    def resumption(self) -> Delivery:
        return Delivery(resume=Resume(self.epoch, self.seq - 1, self.codec), codecs=(self.codec,))

    def read(self) -> None:
        news = self._port.written[self._read :]
        self._read = len(self._port.written)
        for item in news:
            if isinstance(item, dict):
                self._read_message(item)
            else:
                for payload in split(item):
                    frames = unpack(payload)
                    for header in (each.header for each in frames):
                        assert (header.epoch, header.seq) == (self.epoch, self.seq), "a frame out of order"
                        self.seq += 1
                    # The due times of the others in a message follow from their durations.
                    due_ms = frames[0].header.due_ms
                    assert due_ms >= self.due_ms, "due before the message before it"
                    self.due_ms = due_ms

    def _read_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello":
                self.epoch, self.seq, self.channel = message["epoch"], message["next_seq"], message["channel"]
                self.told = (message["state"], message["silence"])
                self.due_ms = 0
            case "clear":
                self.due_ms = 0
            case "gap":
                assert (message["epoch"], message["from_seq"]) == (self.epoch, self.seq), "a gap out of order"
                assert message["to_seq"] >= message["from_seq"]
                self.seq = message["to_seq"] + 1
            case "state":
                self.told = (message["state"], message["silence"])
            case "format" if message["epoch"] != self.epoch:
                self.epoch, self.seq = message["epoch"], 0


class Reader:
    """What a tap delivered, checked as it arrives: every frame since the tap opened, without a break but for holes."""

    def __init__(self, live: Any, tap: Tap, holes: dict[Place, Place]) -> None:
        self.live = live
        self.holes = holes
        self.tap = tap
        self.place = tap.start
        self.audio_format = tap.audio_format
        self.is_over = False

    def take(self, item: Frame | Note) -> None:
        assert not self.is_over, "something after the end"
        self.pass_holes(item.start if isinstance(item, Frame) else item.place)
        if isinstance(item, Frame):
            assert item.start is self.place, "a frame out of order"
            assert self.audio_format is not None
            assert item.end.media_time - item.start.media_time == self.audio_format.measure(item.audio).ticks
            self.place = item.end
            return
        assert item.place is self.place, "a note between other frames"
        if item.new_place is not None:
            self.place, self.audio_format = item.new_place, item.audio_format
        self.is_over = item.close is not None

    def pass_holes(self, place: Place) -> None:
        while self.place is not place and self.place in self.holes:
            self.place = self.holes[self.place]


class Life(RuleBasedStateMachine):
    listeners = Bundle("listeners")
    readers = Bundle("readers")
    gone = Bundle("gone")
    sources = Bundle("sources")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = self.loop.run_until_complete(self._make())
        self.holes: dict[Place, Place] = {}
        self.accounts: dict[FakePort, Account] = {}
        self.all_sources: list[Broadcaster] = []
        self.published: dict[Broadcaster, int] = {}
        self.gone_ports: set[FakePort] = set()
        self.owed: dict[Listener, Any] = {}
        self.operations = Operations(self.bench.hub, self.bench.time)
        self.signs = VitalSigns(self.bench.hub, LagMeter(self.bench.time, lambda: 0.0), self.bench.time)
        self.ports: list[FakePort] = []
        self.counted: list[int] = []
        self.names = 0
        self.taps: list[Reader] = []
        self.noticed: dict[Any, list[bool]] = {}
        self.bench.hub.on_open.append(self._observe)

    def _observe(self, live: Any) -> None:
        self.noticed[live] = []
        live.observers.append(self.noticed[live].append)

    async def _make(self) -> Bench:
        # By chance, random epochs of two channels would be the same now and then. These also pass the end of 16 bits.
        epochs = itertools.count(65_530, 1000)
        return Bench(bound_seconds=1.0, stall_limit_seconds=None, draw_epoch=lambda _: next(epochs) % 65_536)

    def teardown(self) -> None:
        try:
            self._check_nothing_is_owed()
        finally:
            self.bench.hub.broadcasting.close()
            self.loop.run_until_complete(self.bench.tasks.close())
            self.loop.close()

    def _check_nothing_is_owed(self) -> None:
        self._release_behind_holes()
        for port in self.accounts:
            if port not in self.gone_ports:
                self.unblock(port)
        self.settle()
        for live in self.bench.hub.directory:
            for group in live.groups:
                # What waits for other frames waits no longer.
                self.bench.drain.wake(group)
        self.settle()
        for port, account in self.accounts.items():
            account.read()
            live = self.live(account.channel)
            # A port that switched channels in the meantime has another listener.
            if port.listener in self.owed and port not in self.gone_ports and not port.aborted:
                assert port.closed is not None, "the operator ended its channel"
                self._check_is_at_the_end(account, self.owed[port.listener])
            if port in self.gone_ports or port.closed is not None or port.aborted or live is None:
                continue
            self._check_is_at_the_end(account, live)
            assert account.told == (live.state, live.timeline.silence)

        for reader in self.taps:
            self._read(reader, len(reader.tap))

    def _check_is_at_the_end(self, account: Account, live: Any) -> None:
        """Check that every released frame arrived or was reported lost. A transcoded last frame may not be full yet."""
        place, source = live.place, live.audio_format
        if source is not None:
            rendition = self.bench.transcoding.renditions.find(source, account.codec)
            assert rendition is not None
            # The last frame may not be full yet, or it may have been padded before this audio began.
            most = rendition.end(place).seq
            least = most if rendition.grid is None else most - 2
            assert least <= account.seq <= most
            place = rendition.place(place)._replace(seq=account.seq)
        assert (account.epoch, account.seq) == (place.epoch, place.seq), "something is owed and not told"

    def _release_behind_holes(self) -> None:
        """Release audio behind each hole. A stream that is made of it tells the hole with its next frame."""

        async def release() -> None:
            for live in self.bench.hub.directory:
                if live.state is ChannelState.LIVE and live.audio_format and live.place in self.holes.values():
                    due = max(self.bench.now, live.timeline.last_due)
                    for _ in range(20):
                        frame = number(live.audio_format.measure(FRAME), live.place, due, serialize)
                        self.bench.hub.broadcasting.distribute(live, [frame])

        self.loop.run_until_complete(release())

    @rule(
        target=readers,
        channel=st.sampled_from(CHANNELS),
        max_seconds=st.sampled_from((0.3, 10.0)),
        is_passive=st.booleans(),
    )
    def open_tap(self, channel: str, max_seconds: float, is_passive: bool) -> Reader:
        live = self.bench.hub.directory.open(ChannelAddress("ev1", channel))
        reader = Reader(live, live.open_tap(f"tap {len(self.taps)}", max_seconds, is_passive=is_passive), self.holes)
        self.taps.append(reader)
        return reader

    def _read(self, reader: Reader, most: int) -> None:
        for _ in range(min(most, len(reader.tap))):
            reader.take(self.loop.run_until_complete(anext(reader.tap)))
        if reader.tap.is_open and not len(reader.tap):
            reader.pass_holes(reader.live.place)
            assert reader.place is reader.live.place, "something was released and not read"

    @rule(reader=readers, most=st.integers(1, 60))
    def read_tap(self, reader: Reader, most: int) -> None:
        self._read(reader, most)
        if not reader.tap.is_open and not len(reader.tap):
            with pytest.raises((StopAsyncIteration, TapOverflowError)):
                self.loop.run_until_complete(anext(reader.tap))

    @rule(reader=consumes(readers))
    def close_tap(self, reader: Reader) -> None:
        reader.tap.close()
        assert not reader.tap.is_open
        assert reader.tap not in reader.live.readers

    def live(self, channel: str) -> Any:
        return next((live for live in self.bench.hub.directory if live.address.channel == channel), None)

    def _join(self, channel: str, delivery: Delivery, port: FakePort | None = None) -> FakePort:
        self.names += 1

        async def join() -> FakePort:
            return self.bench.join(f"listener {self.names}", channel=channel, delivery=delivery, port=port)

        joined = self.loop.run_until_complete(join())
        if port is None:
            self.accounts[joined] = Account(joined, (delivery.codecs or (Codec.PCM_S16LE,))[0])
            self.ports.append(joined)
        return joined

    @rule(
        target=listeners,
        channel=st.sampled_from(CHANNELS),
        buffer_ms=st.sampled_from((None, 300)),
        burst_ms=st.sampled_from((0, 500, 1000)),
        codec=st.sampled_from(Codec),
        packet_ms=st.sampled_from((0, 25, 100)),
    )
    def join(self, channel: str, buffer_ms: int | None, burst_ms: int, codec: Codec, packet_ms: int) -> FakePort:
        return self._join(
            channel, Delivery(buffer_ms=buffer_ms, packet_ms=packet_ms, burst_ms=burst_ms, codecs=(codec,))
        )

    def _leave(self, port: FakePort) -> FakePort:
        self.accounts[port].read()
        self.bench.leave(port)
        self.gone_ports.add(port)
        return port

    @rule(
        port=listeners,
        coalesce_ms=st.sampled_from((None, 0, 5)),
        packet_ms=st.sampled_from((None, 0, 25, 100)),
    )
    def change_delivery(self, port: FakePort, coalesce_ms: int | None, packet_ms: int | None) -> None:
        assert port.listener is not None
        self.bench.hub.listening.change_delivery(port.listener, DeliveryChange(coalesce_ms, packet_ms))

    @rule(target=gone, port=consumes(listeners))
    def leave(self, port: FakePort) -> FakePort:
        return self._leave(port)

    @rule(target=listeners, before=consumes(gone))
    def resume(self, before: FakePort) -> FakePort:
        account = self.accounts.pop(before)
        self.gone_ports.discard(before)
        port = self._join(account.channel, account.resumption)
        if port.hello["resumed"]:
            assert (port.hello["epoch"], port.hello["next_seq"]) == (account.epoch, account.seq)
        return port

    @rule(port=listeners)
    def block(self, port: FakePort) -> None:
        assert port.listener is not None
        self.bench.hub.listening.block(port.listener)

    @rule(port=listeners, room=st.integers(1, 4))
    def tighten(self, port: FakePort, room: int) -> None:
        port.room = room

    @rule(port=listeners)
    def unblock(self, port: FakePort) -> None:
        assert port.listener is not None
        port.room = 1_000_000
        self.bench.hub.listening.unblock(port.listener)

    @rule(
        port=listeners,
        channel=st.sampled_from((None, *CHANNELS, "nowhere")),
        codec=st.sampled_from((None, *Codec)),
    )
    def switch(self, port: FakePort, channel: str | None, codec: Codec | None) -> None:
        async def switch() -> None:
            self.bench.switch(port, channel, None if codec is None else (codec,))

        with contextlib.suppress(BadRequestError):
            self.loop.run_until_complete(switch())
            self.accounts[port].codec = codec or self.accounts[port].codec

    @rule(
        target=sources,
        channel=st.sampled_from(CHANNELS),
        audio_format=st.sampled_from(FORMATS),
        pace=st.sampled_from(Pace),
        takeover=st.booleans(),
    )
    def claim(self, channel: str, audio_format: AudioFormat, pace: Pace, takeover: bool) -> Any:
        async def claim() -> Broadcaster:
            return self.bench.claim(channel=channel, offer=Offer(audio_format, pace, takeover))

        live = self.live(channel)
        was_taken = live is not None and live.broadcaster is not None
        try:
            source = self.loop.run_until_complete(claim())
        except ChannelBusyError:
            assert was_taken
            assert not takeover
            return multiple()
        assert takeover or not was_taken
        self.all_sources.append(source)
        return source

    @rule(source=sources, frames=st.integers(1, 40))
    def publish(self, source: Broadcaster, frames: int) -> None:
        async def publish() -> None:
            self._publish(source, frames)

        before = source.channel.place
        self.loop.run_until_complete(publish())
        if not source.is_present:
            assert source.channel.place is before, "one who was replaced published"

    def _publish(self, source: Broadcaster, frames: int) -> None:
        self.bench.publish(source, frames, FRAME)
        audio_format = source.channel.audio_format
        if source.is_present and audio_format is not None:
            self.published[source] = self.published.get(source, 0) + frames * audio_format.measure(FRAME).ticks

    @rule(channel=st.sampled_from(CHANNELS), frames=st.integers(1, 60))
    def lose_frames(self, channel: str, frames: int) -> None:
        """Leave a hole in a channel, like a node that could not get these frames."""
        live = self.live(channel)
        if live is not None and live.state is ChannelState.LIVE:
            place, ticks = live.place, live.audio_format.measure(FRAME).ticks
            later = Place(place.position + frames, place.epoch, place.seq + frames, place.media_time + frames * ticks)
            self.holes[place] = later
            live.skip(later)

    @rule()
    def end_early(self) -> None:
        async def end() -> None:
            self.bench.hub.broadcasting.end_early()

        self.loop.run_until_complete(end())

    @rule(source=sources)
    def clear(self, source: Broadcaster) -> None:
        async def clear() -> None:
            self.bench.hub.broadcasting.clear(source)

        self.loop.run_until_complete(clear())

    @rule(source=sources, on=st.booleans())
    def mute(self, source: Broadcaster, on: bool) -> None:
        async def mute() -> None:
            self.bench.hub.broadcasting.mute(source, on=on)

        self.loop.run_until_complete(mute())
        if source.is_present:
            assert source.channel.timeline.silence == ("muted" if on else None)

    @rule(source=consumes(sources), farewell=st.sampled_from(Farewell))
    def depart(self, source: Broadcaster, farewell: Farewell) -> None:
        broadcasting = self.bench.hub.broadcasting
        says = {Farewell.NONE: broadcasting.release, Farewell.PAUSE: broadcasting.pause, Farewell.END: broadcasting.end}

        async def depart() -> None:
            says[farewell](source)

        was_present = source.is_present
        self.loop.run_until_complete(depart())
        if was_present and source.channel.departure is None:
            assert source.channel.timeline.silence == ("paused" if farewell is Farewell.PAUSE else None)

    @rule(channel=st.sampled_from((None, *CHANNELS, "nowhere")), burst=st.sampled_from((0, 150)))
    def operator_ends(self, channel: str | None, burst: int) -> None:
        """End a channel in any state. Its listeners are owed the audio that was released, not the audio that waits."""
        ending = [live for live in self.bench.hub.directory if channel in (None, live.address.channel)]
        listeners = {listener: live for live in ending for listener in live.listeners}

        async def end() -> list[str]:
            for live in ending:
                if live.broadcaster is not None:
                    self._publish(live.broadcaster, burst)
            return self.operations.end("ev1", channel, EVERYTHING)

        ended = self.loop.run_until_complete(end())
        assert sorted(ended) == sorted(live.address.channel for live in ending)
        for live in ending:
            assert live.state is ChannelState.ENDED
            assert live.ingest is None or live.ingest.next_release() is None, "something is still to be released"
        self.owed |= listeners

    @rule(target=gone, port=consumes(listeners))
    def operator_disconnects_a_listener(self, port: FakePort) -> FakePort:
        assert port.listener is not None
        is_there = any(port.listener in live.listeners for live in self.bench.hub.directory)
        told = self.operations.disconnect("ev1", port.listener.connection_id, EVERYTHING)
        assert (told is not None) == is_there
        assert not is_there or port.closed == DISCONNECTED
        # A listener normally leaves when its close frame is sent. This one breaks the rules and returns.
        return self._leave(port)

    @rule(source=consumes(sources))
    def operator_disconnects_a_broadcaster(self, source: Broadcaster) -> None:
        async def disconnect() -> None:
            self.bench.hub.broadcasting.disconnect(source)

        was_present = source.is_present
        self.loop.run_until_complete(disconnect())
        assert not source.is_present
        assert (
            not was_present
            or source.channel.departure is not None
            or (source.channel.state is ChannelState.SOURCE_LOST)
        )

    @rule(channel=st.sampled_from(CHANNELS))
    def another_process_takes_over(self, channel: str) -> None:
        """Another process continues the channel. Its listeners reconnect and learn of every loss."""
        live = self.live(channel)
        if live is None:
            return
        hub = self.bench.hub
        listeners = set(live.listeners)
        ports = [port for port in self.accounts if port.listener in listeners and port not in self.gone_ports]
        [record] = [each for each in hub.export() if each.channel == channel]
        waiting = live.waiting

        async def die() -> None:
            for port in ports:
                self.accounts[port].read()
                self.bench.leave(port)
            hub.broadcasting.stop([live])
            hub.directory.give_up(live)

        async def take_over() -> Any:
            return hub.broadcasting.restore(ChannelRecord.from_json(record.to_json()), waiting)

        was_pending = live.departure is not None or (live.broadcaster is not None and waiting)
        self.loop.run_until_complete(die())
        restored = self.loop.run_until_complete(take_over())
        again = restored.export(record.session_name)
        assert restored.waiting == waiting
        assert (restored.departure is not None) == bool(was_pending)
        is_lost = record.timeline.state == ChannelState.LIVE and not was_pending
        if is_lost:
            assert again.timeline.state == ChannelState.SOURCE_LOST
            again = replace(again, timeline=replace(record.timeline))
        if record.farewell is None:
            again = replace(again, farewell=None, departed_at=0.0)
        assert again == record
        for port in ports:
            account = self.accounts[port]
            expected = (account.epoch, account.seq)
            self._join(channel, account.resumption, port)
            hello = port.of_type("hello")[-1]
            assert hello["resumed"] == (restored.audio_format is not None)
            assert (hello["epoch"], hello["next_seq"]) == expected

    @rule(seconds=st.sampled_from((0.01, 0.2, 0.9, 5.0)))
    def time_passes(self, seconds: float) -> None:
        async def release() -> None:
            for live in self.bench.hub.directory:
                self.bench.hub.broadcasting.release_due(live)
            self.bench.hub.keep_house()

        self.bench.now += seconds
        self.loop.run_until_complete(release())

    @rule(turns=st.integers(1, 3))
    def loop_turns(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def settle(self) -> None:
        self.loop.run_until_complete(self.bench.settle())
        self.bench.now += 0.003

    @invariant()
    def who_wants_a_channel_is_known(self) -> None:
        for live, noticed in self.noticed.items():
            is_wanted = live.listener_count > 0 or any(not tap.is_passive for tap in live.readers)
            assert noticed == [number % 2 == 0 for number in range(len(noticed))], "told twice"
            assert is_wanted == live.has_subscribers == (len(noticed) % 2 == 1)

    @invariant()
    def one_broadcaster_at_most(self) -> None:
        for live in self.bench.hub.directory:
            present = [source for source in self.all_sources if source.channel is live and source.is_present]
            assert len(present) == (live.broadcaster is not None)
            if present:
                assert live.state is ChannelState.LIVE

    @invariant()
    def what_an_operator_sees_is_what_there_is(self) -> None:
        shown = self.operations.show_session("ev1", EVERYTHING)
        there = {listener.connection_id: listener for live in self.bench.hub.directory for listener in live.listeners}
        if shown is None:
            assert not there
            return
        assert {each["connection_id"] for each in shown["worst_listeners"]} == set(there)
        assert shown["listeners"] == len(there)

    @invariant()
    def it_is_known_how_much_was_taken_of_each_source(self) -> None:
        for source in self.all_sources:
            taken = source.channel.accepted.get(source.connection_id)
            if taken is None:
                assert source not in self.all_sources[-MAX_KNOWN_CONNECTIONS:]
            else:
                assert taken == self.published.get(source, 0)

    @invariant()
    def what_is_counted_is_never_taken_back(self) -> None:
        frames = self.signs.look().frames
        counted = [frames.released_frames, frames.delivered_frames, frames.dropped_frames, *frames.delivery_ms.counts]
        assert all(now >= before for now, before in zip(counted, self.counted, strict=False))
        self.counted = counted
        assert frames.delivered_frames == sum(len(port.frames) for port in self.ports)

    @invariant()
    def accounts_are_exact(self) -> None:
        for account in self.accounts.values():
            account.read()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40)
