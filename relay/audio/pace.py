"""Cutting a broadcaster's audio into frames, and when each is due, so that it leaves in real time.

Invariants: the frames joined are the audio; every deadline is counted from one start, so the error of a wake-up
never adds up; a sender that is a little late catches up, one that is very late moves the schedule; nothing here
reads a clock.
"""

from collections.abc import Iterable, Iterator

from relay.vocabulary.audio import AudioFormat
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

    def __init__(self, audio_format: AudioFormat, max_catch_up_seconds: float = MAX_CATCH_UP_SECONDS) -> None:
        """Make a schedule that starts when it is first asked.

        Args:
            audio_format: Of the audio that is sent.
            max_catch_up_seconds: Lateness beyond which the schedule moves.
        """
        self._audio_format = audio_format
        self._max_catch_up_seconds = max_catch_up_seconds
        self._start: float | None = None
        self._sent_bytes = 0

    @property
    def sent_seconds(self) -> float:
        """How much audio was sent."""
        return self._sent_bytes / self._audio_format.bytes_per_second

    def wait_seconds(self, now: float) -> float:
        """Give how long, at `now` (seconds), the next audio has to wait; 0 when it is due or late."""
        if self._start is None:
            self._start = now
        late_seconds = now - (self._start + self.sent_seconds)
        if late_seconds > self._max_catch_up_seconds:
            self._start += late_seconds
        return max(0.0, -late_seconds)

    def sent(self, byte_count: int) -> None:
        """Note that `byte_count` bytes of whole samples were sent."""
        self._sent_bytes += byte_count
