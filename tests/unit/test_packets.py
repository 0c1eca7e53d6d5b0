"""Audio whose size says nothing about time. The duration that the relay measured on arrival counts."""

import pytest

from relay.client.send_queue import SendQueue
from relay.hub import broadcasting
from relay.protocol.requests import Offer
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame, Pace, Piece
from tests.support.hub_bench import Bench, block, unblock

PACKET = Piece(b"abc", 320, FLICKS_PER_SECOND // 50)
"""20 ms in three bytes."""


def split(message: bytes, _: AudioFormat) -> list[Piece]:
    return [PACKET] * len(message)


@pytest.mark.parametrize("pace", list(Pace))
async def test_a_channel_counts_schedules_and_bounds_by_what_packets_last(
    monkeypatch: pytest.MonkeyPatch, pace: Pace
) -> None:
    monkeypatch.setattr(broadcasting, "split_audio", split)
    bench = Bench(bound_seconds=1.0)
    port, slow = bench.join("prompt"), bench.join("slow")
    source = bench.claim(offer=Offer(pace=pace))
    await bench.settle()
    block(slow)
    tap = source.channel.open_tap("recorder")
    bench.hub.broadcasting.publish(source, bytes(400))
    assert source.channel.accepted[source.connection_id] == 400 * 320
    lead_seconds = source.channel.ingest.lead_seconds(bench.now) if source.channel.ingest else 0.0
    assert lead_seconds == pytest.approx(8.0 / (1.01 if pace is Pace.LIVE else 1.0))
    for _ in range(80):
        await bench.settle()
        bench.now += 0.1
        bench.hub.broadcasting.release_due(source.channel)
    await bench.settle()
    unblock(slow)
    await bench.settle()
    assert [header.media_time for header in port.frames] == [number * 320 for number in range(400)]
    frames = [await anext(tap) for _ in range(400)]
    assert {frame.duration for frame in frames if isinstance(frame, Frame)} == {PACKET.flicks}
    [gap] = slow.of_type("gap")
    assert gap["duration_ms"] == 20 * (gap["to_seq"] + 1 - gap["from_seq"])
    assert len(slow.frames) + gap["to_seq"] + 1 == 400
    bench.hub.broadcasting.close()
    await bench.tasks.close()


def test_a_broadcasters_queue_holds_what_its_bound_says() -> None:
    queue = SendQueue(1.0, 0.5)
    while not queue.is_full:
        queue.put(PACKET)
    assert (len(queue), queue.held_seconds) == (50, 1.0)
    while queue.may_take:
        queue.take()
    assert (len(queue), queue.taken.chunks) == (25, 25)
    queue.begin(10 * 320)
    assert (len(queue), queue.taken.chunks) == (40, 10)
