"""A stream: the audio of a channel as its listeners receive it.

A channel numbers what its broadcaster sends. A stream has its own copy of that state, at the place that its listeners
have reached: the format, the next place, the recent audio, and why there is nothing to hear. A listener that joins or
resumes is told what its stream has, never what the channel is about to have.

Invariants: `place` is the end of the last frame that was distributed, or where the last format began. Frames and notes
reach all groups in the order in which they come.
"""

from collections.abc import Callable, Iterator

from relay.audio.amounts import AudioAmount
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.history import History
from relay.audio.timeline import Timeline
from relay.hub.batch import Framing
from relay.hub.group import Group
from relay.hub.listener import Listener, Note
from relay.hub.port import Send
from relay.metrics.vitals import Tally
from relay.vocabulary.audio import AudioFormat, Frame, Place
from relay.vocabulary.channel_states import ChannelState, Silence


class Stream:
    """The listeners of a channel, and what they receive.

    Args:
        place: The place of its first frame.
        tally: Counts the fate of the frames.
        session: The session of the channel, for metrics.
        manager: Owns the listeners' queues.
        send: Writes to the listeners' sinks.
        history_seconds: How much audio is kept for listeners that return.
        note_overflow: Called with the number of listeners' queues that overflowed, and their total loss.

    Attributes:
        place: The place of its next frame.
        audio_format: The format of that frame; None before the first broadcaster.
        state: The state of the channel, as its listeners know it.
        silence: Why there is nothing to hear; None if there is, or if unknown.
        history: The recent audio.
        groups: Its listeners, by framing and coalescing interval in milliseconds.
    """

    def __init__(
        self,
        place: Place,
        tally: Tally,
        *,
        session: str,
        manager: AudioBufferManager,
        send: Send,
        history_seconds: float,
        note_overflow: Callable[[int, AudioAmount], None],
    ) -> None:
        self.place = place
        self.audio_format: AudioFormat | None = None
        self.state = ChannelState.WAITING
        self.silence: Silence | None = None
        self.history = History(history_seconds)
        self.groups: dict[tuple[Framing, int], Group] = {}
        self._tally = tally
        self._session = session
        self._manager = manager
        self._send = send
        self._note_overflow = note_overflow

    @property
    def has_listeners(self) -> bool:
        """Whether it has listeners."""
        return bool(self.groups)

    @property
    def listeners(self) -> Iterator[Listener]:
        """All its listeners."""
        return (listener for group in self.groups.values() for listener in group)

    def restore(self, timeline: Timeline) -> None:
        """Continue the stream of a channel that was restored."""
        self.place, self.audio_format = timeline.place, timeline.audio_format
        self.state, self.silence = timeline.state, timeline.silence
        self.history.restore_numbers(timeline.history.export_numbers())

    def distribute(self, frame: Frame) -> None:
        """Hand the frame that starts at `place` to the history and to all listeners, on their next turns."""
        self.place = frame.end
        self.history.add(frame)
        for group in self.groups.values():
            overflowed, dropped = group.publish(frame, self._session)
            if overflowed:
                self._note_overflow(overflowed, dropped)

    def tell(self, note: Note) -> None:
        """Apply a note, and send it to all listeners after the frames so far."""
        if note.state is not None:
            self.state, self.silence = note.state, note.silence
        if note.audio_format is not None and note.new_place is not None:
            self.audio_format, self.place = note.audio_format, note.new_place
            self.history.begin_epoch(note.audio_format, note.place, note.new_place)
        if note.clears:
            self.history.clear()
        for group in self.groups.values():
            group.tell(note)

    def count_in(self, tally: Tally) -> None:
        """Count the fate of frames in another tally from now on."""
        self._tally = tally
        for group in self.groups.values():
            group.count_in(tally)

    def add(self, listener: Listener, coalesce_ms: int) -> Group:
        """Add a listener, and return its group."""
        key = (listener.framing, coalesce_ms)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(
                self._manager,
                self._tally,
                self.place,
                send=self._send,
                framing=listener.framing,
                coalesce_seconds=coalesce_ms / 1000,
            )
        group.add(listener)
        return group

    def remove(self, listener: Listener, group: Group) -> None:
        """Remove a listener from its group, and drop the group if it is empty."""
        group.remove(listener)
        if not group:
            # Replaced, not changed: a loop over the groups may be under way.
            self.groups = {key: kept for key, kept in self.groups.items() if kept is not group}
