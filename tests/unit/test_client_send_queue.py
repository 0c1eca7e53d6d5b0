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


def test_what_did_not_arrive_comes_back_to_the_front_and_counts_as_taken_once() -> None:
    queue = SendQueue(MONO, 1)
    for number in range(5):
        queue.put(bytes([number, 0]) * 320)
    for _ in range(4):
        queue.take()
    queue.begin(2)
    assert queue.taken.chunks == 2
    assert [queue.take()[0] for _ in range(3)] == [2, 3, 4]
    queue.begin(None)
    queue.begin(0)
    assert (len(queue), queue.taken.chunks) == (0, 5), "what was taken two connections ago stays taken"


class Queue(RuleBasedStateMachine):
    """Against a plain list."""

    @initialize(max_seconds=st.sampled_from([0.02, 0.1, 1.0]))
    def open(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self.queue = SendQueue(MONO, max_seconds)
        self.model: deque[bytes] = deque()
        self.put_bytes = 0
        self.taken: list[bytes] = []
        self.cleared = False

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
        self.taken.append(self.model.popleft())
        assert self.queue.take() == self.taken[-1]

    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        arrived = data.draw(st.none() | st.integers(0, len(self.taken) + 2))
        missing = [] if arrived is None else self.taken[arrived:]
        held_before = len(self.model)
        self.queue.begin(arrived)
        back = len(self.queue) - held_before
        assert 0 <= back <= len(missing)
        self.model.extendleft(reversed(missing[len(missing) - back :]))
        if sum(map(len, missing[1:])) < self.max_seconds * MONO.bytes_per_second and not self.cleared:
            assert back == len(missing), "within the bound all come back"
        self.taken.clear()
        self.cleared = False

    @rule()
    def make_room(self) -> None:
        was_full = self.queue.is_full
        self.queue.make_room()
        assert not self.queue.is_full
        if was_full:
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
        self.cleared = True

    @invariant()
    def nothing_is_unaccounted_for(self) -> None:
        held = sum(map(len, self.model))
        queue = self.queue
        assert queue.taken.bytes + queue.dropped.bytes + queue.cleared.bytes + held == self.put_bytes
        assert len(queue) == len(self.model)
        assert queue.held_seconds == pytest.approx(held / MONO.bytes_per_second)


TestQueue = Queue.TestCase
