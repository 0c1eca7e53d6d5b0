"""A feed: the way of a channel's audio into a stream of another codec.

The channel puts its frames and notes into the feed. A thread makes frames of them, a few at a time, and the event loop
hands those to the stream. Notes keep their place behind the frames before them.

Invariants: One call at a time works on a feed. Every frame that the stream should have and does not get is a hole in
it, of which its listeners learn in a gap.

Bound: `MAX_BEHIND_SECONDS` of audio, as many frames as such audio has at most (`frames_within`), and `MAX_NOTES` notes.
Drops: all frames that wait; with too many notes, the stream and its listeners. Counter: `Tally.unmade_frames`.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from relay.hub.listener import MAX_NOTES, Note
from relay.hub.rendition import Rendition, Renditions
from relay.hub.stream import Stream
from relay.limits.names import Limit
from relay.media.transcoding import Encoded, Transcoder
from relay.protocol import messages
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame, Place, frames_within
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import CloseCode, RelayError

MAX_BEHIND_SECONDS = 10.0
"""How far a feed may fall behind its channel: as much audio as a listener's buffer holds."""

_MAX_FLICKS = round(MAX_BEHIND_SECONDS * FLICKS_PER_SECOND)
_MAX_ITEMS = frames_within(MAX_BEHIND_SECONDS)

Item = Frame | Note
"""What a channel puts into a feed."""

Made = Frame | Encoded | Note | Exception
"""What a thread makes of it. An exception stands where audio could not be made."""

logger = logging.getLogger(__name__)


