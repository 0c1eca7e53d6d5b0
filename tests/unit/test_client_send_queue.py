"""A broadcaster's send queue is bounded, and every byte in it is accounted for."""

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.audio.amounts import AudioAmount
from relay.client.send_queue import SendQueue
from relay.vocabulary.audio import FRAMES_PER_SECOND, AudioFormat

MONO = AudioFormat()
FRAME = MONO.measure(b"\1\2" * 320)


def test_it_is_full_at_its_bound_and_drops_the_oldest_when_asked() -> None:
    queue = SendQueue(0.06, 1)
    for number in range(3):
        assert not queue.is_full
        queue.put(MONO.measure(bytes([number, 0]) * 320))
    assert queue.is_full
    assert queue.held_seconds == pytest.approx(0.06)
    queue.make_room()
    assert not queue.is_full
    assert queue.dropped == AudioAmount(1, 640, MONO.flicks(640))
    assert [queue.take().audio[0] for _ in range(2)] == [1, 2]
    with pytest.raises(IndexError):
        queue.take()


def test_another_limit_drops_nothing_until_it_is_asked() -> None:
    queue = a_queue(50, taken=0)
    assert queue.is_full
    queue.limit(2)
    assert not queue.is_full
    queue.limit(0.5)
    assert (queue.is_full, len(queue), queue.dropped.chunks) == (True, 50, 0)
    queue.trim()
    assert (len(queue), queue.dropped.chunks) == (25, 25)


def test_what_is_cleared_is_not_counted_as_dropped() -> None:
    queue = SendQueue(1, 1)
    queue.put(FRAME)
    queue.clear()
    queue.put(FRAME)
    queue.drop()
    assert (queue.cleared.chunks, queue.dropped.chunks, len(queue)) == (1, 1, 0)


def a_queue(messages: int, taken: int, max_under_way_seconds: float = 1) -> SendQueue:
    """Return a queue that received messages of 20 ms, some of which were taken."""
    queue = SendQueue(1, max_under_way_seconds)
    for number in range(messages):
        queue.put(MONO.measure(bytes([number, 0]) * 320))
    for _ in range(taken):
        queue.take()
    return queue


def test_what_did_not_arrive_comes_back_to_the_front_and_counts_as_taken_once() -> None:
    queue = a_queue(5, taken=4)
    queue.begin(2 * 320)
    assert queue.taken.chunks == 2
    assert [queue.take().audio[0] for _ in range(3)] == [2, 3, 4]
    queue.begin(None)
    queue.begin(0)
    assert (len(queue), queue.taken.chunks) == (0, 5), "what was taken two connections ago stays taken"


def test_of_a_message_of_which_a_part_arrived_all_comes_back() -> None:
    queue = a_queue(2, taken=2)
    queue.begin(639)
    assert queue.take().audio[0] == 1


def test_no_more_is_taken_than_may_be_under_way_until_it_is_known_to_have_arrived() -> None:
    queue = a_queue(4, taken=2, max_under_way_seconds=0.04)
    assert not queue.may_take
    assert queue.under_way_seconds == pytest.approx(0.04)
    queue.note_accepted(320)
    assert queue.may_take
    queue.take()
    assert not queue.may_take
    queue.note_accepted(3 * 320)
    assert (queue.may_take, queue.under_way_seconds) == (True, 0)
    queue.take()
    assert not queue.may_take, "nothing waits"


def test_what_was_cleared_under_way_does_not_come_back_and_the_clear_is_to_be_repeated() -> None:
    queue = a_queue(3, taken=3)
    queue.clear()
    queue.put(FRAME)
    queue.take()
    assert queue.begin(320)
    assert (queue.taken.chunks, queue.cleared.chunks, len(queue)) == (1, 2, 1)
    queue.take()
    assert queue.begin(0), "it may have been lost a second time"
    queue.take()
    queue.note_accepted(320)
    assert not queue.begin(320), "what came after it arrived"


class Queue(RuleBasedStateMachine):
    """Compares the queue with plain lists."""

    @initialize(max_seconds=st.sampled_from([0.02, 0.1, 1.0]))
    def open(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.queue = SendQueue(max_seconds, 0.5)
        self.model: deque[bytes] = deque()
        self.put_bytes = 0
        # On this connection: each message sent, with whether it is still wanted, and how many have arrived.
        self.sent: list[tuple[bytes, bool]] = []
        self.arrived = 0

    @precondition(lambda self: not self.queue.is_full)
    @rule(samples=st.integers(1, 4000))
    def put(self, samples: int) -> None:
        audio = bytes([len(self.model) % 256, 1]) * samples
        self.queue.put(MONO.measure(audio))
        self.model.append(audio)
        self.put_bytes += len(audio)

    @precondition(lambda self: self.queue.may_take)
    @rule()
    def take(self) -> None:
        audio = self.model.popleft()
        self.sent.append((audio, True))
        assert self.queue.take().audio == audio

    def ticks(self, messages: int) -> int:
        return sum(len(audio) // 2 for audio, _ in self.sent[:messages])

    @rule(data=st.data())
    def note_accepted(self, data: st.DataObject) -> None:
        self.arrived = data.draw(st.integers(self.arrived, len(self.sent)))
        self.queue.note_accepted(self.ticks(self.arrived))

    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        arrived = data.draw(st.none() | st.integers(self.arrived, len(self.sent)))
        self.queue.begin(None if arrived is None else self.ticks(arrived))
        missing = [] if arrived is None else self.sent[arrived:]
        self.model.extendleft(audio for audio, is_wanted in reversed(missing) if is_wanted)
        self.sent, self.arrived = [], 0

    @rule()
    def make_room(self) -> None:
        self.queue.make_room()
        assert not self.queue.is_full
        while len(self.model) > len(self.queue):
            self.model.popleft()

    @rule()
    def trim(self) -> None:
        self.queue.trim()
        assert self.queue.held_seconds <= self.max_seconds
        while len(self.model) > len(self.queue):
            self.model.popleft()

    @rule()
    def clear(self) -> None:
        self.queue.clear()
        self.model.clear()
        self.sent = [(audio, False) for audio, _ in self.sent]

    @invariant()
    def nothing_is_unaccounted_for(self) -> None:
        held = sum(map(len, self.model))
        queue = self.queue
        assert queue.taken.bytes + queue.dropped.bytes + queue.cleared.bytes + held == self.put_bytes
        assert len(queue) == len(self.model)
        assert queue.held_seconds == pytest.approx(held / MONO.bytes_per_second)
        under_way_seconds = sum(len(audio) for audio, _ in self.sent[self.arrived :]) / MONO.bytes_per_second
        assert queue.under_way_seconds == pytest.approx(under_way_seconds)
        assert queue.may_take == (len(self.model) > 0 and under_way_seconds < 0.5)
        assert under_way_seconds < 0.5 + 4000 / 16_000


TestQueue = Queue.TestCase


def test_messages_of_one_sample_are_bounded_in_number() -> None:
    queue = SendQueue(1, 0.5)
    while not queue.is_full:
        queue.put(MONO.measure(b"\0\0"))
    assert len(queue) == FRAMES_PER_SECOND
    while queue.may_take:
        queue.take()
    assert len(queue) == FRAMES_PER_SECOND // 2, "as many as half a second's are under way"
    queue.begin(0)
    queue.put(MONO.measure(b"\0\0"))
    queue.trim()
    assert len(queue) == FRAMES_PER_SECOND
    assert queue.dropped.chunks == 1
