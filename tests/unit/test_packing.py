"""Frames that share a message: whole or not at all, counted one by one, and changed without a reconnect."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.hub.framing import RAW, RELAY_V1, RelayFraming
from relay.protocol.messages import DeliveryChange
from relay.protocol.requests import Delivery
from relay.protocol.wire import Audio, Header, unpack_audio
from relay.vocabulary.audio import AudioFormat, Codec
from tests.support.hub_bench import Bench, FakePort, block, split, unblock

OPUS_FORMAT = AudioFormat(Codec.OPUS, 48_000)
TWENTY_MS, FIVE_MS = b"\xf8" + bytes(59), b"\xe8" + bytes(20)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(bound_seconds=10.0)
    yield made
    made.hub.broadcasting.close()
    await made.tasks.close()


def join(bench: Bench, packet_ms: int, name: str = "listener", codec: Codec = Codec.OPUS, **says: object) -> FakePort:
    return bench.join(name, delivery=Delivery(codecs=(codec,), packet_ms=packet_ms, **says))  # type: ignore[arg-type]


def heard(port: FakePort) -> list[list[Audio]]:
    """The frames of each message."""
    return [unpack_audio(payload, OPUS_FORMAT) for write in port.writes for payload in split(write)]


async def gather(bench: Bench) -> None:
    """Let the time pass for which a message waits. A timer that was started before this one ends before it."""
    await asyncio.sleep(0.15)
    await bench.settle()


def change(bench: Bench, port: FakePort, coalesce_ms: int | None, packet_ms: int | None) -> DeliveryChange:
    assert port.listener is not None
    return bench.hub.listening.change_delivery(port.listener, DeliveryChange(coalesce_ms, packet_ms))


@pytest.mark.parametrize(("packet_ms", "sizes"), [(0, [1] * 12), (19, [1] * 12), (60, [3] * 4), (100, [5, 5, 2])])
async def test_frames_share_a_message_as_long_as_it_may_be(bench: Bench, packet_ms: int, sizes: list[int]) -> None:
    source = bench.claim(OPUS_FORMAT)
    port = join(bench, packet_ms)
    assert port.hello["packet_ms"] == packet_ms
    await bench.settle()
    bench.publish(source, 12, TWENTY_MS)
    await gather(bench)
    assert [len(frames) for frames in heard(port)] == sizes
    frames = [frame for message in heard(port) for frame in message]
    assert [frame.header.seq for frame in frames] == list(range(12))
    assert [frame.header.media_time for frame in frames] == [960 * number for number in range(12)]
    assert {frame.payload for frame in frames} == {TWENTY_MS}
    assert [Header.unpack(payload).is_packed for write in port.writes for payload in split(write)] == [
        size > 1 for size in sizes
    ]


async def test_frames_of_any_length_share_a_message(bench: Bench) -> None:
    source = bench.claim(OPUS_FORMAT)
    port = join(bench, 60)
    for packet in (FIVE_MS, TWENTY_MS, TWENTY_MS, FIVE_MS, FIVE_MS, TWENTY_MS, FIVE_MS):
        bench.publish(source, audio=packet)
    unblock(port)
    await bench.settle()
    assert [sum(len(frame.payload) == 60 for frame in frames) for frames in heard(port)] == [2, 1]
    assert [len(frames) for frames in heard(port)] == [5, 2]


async def test_a_message_waits_for_the_frames_that_it_has_room_for_and_no_longer(bench: Bench) -> None:
    source = bench.claim(OPUS_FORMAT)
    port = join(bench, 60)
    await bench.settle()
    bench.publish(source, 2, TWENTY_MS)
    await bench.settle()
    assert not port.writes
    bench.publish(source, 1, TWENTY_MS)
    await bench.settle()
    assert [len(frames) for frames in heard(port)] == [3]
    bench.publish(source, 1, TWENTY_MS)
    await bench.settle()
    assert len(port.writes) == 1
    await gather(bench)
    assert [len(frames) for frames in heard(port)] == [3, 1]


async def test_only_opus_with_headers_is_packed(bench: Bench) -> None:
    source = bench.claim()
    assert join(bench, 60, "plain", Codec.PCM_S16LE).hello["packet_ms"] == 0
    raw = bench.join("raw", RAW, delivery=Delivery(codecs=(Codec.OPUS,), packet_ms=60))
    assert join(bench, 400, "much").hello["packet_ms"] == 100
    assert join(bench, 100, "impatient", buffer_ms=200).hello["packet_ms"] == 100
    bench.publish(source, 3)
    await bench.settle()
    assert len(raw.writes) == 1
    assert [len(payload) for payload in split(raw.writes[0])] == [41] * 3


async def test_a_socket_that_takes_a_part_gets_the_whole_message_and_the_others_later(bench: Bench) -> None:
    source = bench.claim(OPUS_FORMAT)
    port = join(bench, 60)
    await bench.settle()
    port.room = 1
    bench.publish(source, 9, TWENTY_MS)
    await gather(bench)
    begun = heard(port)
    assert [len(frames) for frames in begun] == [3, 3], "half of three messages is one and a half"
    unblock(port)
    await bench.settle()
    frames = [frame for message in heard(port) for frame in message]
    assert [frame.header.seq for frame in frames] == list(range(9))


async def test_what_a_slow_listener_loses_is_counted_in_frames(bench: Bench) -> None:
    source = bench.claim(OPUS_FORMAT)
    port = join(bench, 60, buffer_ms=1000)
    await bench.settle()
    block(port)
    for _ in range(100):
        bench.publish(source, audio=TWENTY_MS)
        bench.now += 0.02
    unblock(port)
    await bench.settle()
    [gap] = port.of_type("gap")
    frames = [frame.header.seq for message in heard(port) for frame in message]
    assert gap["to_seq"] + 1 == frames[0]
    assert frames == list(range(frames[0], 100))
    assert gap["duration_ms"] == 20 * frames[0]


async def test_a_delivery_changes_without_a_reconnect_and_loses_nothing(bench: Bench) -> None:
    source = bench.claim(OPUS_FORMAT)
    port = join(bench, 0)
    await bench.settle()
    granted = []
    for coalesce_ms, packet_ms in ((None, 60), (400, None), (0, 100), (None, None), (None, 0), (0, 0)):
        bench.publish(source, 7, TWENTY_MS)
        granted.append(change(bench, port, coalesce_ms, packet_ms))
        await bench.settle()
    bench.publish(source, 7, TWENTY_MS)
    await bench.settle()
    assert [(each.coalesce_ms, each.packet_ms) for each in granted] == [
        (0, 60), (200, 60), (0, 100), (0, 100), (0, 0), (0, 0)
    ]  # fmt: skip
    frames = [frame.header.seq for message in heard(port) for frame in message]
    assert frames == list(range(49))
    assert {len(frames) for frames in heard(port)} >= {1, 3, 5}
    assert port.kinds == ["hello"]
    assert len(source.channel.streams[Codec.OPUS].groups) == 1


async def test_a_delivery_changes_in_the_middle_of_a_batch(bench: Bench) -> None:
    """Some listeners have the batch and some do not; those that move get it exactly once."""
    source = bench.claim(OPUS_FORMAT)
    ports = [join(bench, 0, f"listener {number}") for number in range(40)]
    await bench.settle()
    movers = iter(ports)

    def take(port: FakePort, wire: bytes) -> int:
        mover = next(movers, None)
        if mover is not None:
            asyncio.get_running_loop().call_soon(change, bench, mover, None, 60)
        port.written.append(wire)
        return len(wire)

    for port in ports:
        port.send = lambda wire, port=port: take(port, wire)  # type: ignore[misc]
    for _ in range(6):
        bench.publish(source, audio=TWENTY_MS)
        await asyncio.sleep(0)
    await bench.settle()
    await gather(bench)
    for port in ports:
        assert [frame.header.seq for message in heard(port) for frame in message] == list(range(6))


async def test_a_delivery_changes_between_two_steps_of_a_turn() -> None:
    """A turn that began before a listener moved does not serve it with its group of before."""
    now = 0.0
    moved = False

    def take(port: FakePort, wire: bytes) -> int:
        nonlocal now, moved
        now += 0.001
        if not moved:
            moved = True
            for other in ports[20:]:
                asyncio.get_running_loop().call_soon(change, bench, other, 5, None)
        port.written.append(wire)
        return len(wire)

    bench = Bench(clock=lambda: now)
    ports = [join(bench, 0, f"listener {number}") for number in range(40)]
    for port in ports:
        port.send = lambda wire, port=port: take(port, wire)  # type: ignore[misc]
    source = bench.claim(OPUS_FORMAT)
    await bench.settle()
    bench.publish(source, audio=TWENTY_MS)
    # A note takes all of them out of step, so each is served by itself.
    bench.hub.broadcasting.mute(source, on=True)
    await gather(bench)
    for port in ports:
        assert not port.aborted
        assert [frame.header.seq for message in heard(port) for frame in message] == [0]
    bench.hub.broadcasting.close()
    await bench.tasks.close()


def test_a_framing_is_a_value() -> None:
    assert RelayFraming(60) == RelayFraming(60) != RELAY_V1 == RelayFraming()
