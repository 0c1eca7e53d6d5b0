"""The feed of a rendition: the way of a channel's audio into a stream of another codec.

The numbers of its frames follow from the channel's. When the channel's format changes to the codec of the stream, the
feed passes frames on, and removes itself when nothing waits in it.

Invariants: Every frame that the stream should have and does not get is a hole in it, which its listeners get as a gap.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from relay.hub.feed import Feed, Item, Made
from relay.hub.listener import Note
from relay.hub.rendition import Rendition, Renditions
from relay.hub.stream import Stream
from relay.media.transcoding import Encoded, Transcoder
from relay.protocol import messages
from relay.vocabulary.audio import Frame, Place
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import CloseCode, RelayError


class RenditionFeed(Feed):
    """The feed of a stream that is a rendition of its channel.

    Args:
        stream: Gets what is made.
        rendition: How the first frame is made; None if a format comes before it.
        renditions: How the audio of later formats is made.
        wake: See `Feed`.
    """

    def __init__(
        self, stream: Stream, rendition: Rendition | None, renditions: Renditions, wake: Callable[[Feed], None]
    ) -> None:
        super().__init__(stream, wake)
        self._rendition = rendition
        self._renditions = renditions
        self._stopped_at: Place | None = None
        # These belong to the thread, which is ahead of `_rendition` by what it has made.
        self._made_by = rendition
        self._transcoder: Transcoder | None = None
        self._next: Place | None = None

    def needs(self, frame: Frame) -> bool:
        """Whether a new stream needs a frame of the channel's past, for its own frames or to get its encoder going."""
        if self._rendition is None or frame.start.epoch != self.stream.place.epoch:
            return True
        end = self._rendition.place(frame.end)
        return end.position + self._rendition.warm_up_frames > self.stream.place.position

    def begin_at(self, kept_from: Place, *, is_over: bool = False) -> None:
        """Let a new stream begin where the channel's audio begins, if its own place is before that.

        What the channel leaves out from there on is missing in the stream. `is_over` says that the audio stops there.
        """
        self._stopped_at = kept_from
        if self._rendition is not None:
            place = self._rendition.end(kept_from) if is_over else self._rendition.place(kept_from)
            if place.epoch == self.stream.place.epoch and place.position > self.stream.place.position:
                self.stream.skip(place)

    def put(self, item: Frame | Note) -> None:
        """Add a frame or a note of the channel."""
        if self._stopped_at is None:
            self._stopped_at = item.place if isinstance(item, Note) else item.start
        super().put(item)

    def hand_on(self, made: Sequence[Made]) -> None:
        """Hand to the stream what `make` returned."""
        super().hand_on(made)
        is_native = self._rendition is not None and self._rendition.make is None
        if is_native and not self._items and not self._is_stopped:
            # Nothing is under way, so the channel can hand its frames to the stream itself.
            self.stream.feed = None

    def _make(self, item: Item, made: list[Made]) -> None:
        try:
            self._transcode(item, made)
        except Exception:
            self._transcoder = None
            raise

    def _transcode(self, item: Item, made: list[Made]) -> None:
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
        if rendition is None or not isinstance(item, Frame):
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

    def _distribute(self, made: Frame | Encoded) -> None:
        if isinstance(made, Frame):
            self._pass_on(made)
        else:
            self._release(made)

    def _pass_on(self, frame: Frame) -> None:
        stream = self.stream
        if frame.start.position < stream.place.position:
            return
        self._reach(frame.start)
        if stream.place is not frame.start:
            stream.skip(frame.start)
        stream.distribute(frame)

    def _release(self, encoded: Encoded) -> None:
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
            self._log("a stream lacks frames", frames=missing)

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


def _stops_audio(note: Note) -> bool:
    """Whether the audio before a note is complete, although its last frame may not be full."""
    stops = note.state is not None and note.state is not ChannelState.LIVE
    return stops or note.audio_format is not None or note.close is not None
