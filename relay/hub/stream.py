"""A stream: the audio of a channel in one codec, as its listeners receive it.

A channel numbers what its broadcaster sends. A stream has its own copy of that state, at the place that its listeners
have reached: the format, the next place, the recent audio, and why there is nothing to hear. A listener that joins or
resumes therefore gets the state of its stream. The channel may be ahead of it.

The channel hands its frames directly to the stream of its own codec. Any other stream has a feed, which makes its
frames of the channel's.

Invariants: `place` is the end of the last frame that was distributed, or the end of a hole, or where the last format
began. Frames and notes reach all groups in the order in which they come.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from typing import Protocol

from relay.audio.amounts import AudioAmount
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.history import History, Known
from relay.audio.timeline import Timeline, number
from relay.hub.framing import Framing
from relay.hub.group import Group
from relay.hub.listener import Listener, Note
from relay.hub.port import Send
from relay.hub.rendition import Kind, Renditions
from relay.media.transcoding import Encoded
from relay.metrics.vitals import Tally
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame, Piece, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.names import ChannelAddress


class StreamFeed(Protocol):
    """Makes a stream's frames of the frames of its channel."""

    @property
    def held_bytes(self) -> int:
        """Bytes of audio that wait."""
        ...

    def put(self, item: Frame | Note) -> None:
        """Add a frame or a note of the channel."""
        ...

    def make_room(self, seconds: float) -> None:
        """Hold so much more audio, because it is released before its time."""
        ...

    def drop_frames(self) -> None:
        """Drop the audio that waits. Notes stay."""
        ...

    def stop(self) -> None:
        """Drop what waits, and what is under way."""
        ...


