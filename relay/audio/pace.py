"""Cuts a broadcaster's audio into frames, and schedules them in real time.

Invariants: The frames joined are the audio. Every deadline is counted from one start, so wake-up errors never add up. A
sender that is a little late catches up; a very late one moves the schedule. Nothing here reads a clock.
"""

from collections.abc import Iterable, Iterator

from relay.vocabulary.audio import FLICKS_PER_SECOND, Piece
from relay.vocabulary.errors import RelayError

MAX_CATCH_UP_SECONDS = 1.0
"""How late a sender may be and still catch up.

A later sender was stopped, or had nothing to send. Listeners have played silence meanwhile, and a burst of everything
missed would only overflow their buffers."""


def cut_frames(blocks: Iterable[bytes], frame_bytes: int) -> Iterator[bytes]:
    """Cut audio into frames of one size. Only the last may be shorter, and none is empty.

    Args:
        blocks: Audio in pieces of any size.
        frame_bytes: Size of a frame, in whole samples.

    Raises:
        RelayError: The blocks raised it. The audio before it is yielded first.
    """
    rest = bytearray()
    problem: RelayError | None = None
    try:
        for block in blocks:
            rest += block
            whole_bytes = len(rest) - len(rest) % frame_bytes
            for start in range(0, whole_bytes, frame_bytes):
                yield bytes(rest[start : start + frame_bytes])
            del rest[:whole_bytes]
    except RelayError as error:
        problem = error
    if rest:
        yield bytes(rest)
    if problem is not None:
        raise problem


class Schedule:
    """The schedule of one audio stream.

    It starts at the first `wait_seconds`, and moves when the sender is later than `max_catch_up_seconds`.
    """

    def __init__(self, max_catch_up_seconds: float = MAX_CATCH_UP_SECONDS) -> None:
        self._max_catch_up_seconds = max_catch_up_seconds
        self._start: float | None = None
        self._sent_flicks = 0

    @property
    def sent_seconds(self) -> float:
        """How much audio was sent."""
        return self._sent_flicks / FLICKS_PER_SECOND

    def wait_seconds(self, now: float) -> float:
        """Return how long the next audio has to wait at `now`, in seconds; 0 if it is due or late."""
        if self._start is None:
            self._start = now
        late_seconds = now - (self._start + self.sent_seconds)
        if late_seconds > self._max_catch_up_seconds:
            self._start += late_seconds
        return max(0.0, -late_seconds)

    def sent(self, piece: Piece) -> None:
        """Count a piece as sent."""
        self._sent_flicks += piece.flicks
