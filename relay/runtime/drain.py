"""The drain task: takes frames from the channels to the listeners' sockets, as fast as each socket takes them.

Invariants: no `await` per listener; a listener whose socket does not take data is left alone until it does; audio
older than a listener's bound is not written; frames that queued up are joined once for all listeners that have
the same run, and a joined write carries at most `MAX_WRITE_SECONDS` of audio, so a slow socket commits the relay
to little. A pass gives way to the rest of the event loop every `SLICE_SECONDS`.

Why one task: when a pass takes longer than a frame lasts, the next pass finds two frames and writes them as one, so the
cost of a frame falls as the load rises.

The listeners that are current in their group are served by `Group.write_some`; `_serve_apart` is the whole rule, for
one that has a queue of its own.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice

from relay.runtime.group import Group
from relay.runtime.listener import APART, Listener
from relay.runtime.run import MAX_WRITE_FLICKS, Run, Runs
from relay.vocabulary.clock import Clock

SLICE_SECONDS = 0.002
"""How long a pass may keep the event loop from ingest, handshakes and control messages."""

LONGEST_SLICE_SECONDS = 0.01
"""The same when these take longer themselves: audio gets as much time as a crowd at the door does, up to this."""

_BATCH = 16
"""Listeners between two looks at the clock; each costs some ten microseconds."""


class Drain:
    """One pass after another over the groups that have something to get."""

    def __init__(self, clock: Clock, serialize: Callable[[bytes], bytes]) -> None:
        """Make a drain; `run` is its task.

        Args:
            clock: Gives seconds, the same as the frames' due times.
            serialize: Makes the complete WebSocket message of a binary payload, for raw framing.
        """
        self._clock = clock
        self._serialize = serialize
        self._groups: dict[Group, None] = {}
        self._listeners: dict[Listener, Group] = {}
        self._wake = asyncio.Event()
        self._slice_seconds = SLICE_SECONDS
        self._slice_end = 0.0
        self._run_began: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the frames that are being written to a group are under way already; 0 when none are."""
        return 0.0 if self._run_began is None else self._clock() - self._run_began

    def wake(self, group: Group) -> None:
        """Note that the listeners of a group have something to get; who they are is looked up when they are served."""
        self._groups[group] = None
        self._wake.set()

    def wake_listener(self, listener: Listener, group: Group) -> None:
        """Note that a listener that is apart in its group has something to get, or can take something again."""
        self._listeners[listener] = group
        self._wake.set()

    async def run(self) -> None:
        """Serve listeners for ever; cancellation leaves every account consistent."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            groups, self._groups = self._groups, {}
            listeners, self._listeners = self._listeners, {}
            runs = Runs(self._serialize)
            self._slice_end = self._clock() + self._slice_seconds
            for group in groups:
                await self._serve(group, runs)
            await self._serve_all_apart(listeners.items(), runs)

    async def _serve(self, group: Group, runs: Runs) -> None:
        while group.begin_run(runs):
            self._run_began = self._clock()
            while group.write_some(_BATCH, await self._now()):
                pass
            group.finish_run()
            self._run_began = None
        if group.apart:
            await self._serve_all_apart([(listener, group) for listener in group.apart], runs)

    async def _serve_all_apart(self, listeners: Iterable[tuple[Listener, Group]], runs: Runs) -> None:
        for count, (listener, group) in enumerate(listeners):
            if count % _BATCH == 0:
                await self._now()
            self._serve_apart(listener, group, runs)

    async def _now(self) -> float:
        """Give the time, after a turn of the event loop when the slice is over."""
        now = self._clock()
        if now < self._slice_end:
            return now
        await asyncio.sleep(0)
        back = self._clock()
        self._slice_seconds = min(max(SLICE_SECONDS, back - now), LONGEST_SLICE_SECONDS)
        self._slice_end = back + self._slice_seconds
        return back

    def _serve_apart(self, listener: Listener, group: Group, runs: Runs) -> None:
        """Write to one listener all that its socket takes now, until it owes what the current ones owe."""
        if listener.index != APART:
            return
        frames, notes = listener.frames, listener.notes
        while listener.blocked_since is None and not group.take_back(listener):
            if frames and frames[0][1] < (oldest := self._clock() - listener.bound_seconds):
                group.drop_stale(listener, oldest)
            elif notes and (not frames or frames[0].start.position >= notes[0].place.position):
                listener.tell_next_note()
            elif not frames:
                if (end := group.end_at_rest) is None or end.position <= listener.place.position:
                    return
                listener.tell_gap(end)
            elif frames[0].start is listener.place:
                run = _next_run(listener, group, runs)
                listener.place = run.end
                listener.buffer.take(run.amount.chunks)
                group.count_delivered(run, self._clock())
                try:
                    written = group.send(listener.sink, run.wire)
                except OSError:
                    written = 0
                if written != len(run.wire):
                    listener.port.write_rest(run.wire[written:])
            else:
                listener.tell_gap(frames[0].start)


def _next_run(listener: Listener, group: Group, runs: Runs) -> Run:
    """Give the oldest frames of a listener that go into one write, up to its next note and to its group's place."""
    count = listener.buffer.count_within(MAX_WRITE_FLICKS)
    position = listener.place.position
    if listener.notes:
        count = min(count, listener.notes[0].place.position - position)
    if (behind := group.place.position - position) > 0:
        count = min(count, behind)
    return runs.join(list(islice(listener.frames, count)), listener.framing)
