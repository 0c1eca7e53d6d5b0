"""Frames that are written together: joined once, for all listeners that need the same."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import accumulate

from relay.audio.amounts import AudioAmount
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame, Place, frames_within

MAX_WRITE_SECONDS = 0.25
"""The audio of one write. It bounds how long joining frames and one system call hold others up."""

MAX_WRITE_FLICKS = round(MAX_WRITE_SECONDS * FLICKS_PER_SECOND)

MAX_WRITE_FRAMES = frames_within(MAX_WRITE_SECONDS)


class Framing(StrEnum):
    """What a listener's binary messages are."""

    RELAY_V1 = "relay.v1"
    """Header and audio, with control messages."""

    RAW = "raw"
    """Bare audio, and no text at all."""


class Batch:
    """Consecutive frames, joined for one framing.

    Attributes:
        frames: The frames.
        amount: How much audio they are.
        due: When the oldest is due, in seconds of the relay's clock.
        place: Before the first.
        end: After the last.
        messages: What is written of each frame: a complete WebSocket message.
        wire: What is written, all of it.
    """

    __slots__ = ("amount", "due", "end", "frames", "messages", "place", "wire")

    def __init__(self, frames: Sequence[Frame], messages: Sequence[bytes]) -> None:
        """Make the batch of `frames`, which are `messages` in its framing."""
        self.frames = frames
        self.amount = AudioAmount(
            len(frames), sum(len(frame[0]) for frame in frames), sum(frame.duration for frame in frames)
        )
        self.due = frames[0][1]
        self.place: Place = frames[0].start
        self.end: Place = frames[-1].end
        self.messages = messages
        self.wire = messages[0] if len(messages) == 1 else b"".join(messages)

    def begun(self, taken_bytes: int) -> tuple["Batch | None", bytes]:
        """Tell what a socket has begun that took only so many bytes of the wire.

        Returns:
            The frames of which it took a byte, as a batch; None when it took none. And what is missing of the last.
        """
        ends = list(accumulate(map(len, self.messages), initial=0))
        count = bisect_left(ends, taken_bytes)
        if not count:
            return None, b""
        return Batch(self.frames[:count], self.messages[:count]), self.wire[taken_bytes : ends[count]]


class Batches:
    """The batches that were joined lately, so that hardly any is joined twice; the drain makes a new set each round."""

    def __init__(self, serialize: Callable[[bytes], bytes]) -> None:
        """Make it empty.

        Args:
            serialize: Makes the complete WebSocket message of a binary payload, for raw framing.
        """
        self._serialize = serialize
        self._batches: dict[tuple[int, int, Framing], Batch] = {}

    def join(self, frames: Sequence[Frame], framing: Framing) -> Batch:
        """Give the batch of these frames."""
        # The batch keeps its frames, so an id is not given to another frame while it stands here.
        key = (id(frames[0]), len(frames), framing)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batch(frames, self._messages(frames, framing))
        return batch

    def _messages(self, frames: Sequence[Frame], framing: Framing) -> list[bytes]:
        if framing is Framing.RAW:
            return [self._serialize(frame.audio) for frame in frames]
        return [frame.wire for frame in frames]


def count_for_one_write(frames: Sequence[Frame]) -> int:
    """Tell how many of the oldest frames go into one write; at least 1."""
    duration = 0
    for count, frame in enumerate(frames):
        duration += frame.duration
        if duration > MAX_WRITE_FLICKS or count >= MAX_WRITE_FRAMES:
            return max(count, 1)
    return len(frames)
