"""The feed of a programme: the way of a channel's audio to listeners of an HTTP stream.

A programme has numbers of its own, because it also has silence while no broadcaster sends anything. `rest` adds that
silence, in real time. Players hear a programme without a break, so audio that came before its time, or that came late
because of an outage, would delay everything after it for good. The silence after it is therefore shorter by as much.

Invariants: While there is no source, a programme is never more than one call of `rest` behind real time, and gets
nothing while it is ahead.
"""

import math
from collections.abc import Callable, Iterable

from relay.hub.feed import Feed, Item, Made, Rest
from relay.hub.listener import Note
from relay.hub.stream import Stream
from relay.media.programme import Programme
from relay.media.transcoding import Encoded
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame
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
        self._is_live = is_live
        # When the audio so far is over if it plays without a break, and when its last frame is over.
        self._covered_until = clock()
        self._over_at = -math.inf

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the programme."""
        return self._programme.audio_format

    def begin(self, past: Iterable[Frame]) -> None:
        """Begin a programme with audio from before now, which lets players fill their buffers."""
        for frame in past:
            self.put(frame)
        self._covered_until = max(self._over_at, self._clock())

    def put(self, item: Frame | Note) -> None:
        """Add a frame or a note of the channel."""
        super().put(item)
        if isinstance(item, Frame):
            seconds = item.duration / FLICKS_PER_SECOND
            self._covered_until += seconds
            self._over_at = item.timestamp + seconds

    def drop_frames(self) -> None:
        """Drop the audio that waits. Everything else stays."""
        held_seconds = self._held_flicks / FLICKS_PER_SECOND
        self._covered_until -= held_seconds
        self._over_at -= held_seconds
        super().drop_frames()

    def rest(self) -> None:
        """Add silence up to now, if there is no source and the audio so far is over."""
        since, now = self._covered_until, self._clock()
        if not self._is_live and not self._is_stopped and since < now:
            self._covered_until = now
            self._add(Rest(now - since, since))

    def _put_note(self, note: Note) -> None:
        if note.state is ChannelState.LIVE:
            self.rest()
            self._is_live = True
        elif note.state is not None and self._is_live:
            self._is_live = False
            self._covered_until = max(self._covered_until, self._over_at, self._clock())
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
