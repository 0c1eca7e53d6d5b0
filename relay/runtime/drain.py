"""The drain task: takes frames from the listeners' buffers to their sockets, as fast as each socket takes them.

Invariants: no `await` per listener; a listener whose socket does not take data is left alone until it does; audio
older than a listener's bound is not written; frames that queued up are joined once for all listeners that have
the same run, and a joined write carries at most `MAX_WRITE_SECONDS` of audio, so a slow socket commits the relay
to little. A pass gives way to the rest of the event loop every `SLICE_SECONDS`.

Why one task: when a pass takes longer than a frame lasts, the next pass finds two frames in each buffer and
writes them as one, so the cost of a frame falls as the load rises.

Nearly every listener of a pass needs exactly what the one before it needed. `_Pass.serve` open-codes that case;
`_Pass.serve_apart` is the whole rule.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

from relay.runtime.listener import Framing, Listener
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame, Place
from relay.vocabulary.clock import Clock

MAX_WRITE_SECONDS = 0.25
"""The audio of one write; what is under way can not be taken back when it grows old."""

SLICE_SECONDS = 0.002
"""How long a pass may keep the event loop from ingest, handshakes and control messages."""

_BATCH = 16
"""Listeners between two looks at the clock; each costs some ten microseconds."""

_MAX_WRITE_FLICKS = round(MAX_WRITE_SECONDS * FLICKS_PER_SECOND)


class Drain:
    """One pass after another over the listeners that have something to get."""

    def __init__(self, clock: Clock, serialize: Callable[[bytes], bytes]) -> None:
        """Make a drain; `run` is its task.

        Args:
            clock: Gives seconds, the same as the frames' due times.
            serialize: Makes the complete WebSocket message of a binary payload, for raw framing.
        """
        self._clock = clock
        self._serialize = serialize
        self._ready: dict[int, Mapping[Listener, object]] = {}
        self._wake = asyncio.Event()

    def wake(self, listeners: Mapping[Listener, object]) -> None:
        """Note that these listeners (the keys) have something to get, or can take something again.

        Who is among them is looked up when they are served.
        """
        self._ready[id(listeners)] = listeners
        self._wake.set()

    async def run(self) -> None:
        """Serve listeners for ever; cancellation leaves every buffer consistent."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ready, self._ready = self._ready, {}
            listeners = tuple(chain.from_iterable(ready.values()))
            one_pass = _Pass(self._clock, self._serialize)
            slice_end = self._clock() + SLICE_SECONDS
            for start in range(0, len(listeners), _BATCH):
                now = one_pass.serve(listeners[start : start + _BATCH])
                if now > slice_end:
                    await asyncio.sleep(0)
                    slice_end = self._clock() + SLICE_SECONDS


class _Run:
    """Consecutive frames, joined for one framing.

    Attributes:
        first: The oldest of them; kept here, so that its id is not given to another frame.
        count: How many they are.
        size: Bytes of their audio.
        duration: Their duration in flicks.
        place: Before the first.
        end: After the last.
        wire: What is written.
    """

    __slots__ = ("count", "duration", "end", "first", "place", "size", "wire")

    def __init__(self, frames: Sequence[Frame], wire: bytes) -> None:
        self.first = frames[0]
        self.count = len(frames)
        self.size = sum(len(frame[0]) for frame in frames)
        self.duration = sum(frame.duration for frame in frames)
        self.place: Place = frames[0].start
        self.end: Place = frames[-1].end
        self.wire = wire


class _Pass:
    """What the listeners of one pass share: the runs that were joined."""

    def __init__(self, clock: Clock, serialize: Callable[[bytes], bytes]) -> None:
        self._clock = clock
        self._serialize = serialize
        self._runs: dict[tuple[int, int, Framing], _Run] = {}
        self._latest: _Run | None = None
        self._latest_framing = Framing.RELAY_V1

    def serve(self, listeners: Sequence[Listener]) -> float:
        """Write to each listener all that its socket takes now; gives the time at the beginning."""
        now = self._clock()
        run, framing = self._latest, self._latest_framing
        if run is None:
            for listener in listeners:
                self.serve_apart(listener)
            return now
        first, count, place, end, wire = run.first, run.count, run.place, run.end, run.wire
        size, duration, age, wire_bytes = run.size, run.duration, now - first[1], len(run.wire)
        for listener in listeners:
            frames = listener.frames
            if (
                listener.place is place
                and len(frames) == count
                and frames[0] is first
                and listener.blocked_since is None
                and listener.framing is framing
                and not listener.notes
                and age <= listener.bound_seconds
            ):
                listener.place = end
                listener.buffer.take_all(count, size, duration)
                try:
                    written = listener.write(wire)
                except OSError:
                    written = 0
                if written != wire_bytes:
                    listener.port.write_rest(wire[written:])
            else:
                self.serve_apart(listener)
        return now

    def serve_apart(self, listener: Listener) -> None:
        """Write to one listener all that its socket takes now, whatever it has to get."""
        frames, notes = listener.frames, listener.notes
        while listener.blocked_since is None and (frames or notes):
            if frames and frames[0][1] < (oldest := self._clock() - listener.bound_seconds):
                listener.buffer.drop_before(oldest)
            elif notes and (not frames or frames[0].start.position >= notes[0].place.position):
                listener.tell_next_note()
            elif frames[0].start is listener.place:
                run = self._run_of(listener)
                listener.place = run.end
                listener.buffer.take(run.count)
                try:
                    written = listener.write(run.wire)
                except OSError:
                    written = 0
                if written != len(run.wire):
                    listener.port.write_rest(run.wire[written:])
            else:
                listener.tell_gap(frames[0].start)

    def _run_of(self, listener: Listener) -> _Run:
        """Give the oldest frames of a listener that go into one write."""
        frames = listener.frames
        count = listener.buffer.count_within(_MAX_WRITE_FLICKS)
        if listener.notes:
            count = min(count, listener.notes[0].place.position - listener.place.position)
        key = (id(frames[0]), count, listener.framing)
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = self._join(list(islice(frames, count)), listener.framing)
        self._latest, self._latest_framing = run, listener.framing
        return run

    def _join(self, frames: Sequence[Frame], framing: Framing) -> _Run:
        if framing is Framing.RAW:
            return _Run(frames, b"".join([self._serialize(frame.audio) for frame in frames]))
        return _Run(frames, frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames]))