class Feed:
    """The feed of one stream.

    Args:
        stream: Gets what is made.
        rendition: How the first frame is made; None if a format comes before it.
        renditions: How the audio of later formats is made.
        wake: Called when there is work. It leads to `take`, then `make` in a thread, then `hand_on`.

    Attributes:
        stream: The stream.
    """

    def __init__(
        self, stream: Stream, rendition: Rendition | None, renditions: Renditions, wake: Callable[["Feed"], None]
    ) -> None:
        self.stream = stream
        self._rendition = rendition
        self._renditions = renditions
        self._wake = wake
        self._items: deque[Item] = deque()
        self._held_flicks = 0
        self._held_notes = 0
        self._is_busy = self._is_stopped = False
        self._stopped_at: Place | None = None
        # These belong to the thread, which is ahead of `_rendition` by what it has made.
        self._made_by = rendition
        self._transcoder: Transcoder | None = None
        self._next: Place | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that wait."""
        return sum(len(item.audio) for item in self._items if isinstance(item, Frame))

    def needs(self, frame: Frame) -> bool:
        """Whether a new stream needs a frame of the channel's past, for its own frames or to get its encoder going."""
        if self._rendition is None or frame.start.epoch != self.stream.place.epoch:
            return True
        end = self._rendition.place(frame.end)
        return end.position + self._rendition.warm_up_frames > self.stream.place.position

    def begin_at(self, kept_from: Place) -> None:
        """Let a new stream begin where the channel's audio begins, if its own place is before that."""
        if self._rendition is not None:
            place = self._rendition.place(kept_from)
            if place.epoch == self.stream.place.epoch and place.position > self.stream.place.position:
                self.stream.skip(place)

    def put(self, item: Item) -> None:
        """Add a frame or a note of the channel."""
        if self._is_stopped:
            return
        if self._stopped_at is None:
            self._stopped_at = item.place if isinstance(item, Note) else item.start
        if isinstance(item, Note):
            self._held_notes += 1
            if self._held_notes > MAX_NOTES:
                self._give_up()
                return
        else:
            if self._held_flicks + item.duration > _MAX_FLICKS or len(self._items) >= _MAX_ITEMS:
                self._log("a transcoder is too slow, what waits for it is dropped", frames=len(self._items))
                self.drop_frames()
            self._held_flicks += item.duration
        self._items.append(item)
        if not self._is_busy:
            self._wake(self)

    def take(self, most: int) -> list[Item]:
        """Remove the oldest `most` items, for `make`."""
        self._is_busy = True
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        for item in taken:
            if isinstance(item, Frame):
                self._held_flicks -= item.duration
            else:
                self._held_notes -= 1
        return taken

    def make(self, items: Sequence[Item]) -> list[Made]:
        """Make the stream's frames. This may run in a thread; it never raises."""
        made: list[Made] = []
        for item in items:
            try:
                self._make(item, made)
            except Exception as error:  # noqa: BLE001 - whatever a codec raises ends nothing but these frames
                made.append(error)
                self._transcoder = None
            if isinstance(item, Note):
                made.append(item)
        return made

    def _make(self, item: Item, made: list[Made]) -> None:
        if isinstance(item, Note):
            if _stops_audio(item):
                self._finish(made)
            if item.clears or item.audio_format is not None:
                # Nobody is to hear what an encoder still holds, or it takes no other format.
                self._transcoder = None
            if item.audio_format is not None:
                self._made_by = self._renditions.find(item.audio_format, self.stream.codec)
            return
        rendition = self._made_by
        if rendition is None:
            return
        if rendition.make is None:
            made.append(item)
            return
        if item.start is not self._next:
            self._finish(made)
            self._transcoder = None
        self._next = item.end
        if self._transcoder is None:
            self._transcoder = rendition.make()
        failures = self._transcoder.failures
        made += self._transcoder.take(item)
        if self._transcoder.failures > failures:
            made.append(RelayError("A packet could not be decoded, and is concealed."))

    def _finish(self, made: list[Made]) -> None:
        if self._transcoder is not None:
            made += self._transcoder.finish()

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
            elif isinstance(each, Frame):
                self._pass_on(each)
            else:
                self._distribute(each)
        if self._items:
            self._wake(self)
        elif self._rendition is not None and self._rendition.make is None:
            # Nothing is under way, so the channel can hand its frames to the stream itself.
            self.stream.feed = None

    def drop_frames(self) -> None:
        """Drop the audio that waits. Listeners learn of it in a gap, and notes stay."""
        self._items = deque(item for item in self._items if isinstance(item, Note))
        self._held_flicks = 0

    def stop(self) -> None:
        """Drop what waits, and what is under way."""
        self._is_stopped = True
        self._items.clear()

    def _pass_on(self, frame: Frame) -> None:
        stream = self.stream
        if frame.start.position < stream.place.position:
            return
        self._reach(frame.start)
        if stream.place is not frame.start:
            stream.skip(frame.start)
        stream.distribute(frame)

    def _distribute(self, encoded: Encoded) -> None:
        stream = self.stream
        seq = encoded.seq
        # A stream that begins in the middle has no use for what its encoder made to get going.
        if seq >= stream.place.seq:
            ahead = seq - stream.place.seq
            self._reach(Place(stream.place.position + ahead, stream.place.epoch, seq, encoded.media_time))
            stream.release(encoded)

    def _reach(self, place: Place) -> None:
        """Leave a hole in the stream, up to `place`, if it is not there."""
        missing = place.position - self.stream.place.position
        if missing > 0:
            self.stream.leave_hole(place)
            self._log("a stream has a hole", frames=missing)

    def _tell(self, note: Note) -> None:
        stream, rendition = self.stream, self._rendition
        if _stops_audio(note):
            if rendition is not None and note.place != self._stopped_at:
                self._reach(rendition.end(note.place))
            self._stopped_at = note.new_place or note.place
        elif rendition is not None and note.clears:
            place = rendition.place(note.place)
            if place.position > stream.place.position:
                stream.skip(place)
        if note.audio_format is None or note.new_place is None:
            stream.tell(replace(note, place=stream.place))
            if note.close is not None:
                self.stop()
            return
        self._rendition = rendition = self._renditions.find(note.audio_format, stream.codec)
        if rendition is None:
            self._refuse(note)
            return
        place = rendition.place(note.new_place)
        text = messages.FormatChange(rendition.audio_format, place.epoch).text()
        stream.tell(replace(note, place=stream.place, text=text, audio_format=rendition.audio_format, new_place=place))

    def _refuse(self, note: Note) -> None:
        """Close the listeners of a codec that the relay cannot make of the channel's new format."""
        reason = f"The channel's audio is {note.audio_format} now, and this relay can't make {self.stream.codec} of it."
        self.stream.tell(Note(self.stream.place, close=(CloseCode.BAD_REQUEST, reason)))
        self._end_stream()

    def _give_up(self) -> None:
        for listener in self.stream.listeners:
            listener.port.abort(f"Its stream was {MAX_NOTES} changes behind.", Limit.NOTES)
        self._end_stream()

    def _end_stream(self) -> None:
        self.stream.is_over = True
        self.stop()

    def _log(self, event: str, **fields: object) -> None:
        extra = {**self.stream.names, "codec": self.stream.codec.value, "may_repeat": True, **fields}
        logger.warning(event, extra=extra)


def _stops_audio(note: Note) -> bool:
    """Whether the audio before a note is complete, although its last frame may not be full."""
    stops = note.state is not None and note.state is not ChannelState.LIVE
    return stops or note.audio_format is not None or note.close is not None
