"""Cutting a broadcaster's audio into frames, and when each is due, so that it leaves in real time.

Invariants: the frames joined are the audio; every deadline is counted from one start, so the error of a wake-up
never adds up; a sender that is a little late catches up, one that is very late moves the schedule; nothing here
reads a clock.
"""

from collections.abc import Iterable, Iterator

from relay.vocabulary.audio import FLICKS_PER_SECOND, Piece
from relay.vocabulary.errors import RelayError

MAX_CATCH_UP_SECONDS = 1.0
"""How late a sender may be and still catch up.

Whoever is later was stopped, or had nothing to send. Listeners have played silence meanwhile, and a burst of all
that was missed would only overflow their buffers.
"""


def cut_frames(blocks: Iterable[bytes], frame_bytes: int) -> Iterator[bytes]:
    """Cut audio into frames of one size; only the last may be shorter, and none is empty.

    Args:
        blocks: Audio in pieces of any size.
        frame_bytes: Size of a frame, whole samples.

    Raises:
        RelayError: What the blocks raised, after the audio before it was given.
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
    """The schedule of one stream of audio."""

    def __init__(self, max_catch_up_seconds: float = MAX_CATCH_UP_SECONDS) -> None:
        """Make a schedule that starts when it is first asked; it moves when it is later than the maximum."""
        self._max_catch_up_seconds = max_catch_up_seconds
        self._start: float | None = None
        self._sent_flicks = 0

    @property
    def sent_seconds(self) -> float:
        """How much audio was sent."""
        return self._sent_flicks / FLICKS_PER_SECOND

    def wait_seconds(self, now: float) -> float:
        """Give how long, at `now` (seconds), the next audio has to wait; 0 when it is due or late."""
        if self._start is None:
            self._start = now
        late_seconds = now - (self._start + self.sent_seconds)
        if late_seconds > self._max_catch_up_seconds:
            self._start += late_seconds
        return max(0.0, -late_seconds)

    def sent(self, piece: Piece) -> None:
        """Note that a piece was sent."""
        self._sent_flicks += piece.flicks
