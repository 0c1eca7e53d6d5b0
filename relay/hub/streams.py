"""The streams of a channel: how they begin, with the audio that the channel still has, and when they end.

Invariant: while a channel has a format, it has the stream of the source's codec.
"""

from collections import deque
from collections.abc import Callable, Iterator

from relay.audio.history import Epoch, Known
from relay.audio.timeline import Timeline
from relay.hub.group import Group
from relay.hub.listener import Note
from relay.hub.programme_feed import ProgrammeFeed
from relay.hub.rendition import Kind
from relay.hub.stream import Stream
from relay.hub.transcoding import Transcoding
from relay.metrics.vitals import Tally
from relay.vocabulary.audio import Codec, Place
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.containers import Container


class Streams(dict[Kind, Stream]):
    """The stream of the source's own codec, those in other codecs, and programmes for HTTP.

    Args:
        timeline: The numbering of the channel's audio.
        tally: Counts of the channel's frames.
        make_stream: Creates a stream that begins at a place.
        transcoding: Makes the streams whose codec is not the source's.
    """

    def __init__(
        self,
        timeline: Timeline,
        tally: Tally,
        make_stream: Callable[[Kind, Place, Tally], Stream],
        transcoding: Transcoding,
    ) -> None:
        super().__init__()
        self._timeline = timeline
        self._tally = tally
        self._make_stream = make_stream
        self._transcoding = transcoding

    @property
    def listener_count(self) -> int:
        """The number of listeners in all streams."""
        return sum(stream.listener_count for stream in self.values())

    @property
    def groups(self) -> Iterator[Group]:
        """The groups of listeners in all streams."""
        return (group for stream in self.values() for group in stream.groups.values())

    @property
    def made_bytes(self) -> int:
        """Bytes of audio that streams with frames of their own hold."""
        return sum(each.history.held_bytes + each.feed.held_bytes for each in self.values() if each.feed)

    def open(self, kind: Kind) -> Stream:
        """Return the stream of a codec or container.

        A new one has no audio. That of a codec knows the numbers of the audio that the channel knows. `begin` starts
        it, and `begin_programme` that of a container.
        """
        stream = self.get(kind)
        if stream is not None and not stream.is_over:
            return stream
        if isinstance(kind, Container):
            return self._make_stream(kind, Place(0, self._timeline.place.epoch, 0, 0), self._tally)
        stream = self._make_stream(kind, self._timeline.place, self._tally)
        stream.imitate(self._timeline, self._transcoding.renditions)
        return stream

    def begin_programme(self, stream: Stream, container: Container, oldest: float) -> None:
        """Start a new programme with the recent audio that is due at `oldest` or later, in the present format."""
        timeline = self._timeline
        frames = [each for each in timeline.history.since_due(oldest) if each.start.epoch == timeline.place.epoch]
        is_live = timeline.state is ChannelState.LIVE
        feed = self._transcoding.open_programme(stream, container, timeline.audio_format, is_live=is_live)
        stream.begin_programme(feed.audio_format, timeline)
        self[container] = stream
        feed.begin(frames)

    def rest(self) -> None:
        """Let programmes have silence while there is no source."""
        for stream in self.values():
            if isinstance(stream.feed, ProgrammeFeed):
                stream.feed.rest()

    def begin(self, stream: Stream, state_note: Note, known: Known | None = None) -> None:
        """Start a new stream: now, or at a place that it knows, with the audio that the channel still has from there.

        If that audio is gone, the stream begins as close to the place as it can. `state_note` tells the channel's
        present state.
        """
        self[stream.codec] = stream
        if self._source_codec is None or (known is None and stream.codec is self._source_codec):
            return
        history = self._timeline.history
        if known is not None:
            stream.go_back(known)
        epoch = next(each for each in reversed(history.epochs) if each.start.epoch == stream.place.epoch)
        feed = self._transcoding.open_feed(stream, epoch.audio_format)
        later = deque(history.epochs_after(epoch))
        end = later[0].before if later else self._timeline.place
        frames = [frame for frame in history.since(epoch.start.position) if feed.needs(frame)]
        if frames and frames[0].start.position < end.position:
            feed.begin_at(frames[0].start)
        else:
            feed.begin_at(end, is_over=bool(later) or self._timeline.state is not ChannelState.LIVE)
        for frame in frames:
            while later and later[0].start.position <= frame.start.position:
                feed.put(_format_note(later.popleft()))
            feed.put(frame)
        for each in later:
            feed.put(_format_note(each))
        if self._timeline.state is not ChannelState.LIVE:
            feed.put(state_note)

    def find_due(self, stream: Stream, oldest: float) -> Known | None:
        """Return the place in a stream of the first frame of its epoch that is due at `oldest` or later.

        `oldest` is in seconds of the relay's clock. A stream that has not begun can have what the channel has.
        """
        has_begun, audio_format = self.get(stream.codec) is stream, self._timeline.audio_format
        history = stream.history if has_begun else self._timeline.history
        frame = next((each for each in history.since_due(oldest) if each.start.epoch == stream.place.epoch), None)
        if frame is None:
            return None
        if has_begun or audio_format is None:
            return Known(frame.start, stream.history.epochs[-1])
        rendition = self._transcoding.renditions.find(audio_format, stream.codec)
        return None if rendition is None else Known(rendition.place(frame.start), stream.history.epochs[-1])

    def count_in(self, tally: Tally) -> None:
        """Use another tally from now on."""
        self._tally = tally
        for stream in self.values():
            stream.count_in(tally)

    def drop_unheard(self, now: float, seconds: float) -> None:
        """Drop the streams that had no listener for some time, except that of the source's codec."""
        for codec, stream in list(self.items()):
            if stream.groups:
                continue
            if stream.unheard_since is None:
                stream.unheard_since = now
            if stream.is_over or (codec is not self._source_codec and now - stream.unheard_since >= seconds):
                self._drop(stream)

    def stop(self) -> None:
        """Stop all feeds, because the channel is forgotten."""
        for stream in self.values():
            if stream.feed is not None:
                stream.feed.stop()

    def change_codec(self, codec: Codec) -> None:
        """Let feeds make the streams that the channel fed directly, before it changes to another codec."""
        for stream in list(self.values()):
            if stream.feed is None and stream.codec is not codec:
                if stream.groups:
                    self._transcoding.open_feed(stream, stream.audio_format)
                else:
                    self._drop(stream)

    @property
    def _source_codec(self) -> Codec | None:
        audio_format = self._timeline.audio_format
        return None if audio_format is None else audio_format.codec

    def _drop(self, stream: Stream) -> None:
        del self[stream.codec]
        if stream.feed is not None:
            stream.feed.stop()


def _format_note(epoch: Epoch) -> Note:
    return Note(epoch.before, audio_format=epoch.audio_format, new_place=epoch.start)
