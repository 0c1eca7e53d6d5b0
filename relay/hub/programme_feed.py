"""The feed of a programme: the way of a channel's audio to listeners of an HTTP stream.

The channel puts its frames and notes into the feed. A thread makes a programme of them. Its frames have numbers of
their own, because it also has silence while no broadcaster sends anything. `rest` adds that silence, in real time.

Invariants: One call at a time works on a feed. The silence lasts as long as there was no source, in all.

Bound: `MAX_BEHIND_SECONDS` of audio, as many frames as such audio has at most (`frames_within`), and `MAX_NOTES` notes.
Drops: all frames that wait; with too many notes, the stream and its listeners. Counter: `Tally.unmade_frames`.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from relay.hub.feed import MAX_BEHIND_SECONDS
from relay.hub.listener import MAX_NOTES, Note
from relay.hub.stream import Stream
from relay.limits.names import Limit
from relay.media.programme import Programme
from relay.media.transcoding import Encoded
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame, frames_within
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.clock import Clock

_MAX_FLICKS = round(MAX_BEHIND_SECONDS * FLICKS_PER_SECOND)
_MAX_ITEMS = frames_within(MAX_BEHIND_SECONDS)

logger = logging.getLogger(__name__)


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
Made = Encoded | Note | Exception


class ProgrammeFeed:
    """The feed of one stream.

    Args:
        stream: Gets what is made.
        programme: Makes it.
        wake: Called when there is work. It leads to `take`, then `make` in a thread, then `hand_on`.
        clock: Returns seconds.
        is_live: Whether there is a source.

    Attributes:
        stream: The stream.
    """

    def __init__(
        self,
        stream: Stream,
        programme: Programme,
        wake: Callable[["ProgrammeFeed"], None],
        clock: Clock,
        *,
        is_live: bool,
    ) -> None:
        self.stream = stream
        self._programme = programme
        self._wake = wake
        self._clock = clock
        self._items: deque[Item] = deque()
        self._held_flicks = 0
        self._held_notes = 0
        self._is_busy = self._is_stopped = False
        self._rests_since = None if is_live else clock()

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that wait."""
        return sum(len(item.audio) for item in self._items if isinstance(item, Frame))

    @property
    def audio_format(self) -> AudioFormat:
        """The format of the programme."""
        return self._programme.audio_format

    def put(self, item: Frame | Note) -> None:
        """Add a frame or a note of the channel."""
        if self._is_stopped:
            return
        if isinstance(item, Note):
            self._put_note(item)
            return
        if self._held_flicks + item.duration > _MAX_FLICKS or len(self._items) >= _MAX_ITEMS:
            self.stream.count_unmade(sum(isinstance(each, Frame) for each in self._items))
            self.drop_frames()
            logger.warning("a programme is too slow, what waits for it is dropped", extra=self._log_fields)
        self._held_flicks += item.duration
        self._add(item)

    def rest(self) -> None:
        """Add the silence since the last call, if there is no source."""
        if self._rests_since is not None and not self._is_stopped:
            since, self._rests_since = self._rests_since, self._clock()
            self._add(Rest(self._rests_since - since, since))

    def take(self, most: int) -> list[Item]:
        """Remove at most so many of the oldest items, for `make`."""
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
                made += self._make(item)
            except Exception as error:  # noqa: BLE001 - whatever a codec raises ends nothing but these frames
                made.append(error)
            if isinstance(item, Note):
                made.append(item)
        return made

    def hand_on(self, made: Sequence[Made]) -> None:
        """Hand to the stream what `make` returned."""
        self._is_busy = False
        stream = self.stream
        for each in made:
            if self._is_stopped:
                return
            if isinstance(each, Note):
                self._tell(each)
            elif isinstance(each, Exception):
                stream.count_failure()
                logger.warning(
                    "audio of a channel could not be transcoded",
                    extra={**self._log_fields, "reason": str(each), "error": type(each).__name__},
                )
            else:
                stream.release(each)
        if self._items:
            self._wake(self)

    def drop_frames(self) -> None:
        """Drop the audio that waits. Notes and silence stay."""
        self._items = deque(item for item in self._items if not isinstance(item, Frame))
        self._held_flicks = 0

    def stop(self) -> None:
        """Drop what waits, and what is under way."""
        self._is_stopped = True
        self._items.clear()

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
        self._held_notes += 1
        if self._held_notes > MAX_NOTES:
            self._give_up()
        else:
            self._add(note)

    def _add(self, item: Item) -> None:
        self._items.append(item)
        if not self._is_busy:
            self._wake(self)

    def _make(self, item: Item) -> Iterator[Encoded]:
        programme = self._programme
        if isinstance(item, Frame):
            yield from programme.take(item)
        elif isinstance(item, Rest):
            yield from programme.rest(item.seconds, item.due)
        elif item.close is not None:
            yield from programme.end(self._clock())
        else:
            yield from programme.finish()
            if item.audio_format is not None:
                programme.begin_source(item.audio_format)

    def _tell(self, note: Note) -> None:
        """Tell listeners what concerns them. A change of the format does not: the programme keeps its own."""
        stream = self.stream
        if note.state is not None or note.clears or note.close is not None:
            told = Note(stream.place, state=note.state, silence=note.silence, clears=note.clears, close=note.close)
            stream.tell(told)
        if note.close is not None:
            self.stop()

    def _give_up(self) -> None:
        for listener in self.stream.listeners:
            listener.port.abort(f"Its stream was {MAX_NOTES} changes behind.", Limit.NOTES)
        self.stream.is_over = True
        self.stop()

    @property
    def _log_fields(self) -> dict[str, object]:
        return {**self.stream.names, "codec": self.stream.codec.value, "may_repeat": True}