class Stream:
    """The listeners of a channel with one codec, and what they receive.

    Args:
        codec: Its codec, or the container of a programme.
        place: The place of its first frame.
        tally: Counts the fate of the frames.
        address: The address of the channel.
        manager: Owns the listeners' queues.
        serialize: Makes the complete WebSocket message of a binary payload.
        send: Writes to the listeners' sinks.
        history_seconds: How much audio is kept for listeners that return.
        note_overflow: Called with the number of listeners' queues that overflowed, and their total loss.

    Attributes:
        codec: Its codec.
        place: The place of its next frame.
        audio_format: The format of that frame; None before the first broadcaster.
        state: The state of the channel, as its listeners know it.
        silence: Why there is nothing to hear; None if there is, or if unknown.
        history: The recent audio.
        groups: Its listeners, by framing and coalescing interval in milliseconds.
        feed: Makes its frames; None while the channel's own frames are handed to it.
        is_over: Whether it gets no more audio, although its channel goes on. Its listeners are being disconnected.
        unheard_since: Since when it has no listeners, in seconds of the relay's clock; None while it has some.
    """

    def __init__(
        self,
        codec: Kind,
        place: Place,
        tally: Tally,
        *,
        address: ChannelAddress,
        serialize: Callable[[bytes], bytes],
        manager: AudioBufferManager,
        send: Send,
        history_seconds: float,
        note_overflow: Callable[[int, AudioAmount], None],
    ) -> None:
        self.codec = codec
        self.place = place
        self.audio_format: AudioFormat | None = None
        self.state = ChannelState.WAITING
        self.silence: Silence | None = None
        self.history = History(history_seconds)
        self.groups: dict[tuple[Framing, int], Group] = {}
        self.feed: StreamFeed | None = None
        self.is_over = False
        self.unheard_since: float | None = None
        self._due = -math.inf
        self._tally = tally
        self._address = address
        self._serialize = serialize
        self._manager = manager
        self._send = send
        self._note_overflow = note_overflow

    @property
    def listener_count(self) -> int:
        """The number of its listeners."""
        return sum(map(len, self.groups.values()))

    @property
    def listeners(self) -> Iterator[Listener]:
        """All its listeners."""
        return (listener for group in self.groups.values() for listener in group)

    @property
    def names(self) -> dict[str, str]:
        """The names of its channel, for the log."""
        return {"session": self._address.session, "channel": self._address.channel}

    def imitate(self, timeline: Timeline, renditions: Renditions) -> None:
        """Take over the state and the numbers of a channel, as they are in this codec. Call it on a new stream."""
        self.state, self.silence = timeline.state, timeline.silence
        if self.state is ChannelState.ENDED:
            # The end comes behind the audio that the stream begins with.
            self.state = ChannelState.LIVE
        history, before = timeline.history, self.place
        stretches = history.stretches(timeline.place)
        for epoch, following in zip_longest(history.epochs, islice(history.epochs, 1, None)):
            rendition = renditions.find(epoch.audio_format, self.codec)
            if rendition is None:
                continue
            start = rendition.place(epoch.start)
            if following is not None:
                end = rendition.end(following.before)
            elif timeline.state is ChannelState.LIVE:
                end = rendition.place(timeline.place)
            else:
                end = rendition.end(timeline.place)
            self.history.begin_epoch(rendition.audio_format, before if self.history.epochs else start, start)
            for first, last, ticks in rendition.stretches(
                start, end, (each[1:] for each in stretches if each[0] is epoch)
            ):
                self.history.know(first, last, ticks)
            self.audio_format, self.place, before = rendition.audio_format, end, end

    def go_back(self, known: Known) -> None:
        """Begin at an earlier place. Call it on a new stream."""
        self.place, self.audio_format = known.place, known.epoch.audio_format
        self.history.forget_epochs_after(known.epoch)

    def begin_programme(self, audio_format: AudioFormat, timeline: Timeline) -> None:
        """Begin with numbers of its own. Call it on a new stream."""
        self.state, self.silence = timeline.state, timeline.silence
        self.audio_format = audio_format
        self.history.begin_epoch(audio_format, self.place, self.place)

    def put(self, item: Frame | Note) -> None:
        """Take the channel's next frame or note, at once or through the feed."""
        if self.feed is not None:
            self.feed.put(item)
        elif isinstance(item, Frame):
            self.distribute(item)
        else:
            self.tell(item)

    def release(self, encoded: Encoded) -> None:
        """Number the next frame and distribute it. It starts at `place`."""
        assert self.audio_format is not None  # noqa: S101 - frames come after their format
        flicks = encoded.ticks * FLICKS_PER_SECOND // self.audio_format.clock_rate
        piece = Piece(encoded.audio, encoded.ticks, flicks)
        # The frame with which an encoder's last sound can be heard is due later than the audio that follows it.
        self._due = max(encoded.due, self._due)
        self.distribute(number(piece, self.place, self._due, self._serialize))

    def drop_history(self) -> None:
        """Drop the audio that it keeps and that waits in its feed. Its numbers stay known."""
        self.history.clear()
        if self.feed is not None:
            self.feed.drop_frames()

    def count_failure(self) -> None:
        """Count a frame of the channel of which no frames could be made."""
        self._tally.transcoding_failures += 1

    def count_unmade(self, frames: int) -> None:
        """Count frames of the channel that are missing in the stream."""
        self._tally.unmade_frames += frames

    def leave_hole(self, place: Place) -> None:
        """Go on at a later place. A gap tells each listener what it misses."""
        missing = place.position - self.place.position
        self._tally.unmade_frames += missing
        self._tally.dropped_frames += missing * self.listener_count
        self.history.know_hole(self.place, place)
        self.skip(place)

    def skip(self, place: Place) -> None:
        """Go on at `place`."""
        self.place = place
        for group in self.groups.values():
            group.skip(place)

    def distribute(self, frame: Frame) -> None:
        """Hand the frame that starts at `place` to the history and to all listeners, on their next turns."""
        self.place = frame.end
        self.history.add(frame)
        for group in self.groups.values():
            overflowed, dropped = group.publish(frame, self._address.session)
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
            self._due = -math.inf
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
                self.codec,
                self._manager,
                self._tally,
                self.place,
                send=self._send,
                framing=listener.framing,
                coalesce_seconds=coalesce_ms / 1000,
            )
        group.add(listener)
        self.unheard_since = None
        return group

    def remove(self, listener: Listener, group: Group) -> None:
        """Remove a listener from its group, and drop the group if it is empty."""
        group.remove(listener)
        if not group:
            # Replaced, not changed: a loop over the groups may be under way.
            self.groups = {key: kept for key, kept in self.groups.items() if kept is not group}
