"""The feed of a programme: the way of a channel's audio to listeners of an HTTP stream.

A programme has numbers of its own, because it also has silence while no broadcaster sends anything. `rest` adds that
silence, in real time.

Invariants: The silence lasts as long as there was no source, in all.
"""

from collections.abc import Callable

from relay.hub.feed import Feed, Item, Made, Rest
from relay.hub.listener import Note
from relay.hub.stream import Stream
from relay.media.programme import Programme
from relay.media.transcoding import Encoded
from relay.vocabulary.audio import AudioFormat, Frame
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.clock import Clock


class ProgrammeFeed(Feed):
    """The feed of a stream that is a programme.

    Args:
        stream: Gets what is made.
        programme: Makes it.
        wake: See `Feed`.
        clock: Returns seconds.
        is_live: Whether there is a source.
    """

    def __init__(
        self, stream: Stream, programme: Programme, wake: Callable[[Feed], None], clock: Clock, *, is_live: bool
    ) -> None:
        super().__init__(stream, wake)
        self._programme = programme
        self._clock = clock
        self._rests_since = None if is_live else clock()

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the programme."""
        return self._programme.audio_format

    def rest(self) -> None:
        """Add the silence since the last call, if there is no source."""
        if self._rests_since is not None and not self._is_stopped:
            since, self._rests_since = self._rests_since, self._clock()
            self._add(Rest(self._rests_since - since, since))

    def _put_note(self, note: Note) -> None:
        if note.state is ChannelState.LIVE:
            self.rest()
            self._rests_since = None
        elif note.state is not None:
            self._rests_since = self._clock()
        if note.clears:
            self.drop_frames()
        elif note.state is None and note.audio_format is None and note.close is None:
            return
        super()._put_note(note)

    def _make(self, item: Item, made: list[Made]) -> None:
        programme = self._programme
        if isinstance(item, Frame):
            made += programme.take(item)
        elif isinstance(item, Rest):
            made += programme.rest(item.seconds, item.due)
        elif item.close is not None:
            made += programme.end(self._clock())
        else:
            made += programme.finish()
            if item.audio_format is not None:
                programme.begin_source(item.audio_format)

    def _fall_behind(self, frames: int) -> None:
        self.stream.count_unmade(frames)
        super()._fall_behind(frames)

    def _distribute(self, made: Frame | Encoded) -> None:
        if isinstance(made, Encoded):
            self.stream.release(made)

    def _tell(self, note: Note) -> None:
        """Tell listeners what concerns them. A change of the format does not: the programme keeps its own."""
        stream = self.stream
        if note.state is not None or note.clears or note.close is not None:
            told = Note(stream.place, state=note.state, silence=note.silence, clears=note.clears, close=note.close)
            stream.tell(told)
        if note.close is not None:
            self.stop()
