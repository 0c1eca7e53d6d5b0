"""A group: the listeners of a channel that are served at the same moments with the same bytes.

At any moment, nearly all of them need exactly the same data. These listeners are *in step*: they are at one place and
share one backlog. Serving one takes a system call and a comparison, and none of its state is read or changed. A
listener that does not take a whole write, or that is owed a note, is *lagging*. It has its own place and its own
bounded queue until it is owed the same as the others.

Invariants:
- A listener in step is at the group's place, its queue and its notes are empty, and its socket takes data.
- While a batch is being written, the listeners in `_in_step[:_cursor]` have received it and the others have not.
- A released frame enters the backlog while any listener is in step, and the queue of each lagging listener.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat

from relay.audio.amounts import AudioAmount, BufferCounters
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.listener_buffer import ListenerBuffer
from relay.hub.batch import Batch, Batches, count_for_one_write
from relay.hub.framing import Framing
from relay.hub.listener import LAGGING, Listener, Note
from relay.hub.port import Send
from relay.hub.rendition import Kind
from relay.metrics.distribution import Distribution
from relay.metrics.vitals import Tally
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame, Place

_NOTHING = AudioAmount()


class Group:
    """The listeners of a stream with one framing and one coalescing interval.

    Args:
        codec: The codec or container of its stream.
        manager: Owns the listeners' queues.
        tally: Counts the fate of the frames.

    Attributes:
        send: Writes to the listeners' sinks.
        framing: The form of their binary messages.
        coalesce_seconds: How long the first frame of a write waits for others; 0 for no wait. A framing that gathers
            frames may wait longer.
        place: The place of the listeners in step. During a write, it is the place of those still without the batch.
        lagging: The lagging listeners, each with its buffer.
        is_due: Whether the next turn is scheduled.
    """

    def __init__(
        self,
        codec: Kind,
        manager: AudioBufferManager,
        tally: Tally,
        place: Place,
        *,
        send: Send,
        framing: Framing,
        coalesce_seconds: float,
    ) -> None:
        self.send = send
        self.framing = framing
        self.coalesce_seconds = coalesce_seconds
        self.place = place
        self.lagging: dict[Listener, ListenerBuffer] = {}
        self.is_due = False
        self._codec = codec
        self._manager = manager
        self._tally = tally
        self._message_flicks = framing.message_flicks
        self._frame_flicks = self._gathered_flicks = 0
        self._backlog: list[Frame] = []
        self._in_step: list[Listener] = []
        self._sinks: list[object] = []
        self._batch: Batch | None = None
        self._cursor = 0
        self._written = _NOTHING
        self._least_bound_seconds = math.inf
        self._batch_bound_seconds = math.inf

    def __len__(self) -> int:
        return len(self._in_step) + len(self.lagging)

    def __iter__(self) -> Iterator[Listener]:
        return chain(self._in_step, self.lagging)

    @property
    def has_backlog(self) -> bool:
        """Whether frames wait for the next batch."""
        return bool(self._backlog)

    @property
    def wait_seconds(self) -> float:
        """How long the next write waits for more frames."""
        if not self._message_flicks:
            return self.coalesce_seconds
        is_full = self._gathered_flicks + self._frame_flicks > self._message_flicks
        gather_seconds = 0.0 if is_full else (self._message_flicks - self._frame_flicks) / FLICKS_PER_SECOND
        return max(self.coalesce_seconds, gather_seconds)

    @property
    def end_at_rest(self) -> Place | None:
        """The channel's place; None while a batch is being written or frames wait."""
        return None if self._backlog or self._batch is not None else self.place

    def count_in(self, tally: Tally) -> None:
        """Count the fate of frames in another tally from now on."""
        self._tally = tally

    def add(self, listener: Listener) -> None:
        """Add a listener whose queue holds what it is owed."""
        self.lagging[listener] = listener.buffer

    def remove(self, listener: Listener) -> None:
        """Remove a listener. Its buffer's counters are exact afterwards."""
        self.let_lag(listener)
        del self.lagging[listener]

    def publish(self, frame: Frame, session: str) -> tuple[int, AudioAmount]:
        """Queue a frame for all listeners. The next turn writes it.

        Returns:
            How many queues overflowed, and how much they dropped in total.
        """
        self._frame_flicks = frame.duration
        self._gathered_flicks += frame.duration
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
        """Queue a note for all listeners, after the frames so far."""
        for listener in list(self._in_step):
            self.let_lag(listener)
        for listener in self.lagging:
            listener.add_note(note)
        if note.new_place is not None:
            self._go_on_at(note.new_place)

    def skip(self, place: Place) -> None:
        """Leave a hole: the next frame starts at `place`. A gap will tell each listener."""
        for listener in list(self._in_step):
            self.let_lag(listener)
        self._go_on_at(place)

    def _go_on_at(self, place: Place) -> None:
        """Go on at a place that the frames so far do not lead to. All listeners lag, so each queue has its backlog."""
        self.place = place
        self._backlog.clear()

    def let_lag(self, listener: Listener) -> None:
        """Move a listener in step to a queue of its own. A lagging listener stays as it is."""
        index = listener.index
        if index != LAGGING:
            self._take_out_of_step(listener, self._batch if index < self._cursor else None)

    def _take_out_of_step(self, listener: Listener, written: Batch | None) -> None:
        """Move a listener in step to its own queue. `written` is the part of the batch that it received, or None."""
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
        """Take a listener into step if it is owed the same as the others. Return whether it was taken."""
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
        """Drop the frames due before `oldest` from the queue of a lagging listener."""
        dropped = listener.buffer.drop_before(oldest)
        if dropped is not None:
            self._tally.dropped_frames += dropped.chunks

    def count_delivered(self, batch: Batch, now: float) -> None:
        """Count a batch that was written to a lagging listener."""
        self._tally.deliver(batch.amount.chunks, len(batch.wire), now - batch.due, self._codec)

    def lags(self, now: float) -> Iterator[tuple[float, Listener]]:
        """Yield each listener with the age in seconds of the oldest frame that it is owed, 0 for none."""
        lags = chain.from_iterable(repeat(*lag) for lag in self._lags_in_step(now))
        yield from zip(lags, self._in_step, strict=True)
        for listener in self.lagging:
            yield _lag(listener.frames, now), listener

    def counters(self, listener: Listener) -> BufferCounters:
        """Return a listener's counters, including what is counted for the whole group so far."""
        counters = listener.buffer.counters
        if listener.index == LAGGING:
            return counters
        taken = counters.taken + (self._written - listener.written_before)
        if self._batch is not None and listener.index < self._cursor:
            taken += self._batch.amount
        return replace(counters, taken=taken)

    def note_lag(self, lag_ms: Distribution, now: float) -> None:
        """Record for each listener the age of the oldest frame that it is owed, 0 for none."""
        for lag, listeners in self._lags_in_step(now):
            lag_ms.note(lag * 1000, listeners)
        for listener in self.lagging:
            lag_ms.note(_lag(listener.frames, now) * 1000)

    def begin_batch(self, batches: Batches) -> bool:
        """Start a batch of the oldest backlog for the listeners in step. Return whether there is one."""
        self._gathered_flicks = 0
        if not self._backlog:
            return False
        count = count_for_one_write(self._backlog)
        self._batch = batches.join(self._backlog[:count], self.framing)
        del self._backlog[:count]
        self._cursor = 0
        self._batch_bound_seconds = self._least_bound_seconds
        return True

    def write_some(self, most: int, now: float) -> bool:
        """Write the batch to the next `most` listeners in step, at `now` (seconds). Return whether there are more."""
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
                # No bytecode runs between two system calls. If one fails, the list has the results of those before it.
                taken.extend(map(self.send, self._sinks[first:stop], repeat(wire)))
            except OSError:
                taken.append(0)
            self._cursor += len(taken)
            whole = taken.count(wire_bytes)
            self._tally.deliver(whole * batch.amount.chunks, whole * wire_bytes, now - batch.due, self._codec)
            if whole != len(taken):
                self._let_the_full_lag(batch, first, taken, now)
                stop = min(stop, len(self._sinks))
        return self._cursor < len(self._sinks)

    def finish_batch(self) -> None:
        """Complete the batch after all listeners in step received it."""
        batch = self._batch
        if batch is None:
            return
        self._batch = None
        if self.place is batch.place:
            self.place = batch.end
        self._written += batch.amount
        self._skip_backlog_of_nobody()

    def _lags_in_step(self, now: float) -> list[tuple[float, int]]:
        """Return lag and number of the listeners that received the batch, then of those that did not."""
        waiting, batch = _lag(self._backlog, now), self._batch
        if batch is None:
            return [(waiting, len(self._in_step))]
        return [(waiting, self._cursor), (max(0.0, now - batch.due), len(self._in_step) - self._cursor)]

    def _let_the_full_lag(self, batch: Batch, first: int, taken: list[int], now: float) -> None:
        """Move listeners with partial writes, from index `first` on, to their own queues with what was not started."""
        wire_bytes = len(batch.wire)
        short = [(self._in_step[first + index], count) for index, count in enumerate(taken) if count != wire_bytes]
        for listener, count in short:
            begun, rest = batch.begun(count)
            self._take_out_of_step(listener, begun)
            self.end_short_write(listener, begun, rest, now)

    def end_short_write(self, listener: Listener, begun: Batch | None, rest: bytes, now: float) -> None:
        """Complete a started frame, count what the listener received, and wait until its socket takes more data."""
        if begun is not None:
            self._tally.deliver(begun.amount.chunks, len(begun.wire), now - begun.due, self._codec)
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
        """If no listener is in step, move to the channel's place so that lagging listeners can come into step."""
        if self._backlog and not self._in_step and self._batch is None:
            self.place = self._backlog[-1].end
            self._backlog.clear()

    def _take_out(self, index: int) -> None:
        """Remove a listener in step. Swap others so that `_cursor` still separates those with and without the batch."""
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
    """Return the age of the oldest frame in seconds; 0 if there is none or it is not due yet."""
    return max(0.0, now - frames[0].timestamp) if frames else 0.0
