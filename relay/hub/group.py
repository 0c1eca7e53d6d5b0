"""The listeners of a channel that are served at the same moments with the same bytes.

Nearly all of them need, at any moment, exactly what the others need. These are *current*: they stand at one place,
share one backlog, and serving one is a system call and a comparison; nothing of theirs is read or changed. Whoever
does not take a write whole, or has something to be told, is *apart*: it has a place and a bounded queue of its own,
and comes back when it owes what the others owe.

Invariants:
- A current listener's place is the group's, its queue and its notes are empty, its socket takes data.
- While a run is being written, `_current[:_cursor]` have got it and the others have not.
- What is released is in the backlog while anybody is current, and in the queue of everybody who is apart.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat

from relay.audio.amounts import AudioAmount, BufferCounters
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.listener_buffer import ListenerBuffer
from relay.hub.listener import APART, Listener, Note, Send
from relay.hub.run import Framing, Run, Runs, count_for_one_write
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
        place: Where the current listeners stand; while a run is being written, those that have not got it.
        apart: The others, each with its buffer.
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
        self.apart: dict[Listener, ListenerBuffer] = {}
        self.is_due = False
        self._manager = manager
        self._tally = tally
        self._backlog: list[Frame] = []
        self._current: list[Listener] = []
        self._sinks: list[object] = []
        self._run: Run | None = None
        self._cursor = 0
        self._written = _NOTHING
        self._least_bound_seconds = math.inf
        self._run_bound_seconds = math.inf

    def __len__(self) -> int:
        """Give how many listeners it has."""
        return len(self._current) + len(self.apart)

    def __iter__(self) -> Iterator[Listener]:
        """Give all its listeners."""
        return chain(self._current, self.apart)

    @property
    def has_backlog(self) -> bool:
        """Whether frames wait for the next run."""
        return bool(self._backlog)

    @property
    def end_at_rest(self) -> Place | None:
        """The channel's place, when nothing is being written and nothing waits to be."""
        return None if self._backlog or self._run is not None else self.place

    def count_in(self, tally: Tally) -> None:
        """Count what becomes of frames in another tally from now on."""
        self._tally = tally

    def add(self, listener: Listener) -> None:
        """Take a listener in, whose queue holds what it owes."""
        self.apart[listener] = listener.buffer

    def remove(self, listener: Listener) -> None:
        """Let a listener go; its buffer's counters are exact then."""
        self.set_apart(listener)
        del self.apart[listener]

    def publish(self, frame: Frame, session: str) -> tuple[int, AudioAmount]:
        """Have a frame written to all listeners by the next turn.

        Returns:
            How many queues overflowed, and how much they dropped together.
        """
        if self._current or self._run is not None:
            self._backlog.append(frame)
        else:
            self.place = frame.end
        if not self.apart:
            return 0, _NOTHING
        overflowed, dropped = self._manager.fan_out(frame, self.apart.values(), session)
        self._tally.dropped_frames += dropped.chunks
        return overflowed, dropped

    def tell(self, note: Note) -> None:
        """Have all listeners told something, each after the frames so far."""
        for listener in list(self._current):
            self.set_apart(listener)
        for listener in self.apart:
            listener.add_note(note)
        if note.new_place is not None:
            self.place = note.new_place

    def set_apart(self, listener: Listener) -> None:
        """Give a current listener a queue of its own; nothing when it has one."""
        index = listener.index
        if index != APART:
            self._set_apart(listener, self._run if index < self._cursor else None)

    def _set_apart(self, listener: Listener, written: Run | None) -> None:
        """Give a current listener a queue of its own, which was written this beginning of the run; None for nothing."""
        run = self._run
        self._take_out(listener.index)
        listener.place = self.place
        listener.buffer.count_taken(self._written - listener.written_before)
        written_frames = 0
        if run is not None and written is not None:
            written_frames = len(written.frames)
            listener.place = written.end
            listener.buffer.count_taken(written.amount)
        self.apart[listener] = listener.buffer
        owed = self._backlog if run is None else chain(run.frames[written_frames:], self._backlog)
        for frame in owed:
            _, dropped = self._manager.fan_out(frame, (listener.buffer,), listener.buffer.session_id)
            self._tally.dropped_frames += dropped.chunks
        self._skip_backlog_of_nobody()

    def take_back(self, listener: Listener) -> bool:
        """Make a listener current when it owes what the current ones owe; tell whether it did."""
        if listener.place is not self.place or self._run is not None or listener.notes:
            return False
        backlog = self._backlog
        if len(listener.frames) != len(backlog) or (backlog and listener.frames[0] is not backlog[0]):
            return False
        listener.buffer.hand_over()
        del self.apart[listener]
        listener.index = len(self._current)
        self._current.append(listener)
        self._sinks.append(listener.sink)
        listener.written_before = self._written
        self._least_bound_seconds = min(self._least_bound_seconds, listener.bound_seconds)
        return True

    def drop_stale(self, listener: Listener, oldest: float) -> None:
        """Drop what is due before `oldest` from the queue of a listener that is apart."""
        dropped = listener.buffer.drop_before(oldest)
        if dropped is not None:
            self._tally.dropped_frames += dropped.chunks

    def count_delivered(self, run: Run, now: float) -> None:
        """Count a run that was written to a listener that is apart."""
        self._tally.deliver(run.amount.chunks, now - run.due)

    def lags(self, now: float) -> Iterator[tuple[float, Listener]]:
        """Give for each listener how many seconds old the oldest frame is that it owes, 0 for none."""
        lags = chain.from_iterable(repeat(*lag) for lag in self._lags_of_current(now))
        yield from zip(lags, self._current, strict=True)
        for listener in self.apart:
            yield _lag(listener.frames, now), listener

    def counters(self, listener: Listener) -> BufferCounters:
        """Give what became of the audio of one of its listeners, also while that is counted for the group."""
        counters = listener.buffer.counters
        if listener.index == APART:
            return counters
        taken = counters.taken + (self._written - listener.written_before)
        if self._run is not None and listener.index < self._cursor:
            taken += self._run.amount
        return replace(counters, taken=taken)

    def note_lag(self, lag_ms: Distribution, now: float) -> None:
        """Count for each listener how old the oldest frame is that it owes; 0 for who owes none."""
        for lag, listeners in self._lags_of_current(now):
            lag_ms.note(lag * 1000, listeners)
        for listener in self.apart:
            lag_ms.note(_lag(listener.frames, now) * 1000)

    def begin_run(self, runs: Runs) -> bool:
        """Take the next frames of the backlog to be written to the current listeners; tell whether there are any."""
        if not self._backlog:
            return False
        count = count_for_one_write(self._backlog)
        self._run = runs.join(self._backlog[:count], self.framing)
        del self._backlog[:count]
        self._cursor = 0
        self._run_bound_seconds = self._least_bound_seconds
        return True

    def write_some(self, most: int, now: float) -> bool:
        """Write the run to the next `most` current listeners; tell whether there are others left.

        `now` is in seconds of the relay's clock.
        """
        run = self._run
        if run is None:
            return False
        if now - run.due > self._run_bound_seconds:
            self._set_apart_for_whom_it_is_stale(now - run.due)
        wire, wire_bytes = run.wire, len(run.wire)
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
            self._tally.deliver(whole * run.amount.chunks, now - run.due)
            if whole != len(taken):
                self._set_apart_who_are_full(run, first, taken, now)
                stop = min(stop, len(self._sinks))
        return self._cursor < len(self._sinks)

    def finish_run(self) -> None:
        """Note that all current listeners have got the run."""
        run = self._run
        if run is None:
            return
        self._run = None
        if self.place is run.place:
            self.place = run.end
        self._written += run.amount
        self._skip_backlog_of_nobody()

    def _lags_of_current(self, now: float) -> list[tuple[float, int]]:
        """Give the lag of those who have got the run and how many they are, then the same of the others."""
        waiting, run = _lag(self._backlog, now), self._run
        if run is None:
            return [(waiting, len(self._current))]
        return [(waiting, self._cursor), (max(0.0, now - run.due), len(self._current) - self._cursor)]

    def _set_apart_who_are_full(self, run: Run, first: int, taken: list[int], now: float) -> None:
        """Set apart, of those from `first` on, whose sockets did not take all; they owe what is not begun yet."""
        wire_bytes = len(run.wire)
        short = [(self._current[first + index], count) for index, count in enumerate(taken) if count != wire_bytes]
        for listener, count in short:
            begun, rest = run.begun(count)
            self._set_apart(listener, begun)
            self.end_short_write(listener, begun, rest, now)

    def end_short_write(self, listener: Listener, begun: Run | None, rest: bytes, now: float) -> None:
        """Complete the frame that a listener's socket took in part, count what it got, and wait until it takes more."""
        if begun is not None:
            self._tally.deliver(begun.amount.chunks, now - begun.due)
        if rest:
            listener.port.complete(rest)
        listener.port.await_room()

    def _set_apart_for_whom_it_is_stale(self, age: float) -> None:
        for listener in self._current[self._cursor :]:
            if listener.bound_seconds < age:
                self.set_apart(listener)
        self._run_bound_seconds = min((each.bound_seconds for each in self._current[self._cursor :]), default=math.inf)
        self._least_bound_seconds = min((each.bound_seconds for each in self._current), default=math.inf)

    def _skip_backlog_of_nobody(self) -> None:
        """Go to the channel's place when nobody is current, so that those who are apart can come back."""
        if self._backlog and not self._current and self._run is None:
            self.place = self._backlog[-1].end
            self._backlog.clear()

    def _take_out(self, index: int) -> None:
        """Remove a current listener without changing who has got the run."""
        listener = self._current[index]
        if self._run is not None and index < self._cursor:
            self._cursor -= 1
            self._move(self._cursor, index)
            index = self._cursor
        self._move(len(self._current) - 1, index)
        self._current.pop()
        self._sinks.pop()
        listener.index = APART

    def _move(self, source: int, target: int) -> None:
        if source != target:
            moved = self._current[source]
            moved.index = target
            self._current[target] = moved
            self._sinks[target] = self._sinks[source]


def _lag(frames: Sequence[Frame], now: float) -> float:
    """Give how many seconds old the oldest of these frames is; 0 when there are none, or it is not due yet."""
    return max(0.0, now - frames[0].timestamp) if frames else 0.0
