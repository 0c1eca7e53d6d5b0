"""What waits at a broadcaster: bounded, and every byte accounted for."""

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.core.amounts import AudioAmount
from relay.core.send_queue import SendQueue
from relay.vocabulary.audio import AudioFormat

MONO = AudioFormat()
FRAME = b"\1\2" * 320


def test_it_is_full_at_its_bound_and_drops_the_oldest_when_asked() -> None:
    queue = SendQueue(MONO, 0.06)
    for number in range(3):
        assert not queue.is_full
        queue.put(bytes([number, 0]) * 320)
    assert queue.is_full
    assert queue.held_seconds == pytest.approx(0.06)
    queue.make_room()
    assert not queue.is_full
    assert queue.dropped == AudioAmount(1, 640, MONO.flicks(640))
    assert [queue.take()[0] for _ in range(2)] == [1, 2]
    with pytest.raises(IndexError):
        queue.take()


def test_what_is_cleared_is_not_counted_as_dropped() -> None:
    queue = SendQueue(MONO, 1)
    queue.put(FRAME)
    queue.clear()
    queue.put(FRAME)
    queue.drop()
    assert (queue.cleared.chunks, queue.dropped.chunks, len(queue)) == (1, 1, 0)


class Queue(RuleBasedStateMachine):
    """Against a plain list."""

    @initialize(max_seconds=st.sampled_from([0.02, 0.1, 1.0]))
    def begin(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.queue = SendQueue(MONO, max_seconds)
        self.model: deque[bytes] = deque()
        self.put_bytes = 0

    @precondition(lambda self: not self.queue.is_full)
    @rule(samples=st.integers(1, 4000))
    def put(self, samples: int) -> None:
        audio = bytes([len(self.model) % 256, 1]) * samples
        self.queue.put(audio)
        self.model.append(audio)
        self.put_bytes += len(audio)

    @precondition(lambda self: self.model)
    @rule()
    def take(self) -> None:
        assert self.queue.take() == self.model.popleft()

    @rule()
    def make_room(self) -> None:
        was_full = self.queue.is_full
        self.queue.make_room()
        assert not self.queue.is_full
        if was_full:
            while len(self.model) > len(self.queue):
                self.model.popleft()

    @rule()
    def clear(self) -> None:
        self.queue.clear()
        self.model.clear()

    @invariant()
    def nothing_is_unaccounted_for(self) -> None:
        held = sum(map(len, self.model))
        queue = self.queue
        assert queue.taken.bytes + queue.dropped.bytes + queue.cleared.bytes + held == self.put_bytes
        assert len(queue) == len(self.model)
        assert queue.held_seconds == pytest.approx(held / MONO.bytes_per_second)
        assert queue.held_seconds <= self.max_seconds + 0.25


TestQueue = Queue.TestCase
