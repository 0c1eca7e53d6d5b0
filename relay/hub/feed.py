"""A feed: the way of a channel's audio into a stream whose frames have to be made first.

The channel puts its frames and notes into the feed. A thread makes the stream's frames of them, a few at a time, and
the event loop hands those to the stream. Notes keep their place behind the frames before them.

Invariants: One call at a time works on a feed.

Bound: `MAX_BEHIND_SECONDS` of audio and what a stopping relay releases early (`make_room`), as many frames as such
audio has at most (`frames_within`), and `MAX_NOTES` notes. Drops: all frames that wait; with too many notes, the stream
and its listeners. Counter: `Tally.unmade_frames`.
"""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay.hub.listener import MAX_NOTES, Note
from relay.hub.stream import Stream
from relay.limits.names import Limit
from relay.media.transcoding import Encoded
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame, frames_within

MAX_BEHIND_SECONDS = 16.0
"""How far a feed may fall behind its channel. It is more than a cluster brings at once after an outage that was as long
as the usual bound of a listener, 10 s."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Silence, because there is no source.

    Attributes:
        seconds: How long it lasts.
        due: When it is due, in seconds of the relay's clock.
    """

    seconds: float
    due: float


Item = Frame | Note | Rest
"""What waits in a feed."""

Made = Frame | Encoded | Note | Exception
"""What a thread makes of it. An exception stands where audio could not be made."""

logger = logging.getLogger(__name__)


class Feed(ABC):
    """The feed of one stream.

    Args:
        stream: Gets what is made.
        wake: Called when there is work. It leads to `take`, then `make` in a thread, then `hand_on`.

    Attributes:
        stream: The stream.
    """

    def __init__(self, stream: Stream, wake: Callable[["Feed"], None]) -> None:
        self.stream = stream
        self._wake = wake
        self._items: deque[Item] = deque()
        self._held_flicks = 0
        self._held_notes = 0
        self._max_seconds, self._max_flicks, self._max_items = 0.0, 0, 0
        self.make_room(MAX_BEHIND_SECONDS)
        self._is_busy = self._is_stopped = False

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that wait."""
        return sum(len(item.audio) for item in self._items if isinstance(item, Frame))

    def put(self, item: Frame | Note) -> None:
        """Add a frame or a note of the channel."""
        if self._is_stopped:
            return
        if isinstance(item, Note):
            self._put_note(item)
            return
        if self._held_flicks + item.duration > self._max_flicks or len(self._items) >= self._max_items:
            self._fall_behind(sum(isinstance(each, Frame) for each in self._items))
        self._held_flicks += item.duration
        self._add(item)

    def take(self, most: int) -> list[Item]:
        """Remove the oldest `most` items, for `make`."""
        self._is_busy = True
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        for item in taken:
            if isinstance(item, Frame):
                self._held_flicks -= item.duration
            elif isinstance(item, Note):
                self._held_notes -= 1
        return taken

    def make(self, items: Sequence[Item]) -> list[Made]:
        """Make the stream's frames. This may run in a thread; it never raises."""
        made: list[Made] = []
        for item in items:
            try:
                self._make(item, made)
            except Exception as error:  # noqa: BLE001 - a codec's failure costs only these frames; `hand_on` reports it
                made.append(error)
            if isinstance(item, Note):
                made.append(item)
        return made

    def hand_on(self, made: Sequence[Made]) -> None:
        """Hand to the stream what `make` returned."""
        self._is_busy = False
        for each in made:
            if self._is_stopped:
                return
            if isinstance(each, Note):
                self._tell(each)
            elif isinstance(each, Exception):
                self.stream.count_failure()
                self._log("audio of a channel could not be transcoded", reason=str(each), error=type(each).__name__)
            else:
                self._distribute(each)
        if self._items:
            self._wake(self)

    def make_room(self, seconds: float) -> None:
        """Hold so much more audio, because it is released before its time."""
        self._max_seconds += seconds
        self._max_flicks = round(self._max_seconds * FLICKS_PER_SECOND)
        self._max_items = frames_within(self._max_seconds)

    def drop_frames(self) -> None:
        """Drop the audio that waits. Everything else stays."""
        self._items = deque(item for item in self._items if not isinstance(item, Frame))
        self._held_flicks = 0

    def stop(self) -> None:
        """Drop what waits, and what a thread is making."""
        self._is_stopped = True
        self._items.clear()

    @abstractmethod
    def _make(self, item: Item, made: list[Made]) -> None:
        """Append to `made` what an item becomes, in the thread."""

    @abstractmethod
    def _distribute(self, made: Frame | Encoded) -> None:
        """Hand a frame to the stream."""

    @abstractmethod
    def _tell(self, note: Note) -> None:
        """Hand a note to the stream."""

    def _fall_behind(self, frames: int) -> None:
        """Drop the frames that wait, which are so many."""
        self._log("a transcoder is too slow, so the audio that waited for it was dropped", frames=frames)
        self.drop_frames()

    def _put_note(self, note: Note) -> None:
        self._held_notes += 1
        if self._held_notes > MAX_NOTES:
            for listener in self.stream.listeners:
                listener.port.abort(f"Its stream was {MAX_NOTES} changes behind.", Limit.NOTES)
            self._end_stream()
        else:
            self._add(note)

    def _add(self, item: Item) -> None:
        self._items.append(item)
        if not self._is_busy:
            self._wake(self)

    def _end_stream(self) -> None:
        self.stream.is_over = True
        self.stop()

    def _log(self, event: str, **fields: object) -> None:
        extra = {**self.stream.names, "codec": self.stream.codec.value, "may_repeat": True, **fields}
        logger.warning(event, extra=extra)
