"""Audio of another node that comes late, because the bus was down."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio

from relay.hub.channel import Channel
from relay.hub.following import LATE_SECONDS
from relay.protocol.requests import Delivery
from relay.vocabulary.audio import FLICKS_PER_SECOND, Place
from tests.support.hub_bench import FRAME, Bench, FakePort, block, check_account, slow_down, unblock

BOUND_SECONDS = 10.0
FRAME_SECONDS = 0.02


class Node:
    """A node that follows a channel, and its clock, which the test moves."""

    def __init__(self) -> None:
        self.bench = Bench(bound_seconds=BOUND_SECONDS)
        self.bench.hub.listening.late_seconds = LATE_SECONDS
        home = Bench(bound_seconds=BOUND_SECONDS)
        source = home.claim()
        self.channel: Channel = self.bench.hub.following.open(source.channel.export(None))

    async def take_after_outage(self, seconds: float) -> None:
        """Take the audio of an outage that was so long. It comes all at once."""
        began = self.bench.now
        self.bench.now += seconds
        for index in range(round(seconds / FRAME_SECONDS)):
            due = began + index * FRAME_SECONDS
            assert self.bench.hub.following.take(self.channel, self.channel.place, FRAME, due)
        await self.bench.settle()


@pytest_asyncio.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    yield node
    await node.bench.tasks.close()


def lost_seconds(port: FakePort) -> float:
    return float(sum(gap["to_seq"] - gap["from_seq"] + 1 for gap in port.of_type("gap"))) * FRAME_SECONDS


async def test_an_outage_as_long_as_the_longest_bound_loses_nothing(node: Node) -> None:
    port = node.bench.join()
    began_ms = node.bench.hub.clock_ms
    await node.take_after_outage(BOUND_SECONDS + LATE_SECONDS - FRAME_SECONDS)
    assert lost_seconds(port) == 0
    # The due times are those of the home.
    dues = [header.due_ms - began_ms for header in port.frames]
    assert len(dues) == round((BOUND_SECONDS + LATE_SECONDS) / FRAME_SECONDS) - 1
    assert all(abs(due - index * FRAME_SECONDS * 1000) <= 1 for index, due in enumerate(dues))


async def test_a_longer_outage_loses_what_is_older(node: Node) -> None:
    port = node.bench.join()
    await node.take_after_outage(BOUND_SECONDS + LATE_SECONDS + 5.0)
    assert abs(lost_seconds(port) - 5.0) < 2 * FRAME_SECONDS


async def test_a_listener_that_wants_younger_audio_gets_no_other(node: Node) -> None:
    port = node.bench.join(delivery=Delivery(buffer_ms=1000))
    await node.take_after_outage(8.0)
    assert abs(lost_seconds(port) - 7.0) < 2 * FRAME_SECONDS


async def test_late_audio_waits_for_a_listener_whose_socket_is_full_no_longer_than_other_audio(node: Node) -> None:
    port = node.bench.join()
    block(port)
    await node.take_after_outage(BOUND_SECONDS + 2.0)
    assert port.listener is not None
    assert port.listener.buffer.held_flicks == round((BOUND_SECONDS + 2.0) * FLICKS_PER_SECOND)
    node.bench.now += BOUND_SECONDS
    unblock(port)
    await node.bench.settle()
    assert abs(lost_seconds(port) - BOUND_SECONDS - 2.0) < 0.1


async def test_a_hole_that_is_found_while_a_batch_is_written_is_told_to_all(node: Node) -> None:
    bench, channel, following = node.bench, node.channel, node.bench.hub.following
    ports = [bench.join(f"listener {number}") for number in range(100)]
    following.take(channel, channel.place, FRAME, bench.now)
    await bench.settle()
    for port in ports:
        slow_down(bench, port)
    following.take(channel, channel.place, FRAME, bench.now)
    for _ in range(3):
        await asyncio.sleep(0)
    assert 0 < sum(len(port.frames) - 1 for port in ports) < len(ports), "the batch is under way"
    following.take(channel, channel.place, FRAME, bench.now)
    record, place = channel.export(None), channel.place
    later = Place(place.position + 5, place.epoch, place.seq + 5, place.media_time + 5 * 320)
    following.catch_up(channel, replace(record, timeline=replace(record.timeline, place=later)))
    for _ in range(3):
        for _ in ports:
            await bench.settle()
        following.take(channel, channel.place, FRAME, bench.now)
    for _ in ports:
        await bench.settle()
    for port in ports:
        (gap,) = port.of_type("gap")
        assert (gap["from_seq"], gap["to_seq"], gap["duration_ms"], gap["reason"]) == (3, 7, 100, "missing")
        check_account(port, channel.place.seq)
    assert {group.place for group in channel.groups} == {channel.place}
