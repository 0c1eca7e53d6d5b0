"""The drain task: takes frames from the listeners' buffers to their sockets, as fast as each socket takes them.

Invariants: no `await` per listener; a listener whose socket does not take data is left alone until it does; audio
older than a listener's bound is not written; frames that queued up are joined once for all listeners that have
the same run, and a joined write carries at most `MAX_WRITE_SECONDS` of audio, so a slow socket commits the relay
to little. A pass gives way to the rest of the event loop every `SLICE_SECONDS`.

Why one task: when a pass takes longer than a frame lasts, the next pass finds two frames in each buffer and
writes them as one, so the cost of a frame falls as the load rises.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from relay.runtime.listener import Framing, Listener
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame
from relay.vocabulary.clock import Clock

MAX_WRITE_SECONDS = 0.25
"""The audio of one write; what is under way can not be taken back when it grows old."""

SLICE_SECONDS = 0.002
"""How long a pass may keep the event loop from ingest, handshakes and control messages."""

_SLICE_CHECK = 16
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
        self._ready: dict[Listener, None] = {}
        self._wake = asyncio.Event()

    def wake(self, listeners: Iterable[Listener]) -> None:
        """Note that these listeners have something to get, or can take something again."""
        self._ready.update(dict.fromkeys(listeners))
        self._wake.set()

    def forget(self, listener: Listener) -> None:
        """Note that a listener is gone."""
        self._ready.pop(listener, None)

    async def run(self) -> None:
        """Serve listeners for ever; cancellation leaves every buffer consistent."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ready, self._ready = self._ready, {}
            await self._pass(ready)

    async def _pass(self, listeners: Iterable[Listener]) -> None:
        joined = _JoinedRuns(self._serialize)
        slice_end = self._clock() + SLICE_SECONDS
        for number, listener in enumerate(listeners):
            if number % _SLICE_CHECK == 0 and self._clock() > slice_end:
                await asyncio.sleep(0)
                slice_end = self._clock() + SLICE_SECONDS
            if listener.blocked_since is None:
                self._serve(listener, joined)

    def _serve(self, listener: Listener, joined: "_JoinedRuns") -> None:
        """Write all that the socket takes now."""
        frames, notes = listener.frames, listener.notes
        while listener.blocked_since is None and (frames or notes):
            if frames and frames[0][1] < (oldest := self._clock() - listener.bound_seconds):
                listener.buffer.drop_before(oldest)
            elif notes and (not frames or frames[0].start.position >= notes[0].place.position):
                listener.tell_next_note()
            elif frames[0].start is listener.place:
                _write_run(listener, joined)
            else:
                listener.tell_gap(frames[0].start)


def _write_run(listener: Listener, joined: "_JoinedRuns") -> None:
    frames, buffer = listener.frames, listener.buffer
    count = buffer.count_within(_MAX_WRITE_FLICKS)
    if listener.notes:
        count = min(count, listener.notes[0].place.position - listener.place.position)
    wire = joined.get(listener.framing, frames, count)
    listener.place = frames[count - 1].end
    buffer.take(count)
    listener.port.write(wire)


class _JoinedRuns:
    """The joined bytes of each run of frames, made once in a pass and shared by all listeners that need it."""

    def __init__(self, serialize: Callable[[bytes], bytes]) -> None:
        self._serialize = serialize
        # The frame stays in the value, so that its id is not given to another one while the pass goes on.
        self._runs: dict[tuple[int, int, Framing], tuple[Frame, bytes]] = {}

    def get(self, framing: Framing, frames: deque[Frame], count: int) -> bytes:
        """Give the oldest `count` frames as the bytes that are written to a listener with this framing."""
        first = frames[0]
        if count == 1 and framing is Framing.RELAY_V1:
            return first.wire
        key = (id(first), count, framing)
        known = self._runs.get(key)
        if known is not None:
            return known[1]
        run = islice(frames, count)
        if framing is Framing.RELAY_V1:
            wire = b"".join([frame.wire for frame in run])
        else:
            wire = b"".join([self._serialize(frame.audio) for frame in run])
        self._runs[key] = (first, wire)
        return wire
