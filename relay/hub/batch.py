"""Batches: consecutive frames, joined once for all listeners that need the same bytes."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from relay.audio.amounts import AudioAmount
from relay.hub.framing import Framing, Serialize, Written
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame, Place, frames_within

MAX_WRITE_SECONDS = 0.25
"""The most audio in one write. It bounds how long joining the frames and one system call block everything else."""

MAX_WRITE_FLICKS = round(MAX_WRITE_SECONDS * FLICKS_PER_SECOND)

MAX_WRITE_FRAMES = frames_within(MAX_WRITE_SECONDS)


class Batch:
    """Consecutive frames, joined for one framing.

    Attributes:
        frames: The frames.
        amount: How much audio the frames hold.
        due: When the oldest frame is due, in seconds of the relay's clock.
        place: The start of the first frame.
        end: The end of the last frame.
        written: The messages with these frames.
        wire: All messages joined, as they are written.
    """

    __slots__ = ("amount", "due", "end", "frames", "place", "wire", "written")

    def __init__(self, frames: Sequence[Frame], written: Written) -> None:
        self.frames = frames
        self.amount = AudioAmount(
            len(frames), sum(len(frame[0]) for frame in frames), sum(frame.duration for frame in frames)
        )
        self.due = frames[0][1]
        self.place: Place = frames[0].start
        self.end: Place = frames[-1].end
        self.written = written
        self.wire = written.messages[0] if len(written.messages) == 1 else b"".join(written.messages)

    def begun(self, taken_bytes: int) -> tuple["Batch | None", bytes]:
        """Split the batch where a socket stopped after taking `taken_bytes` of the wire.

        Returns:
            The frames in messages of which the socket took at least one byte, as a batch (None for no frames), and the
            missing bytes of the last message.
        """
        messages, frames = self.written
        ends = list(accumulate(map(len, messages), initial=0))
        count = bisect_left(ends, taken_bytes)
        if not count:
            return None, b""
        begun = Written(messages[:count], frames[:count])
        return Batch(self.frames[: sum(begun.frames)], begun), self.wire[taken_bytes : ends[count]]


class Batches:
    """A cache of joined batches, so that listeners share them. The drain starts a new one each round.

    Args:
        serialize: Makes the complete WebSocket message of a binary payload.
    """

    def __init__(self, serialize: Serialize) -> None:
        self._serialize = serialize
        self._batches: dict[tuple[int, int, Framing], Batch] = {}

    def join(self, frames: Sequence[Frame], framing: Framing) -> Batch:
        """Return the batch of these frames, from the cache if possible."""
        # The cached batch holds its frames, so no other frame can get the same id.
        key = (id(frames[0]), len(frames), framing)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batch(frames, framing.write(frames, self._serialize))
        return batch


def count_for_one_write(frames: Sequence[Frame]) -> int:
    """Return how many of the oldest frames go into one write, at least 1."""
    duration = 0
    for count, frame in enumerate(frames):
        duration += frame.duration
        if duration > MAX_WRITE_FLICKS or count >= MAX_WRITE_FRAMES:
            return max(count, 1)
    return len(frames)
