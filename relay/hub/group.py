"""The listeners of a channel that are served at the same moments with the same bytes.

Nearly all of them need, at any moment, exactly what the others need. These are *in step*: they stand at one place and
share one backlog. Serving one is a system call and a comparison; nothing of theirs is read or changed. A listener that
does not take a write whole, or has to be told something, is *lagging*: it has a place and a bounded queue of its own,
until it is owed what the others are owed.

Invariants:
- A listener in step is at the group's place, its queue and its notes are empty, and its socket takes data.
- While a batch is being written, `_in_step[:_cursor]` have got it and the others have not.
- A frame that is released goes into the backlog while any listener is in step, and into the queue of each that lags.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat

from relay.audio.amounts import AudioAmount, BufferCounters
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.listener_buffer import ListenerBuffer
from relay.hub.batch import Batch, Batches, Framing, count_for_one_write
from relay.hub.listener import LAGGING, Listener, Note
from relay.hub.port import Send
from relay.metrics.distribution import Distribution
from relay.metrics.vitals import Tally
from relay.vocabulary.audio import Frame, Place

_NOTHING = AudioAmount()


class Group:
    """The listeners of a channel with one framing and one coalescing interval.

    Attributes:
        send: Writes to the listeners' sinks.
        framing: What their binary messages are.
        coalesce_seconds: How long the first frame waits for those that join its write; 0 for not at all.
        place: Where the listeners in step are; while a batch is being written, those that have not got it.
        lagging: The others, each with its buffer.
        is_due: Whether a moment for the next turn is set already.
    """

    def __init__(
        self,
        manager: AudioBufferManager,
        tally: Tally,
        place: Place,
        *,
        send: Send,
        framing: Framing,
        coalesce_seconds: float,
    ) -> None:
        """Make an empty group at the channel's `place`; `manager` owns the queues."""
        self.send = send
        self.framing = framing
        self.coalesce_seconds = coalesce_seconds
        self.place = place
        self.lagging: dict[Listener, ListenerBuffer] = {}
        self.is_due = False
        self._manager = manager
        self._tally = tally
        self._backlog: list[Frame] = []
        self._in_step: list[Listener] = []
        self._sinks: list[object] = []
        self._batch: Batch | None = None
        self._cursor = 0
        self._written = _NOTHING
        self._least_bound_seconds = math.inf
        self._batch_bound_seconds = math.inf

    def __len__(self) -> int:
        """Give how many listeners it has."""
        return len(self._in_step) + len(self.lagging)

    def __iter__(self) -> Iterator[Listener]:
        """Give all its listeners."""
        return chain(self._in_step, self.lagging)

    @property
    def has_backlog(self) -> bool:
        """Whether frames wait for the next batch."""
        return bool(self._backlog)

    @property
    def end_at_rest(self) -> Place | None:
        """The channel's place, when nothing is being written and nothing waits to be."""
        return None if self._backlog or self._batch is not None else self.place

    def count_in(self, tally: Tally) -> None:
        """Count what becomes of frames in another tally from now on."""
        self._tally = tally

    def add(self, listener: Listener) -> None:
        """Take a listener in, whose queue holds what it owes."""
        self.lagging[listener] = listener.buffer

    def remove(self, listener: Listener) -> None:
        """Let a listener go; its buffer's counters are exact then."""
        self.let_lag(listener)
        del self.lagging[listener]

    def publish(self, frame: Frame, session: str) -> tuple[int, AudioAmount]:
        """Have a frame written to all listeners by the next turn.

        Returns:
            How many queues overflowed, and how much they dropped together.
        """
        if self._in_step or self._batch is not None:
            self._backlog.append(frame)
        else:
            self.place = frame.end
        if not self.lagging:
            return 0, _NOTHING
        overflowed, dropped = self._manager.fan_out(frame, self.lagging.values(), session)
        self._tally.dropped_frames += dropped.chunks
        return overflowed, dropped

    def tell(self, note: Note) -> None:
        """Have all listeners told something, each after the frames so far."""
        for listener in list(self._in_step):
            self.let_lag(listener)
        for listener in self.lagging:
            listener.add_note(note)
        if note.new_place is not None:
            self.place = note.new_place

    def let_lag(self, listener: Listener) -> None:
        """Give a listener in step a queue of its own; one that lags has one."""
        index = listener.index
        if index != LAGGING:
            self._take_out_of_step(listener, self._batch if index < self._cursor else None)

    def _take_out_of_step(self, listener: Listener, written: Batch | None) -> None:
        """Give a listener in step a queue of its own; `written` is what it got of the batch, None for nothing."""
        batch = self._batch
        self._take_out(listener.index)
        listener.place = self.place
        listener.buffer.count_taken(self._written - listener.written_before)
        written_frames = 0
        if batch is not None and written is not None:
            written_frames = len(written.frames)
            listener.place = written.end
            listener.buffer.count_taken(written.amount)
        self.lagging[listener] = listener.buffer
        owed = self._backlog if batch is None else chain(batch.frames[written_frames:], self._backlog)
        for frame in owed:
            _, dropped = self._manager.fan_out(frame, (listener.buffer,), listener.buffer.session_id)
            self._tally.dropped_frames += dropped.chunks
        self._skip_backlog_of_nobody()

    def bring_into_step(self, listener: Listener) -> bool:
        """Take a listener into step if it is owed what those in step are owed; tell whether it was taken."""
        if listener.place is not self.place or self._batch is not None or listener.notes:
            return False
        backlog = self._backlog
        if len(listener.frames) != len(backlog) or (backlog and listener.frames[0] is not backlog[0]):
            return False
        listener.buffer.hand_over()
        del self.lagging[listener]
        listener.index = len(self._in_step)
        self._in_step.append(listener)
        self._sinks.append(listener.sink)
        listener.written_before = self._written
        self._least_bound_seconds = min(self._least_bound_seconds, listener.bound_seconds)
        return True

    def drop_stale(self, listener: Listener, oldest: float) -> None:
        """Drop what is due before `oldest` from the queue of a listener that lags."""
        dropped = listener.buffer.drop_before(oldest)
        if dropped is not None:
            self._tally.dropped_frames += dropped.chunks

    def count_delivered(self, batch: Batch, now: float) -> None:
        """Count a batch that was written to a listener that lags."""
        self._tally.deliver(batch.amount.chunks, now - batch.due)

    def lags(self, now: float) -> Iterator[tuple[float, Listener]]:
        """Give for each listener how many seconds old the oldest frame is that it owes, 0 for none."""
        lags = chain.from_iterable(repeat(*lag) for lag in self._lags_in_step(now))
        yield from zip(lags, self._in_step, strict=True)
        for listener in self.lagging:
            yield _lag(listener.frames, now), listener

    def counters(self, listener: Listener) -> BufferCounters:
        """Give what became of the audio of one of its listeners, also while that is counted for the group."""
        counters = listener.buffer.counters
        if listener.index == LAGGING:
            return counters
        taken = counters.taken + (self._written - listener.written_before)
        if self._batch is not None and listener.index < self._cursor:
            taken += self._batch.amount
        return replace(counters, taken=taken)

    def note_lag(self, lag_ms: Distribution, now: float) -> None:
        """Count for each listener how old the oldest frame is that it owes; 0 for who owes none."""
        for lag, listeners in self._lags_in_step(now):
            lag_ms.note(lag * 1000, listeners)
        for listener in self.lagging:
            lag_ms.note(_lag(listener.frames, now) * 1000)

    def begin_batch(self, batches: Batches) -> bool:
        """Take the next frames of the backlog for the listeners in step; tell whether there are any."""
        if not self._backlog:
            return False
        count = count_for_one_write(self._backlog)
        self._batch = batches.join(self._backlog[:count], self.framing)
        del self._backlog[:count]
        self._cursor = 0
        self._batch_bound_seconds = self._least_bound_seconds
        return True

    def write_some(self, most: int, now: float) -> bool:
        """Write the batch to the next `most` listeners in step; tell whether there are others left.

        `now` is in seconds of the relay's clock.
        """
        batch = self._batch
        if batch is None:
            return False
        if now - batch.due > self._batch_bound_seconds:
            self._let_the_late_lag(now - batch.due)
        wire, wire_bytes = batch.wire, len(batch.wire)
        stop = min(self._cursor + most, len(self._sinks))
        while self._cursor < stop:
            first, taken = self._cursor, list[int]()
            try:
                # No bytecode between two system calls; one that fails leaves those before it in the list.
                taken.extend(map(self.send, self._sinks[first:stop], repeat(wire)))
            except OSError:
                taken.append(0)
            self._cursor += len(taken)
            whole = taken.count(wire_bytes)
            self._tally.deliver(whole * batch.amount.chunks, now - batch.due)
            if whole != len(taken):
                self._let_the_full_lag(batch, first, taken, now)
                stop = min(stop, len(self._sinks))
        return self._cursor < len(self._sinks)

    def finish_batch(self) -> None:
        """Note that all listeners in step have got the batch."""
        batch = self._batch
        if batch is None:
            return
        self._batch = None
        if self.place is batch.place:
            self.place = batch.end
        self._written += batch.amount
        self._skip_backlog_of_nobody()

    def _lags_in_step(self, now: float) -> list[tuple[float, int]]:
        """Give the lag of those who have got the batch and how many they are, then the same of the others."""
        waiting, batch = _lag(self._backlog, now), self._batch
        if batch is None:
            return [(waiting, len(self._in_step))]
        return [(waiting, self._cursor), (max(0.0, now - batch.due), len(self._in_step) - self._cursor)]

    def _let_the_full_lag(self, batch: Batch, first: int, taken: list[int], now: float) -> None:
        """Let those from `first` on lag whose sockets did not take all; they are owed what is not begun yet."""
        wire_bytes = len(batch.wire)
        short = [(self._in_step[first + index], count) for index, count in enumerate(taken) if count != wire_bytes]
        for listener, count in short:
            begun, rest = batch.begun(count)
            self._take_out_of_step(listener, begun)
            self.end_short_write(listener, begun, rest, now)

    def end_short_write(self, listener: Listener, begun: Batch | None, rest: bytes, now: float) -> None:
        """Complete the frame that a listener's socket took in part, count what it got, and wait until it takes more."""
        if begun is not None:
            self._tally.deliver(begun.amount.chunks, now - begun.due)
        if rest:
            listener.port.complete(rest)
        listener.port.await_room()

    def _let_the_late_lag(self, age: float) -> None:
        for listener in self._in_step[self._cursor :]:
            if listener.bound_seconds < age:
                self.let_lag(listener)
        self._batch_bound_seconds = min(
            (each.bound_seconds for each in self._in_step[self._cursor :]), default=math.inf
        )
        self._least_bound_seconds = min((each.bound_seconds for each in self._in_step), default=math.inf)

    def _skip_backlog_of_nobody(self) -> None:
        """Go to the channel's place when nobody is in step, so that those who lag can come back into it."""
        if self._backlog and not self._in_step and self._batch is None:
            self.place = self._backlog[-1].end
            self._backlog.clear()

    def _take_out(self, index: int) -> None:
        """Remove a listener in step without changing who has got the batch."""
        listener = self._in_step[index]
        if self._batch is not None and index < self._cursor:
            self._cursor -= 1
            self._move(self._cursor, index)
            index = self._cursor
        self._move(len(self._in_step) - 1, index)
        self._in_step.pop()
        self._sinks.pop()
        listener.index = LAGGING

    def _move(self, source: int, target: int) -> None:
        if source != target:
            moved = self._in_step[source]
            moved.index = target
            self._in_step[target] = moved
            self._sinks[target] = self._sinks[source]


def _lag(frames: Sequence[Frame], now: float) -> float:
    """Give how many seconds old the oldest of these frames is; 0 when there are none, or it is not due yet."""
    return max(0.0, now - frames[0].timestamp) if frames else 0.0
