"""A hub whose clock the test moves, with sockets whose room the test sets."""

import asyncio
import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.hub.channel import Broadcaster
from relay.hub.drain import SLICE_SECONDS, Drain
from relay.hub.framing import RELAY_V1, Framing
from relay.hub.hub import Hub
from relay.hub.listener import Listener
from relay.hub.rendition import Renditions
from relay.hub.transcoding import Transcoding
from relay.limits.in_force import LimitsInForce
from relay.limits.names import Limit
from relay.media.programme import ProgrammeSettings
from relay.process.tasks import TaskRegistry
from relay.protocol.requests import Delivery, Offer
from relay.protocol.wire import Audio, Header, unpack_audio
from relay.settings.settings import BroadcastSettings, LimitSettings, ListenerSettings
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.clock import Clock
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.labels import Declaration
from relay.vocabulary.names import ChannelAddress
from tests.support.toy_codec import ToyRenditions, ToyThread

ADDRESS = ChannelAddress("ev1")
MONO = AudioFormat()
FRAME_SECONDS = 0.02
FRAME = bytes(640)


def serialize(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def split(wire: bytes) -> list[bytes]:
    """Split joined messages into their payloads."""
    payloads = []
    while wire:
        length = int.from_bytes(wire[:4], "big")
        payloads.append(wire[4 : 4 + length])
        wire = wire[4 + length :]
    return payloads


def unpack(payload: bytes) -> list[Audio]:
    """Return the frames of a message. Only Opus is ever packed."""
    return unpack_audio(payload, AudioFormat(Codec.OPUS, 48_000))


class FakePort:
    """A socket that accepts `room` writes, then none until the test adds room.

    Attributes:
        send: Takes a write and returns how many of its bytes it accepted; a test may replace it.
    """

    client_address = "192.0.2.7"
    takes_parts = True

    def __init__(self) -> None:
        self.send: Callable[[bytes], int] = self._take
        self.room = 1_000_000
        self.written: list[bytes | dict[str, Any]] = []
        self.closed: tuple[CloseCode, str] | None = None
        self.aborted = False
        self.aborted_by: Limit | None = None
        self.aborted_because: str | OSError = ""
        self.cut = b""
        self.hub: Hub | None = None
        self.listener: Listener | None = None

    @property
    def sink(self) -> "FakePort":
        return self

    def _take(self, wire: bytes) -> int:
        self.room -= 1
        if self.room > 0:
            self.written.append(wire)
            return len(wire)
        if self.room == 0:
            self.cut = wire[: len(wire) // 2]
            return len(self.cut)
        raise BlockingIOError

    def complete(self, rest: bytes) -> None:
        self.cut += rest

    def await_room(self) -> None:
        if self.cut:
            self.written.append(self.cut)
        self.cut = b""
        assert self.hub is not None
        assert self.listener is not None
        self.hub.listening.block(self.listener)

    def send_text(self, text: str) -> None:
        self.written.append(json.loads(text))

    def fit_kernel(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def abort(self, because: str | OSError, limit: Limit | None = None) -> None:
        self.aborted = True
        self.aborted_by = limit
        self.aborted_because = because

    @property
    def hello(self) -> dict[str, Any]:
        return self.told[0]

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of the control messages, without channel lists and frames."""
        return [message["type"] for message in self.told if message["type"] != "channels"]

    def of_type(self, message_type: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message["type"] == message_type]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [message for message in self.written if isinstance(message, dict)]

    @property
    def writes(self) -> list[bytes]:
        return [message for message in self.written if isinstance(message, bytes)]

    @property
    def frames(self) -> list[Header]:
        """Return the headers of all written frames, in order."""
        return [each.header for write in self.writes for payload in split(write) for each in unpack(payload)]


class FakeSourcePort:
    """A broadcaster's socket that records the messages it receives."""

    client_address = "192.0.2.9"

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.closed: tuple[CloseCode, str] | None = None

    def send_text(self, text: str) -> None:
        self.told.append(json.loads(text))

    def close(self, code: CloseCode, reason: str) -> None:
        self.closed = (code, reason)

    def of_type(self, message_type: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message["type"] == message_type]


class Bench:
    """A hub whose clock the test moves, and its drain task."""

    def __init__(
        self,
        *,
        bound_seconds: float = 1.0,
        stall_limit_seconds: float | None = 15.0,
        declared: Iterable[Declaration] = (),
        clock: Clock | None = None,
        limits: LimitSettings | None = None,
        draw_epoch: Callable[[ChannelAddress], int] = lambda _: secrets.randbits(16),
        renditions: Renditions | None = None,
        programmes: ProgrammeSettings | None = None,
    ) -> None:
        self.now = 1_000.0
        clock = clock or self.time
        self.source_ports: dict[object, FakeSourcePort] = {}
        self.tasks = TaskRegistry()
        self.limits = LimitsInForce(limits or LimitSettings())
        self.manager = AudioBufferManager(bound_seconds, clock=clock)
        self.drain = Drain(clock, serialize)
        self.transcoding = Transcoding(renditions or ToyRenditions(), self.drain, clock, programmes)
        self.hub = Hub(
            self.manager,
            self.drain,
            clock=clock,
            clock_id="the bench's",
            serialize=serialize,
            send=lambda port, wire: port.send(wire),
            broadcast=BroadcastSettings(),
            listener=ListenerSettings(stall_limit_seconds=stall_limit_seconds),
            declared=declared,
            limits=self.limits,
            draw_epoch=draw_epoch,
            transcoding=self.transcoding,
        )
        self.tasks.start(self.drain.run(), "drain")
        self.tasks.start(self.transcoding.run(ToyThread()), "transcoding")

    def time(self) -> float:
        return self.now

    def join(
        self,
        name: str = "listener",
        framing: Framing = RELAY_V1,
        *,
        channel: str = "main",
        session: str = "ev1",
        delivery: Delivery | None = None,
        port: FakePort | None = None,
    ) -> FakePort:
        port = port or FakePort()
        port.hub = self.hub
        address = ChannelAddress(session, channel)
        port.listener = self.hub.listening.join(address, name, port, framing, delivery or Delivery())
        return port

    def leave(self, port: FakePort) -> None:
        assert port.listener is not None
        self.hub.listening.leave(port.listener)

    def switch(self, port: FakePort, channel: str | None = None, codecs: tuple[Codec, ...] | None = None) -> None:
        assert port.listener is not None
        port.listener = self.hub.listening.switch(port.listener, channel, codecs)

    def claim(
        self,
        audio_format: AudioFormat = MONO,
        *,
        channel: str = "main",
        session: str = "ev1",
        offer: Offer | None = None,
    ) -> Broadcaster:
        address = ChannelAddress(session, channel)
        wanted = offer or Offer(audio_format)
        port = FakeSourcePort()
        source = self.hub.broadcasting.claim(address, wanted, f"source {len(self.source_ports)}", port)
        self.source_ports[source] = port
        return source

    def publish(self, source: Broadcaster, frames: int = 1, audio: bytes = FRAME) -> None:
        for _ in range(frames):
            self.hub.broadcasting.publish(source, audio)

    def release(self, source: Broadcaster) -> None:
        self.hub.broadcasting.release(source)

    async def settle(self) -> None:
        """Let the transcoder and the drain task finish their pending work."""
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            if self.transcoding.is_idle:
                break


def block(port: FakePort) -> None:
    assert port.hub is not None
    assert port.listener is not None
    port.hub.listening.block(port.listener)


def unblock(port: FakePort) -> None:
    assert port.hub is not None
    assert port.listener is not None
    port.room = 1_000_000
    port.hub.listening.unblock(port.listener)


def slow_down(bench: Bench, port: FakePort) -> None:
    """Let each write to a socket take longer than a slice of the drain, which then yields to the event loop."""
    send = port.send

    def send_slowly(wire: bytes) -> int:
        bench.now += 1.5 * SLICE_SECONDS
        return send(wire)

    port.send = send_slowly


def check_account(port: FakePort, published: int) -> None:
    """Check that deliveries and gaps cover the frames published since the join, in order and without overlap."""
    expected = port.hello["next_seq"]
    for message in port.written:
        if isinstance(message, dict):
            if message["type"] == "gap":
                assert message["from_seq"] == expected, f"{message}, {expected} was due"
                expected = message["to_seq"] + 1
            continue
        for payload in split(message):
            assert Header.unpack(payload).seq == expected
            expected += 1
    assert expected == published
