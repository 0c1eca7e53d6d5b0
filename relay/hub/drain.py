"""The drain task: takes frames from the channels to the listeners' sockets, as fast as each socket takes them.

Invariants: no `await` per listener; a listener whose socket does not take data is left alone until it does; audio
older than a listener's bound is not written. When a socket takes a write in part, the frame that it began is completed
at once and the others stay in the queue, so nothing grows old behind a write. Frames that queued up are joined once for
all listeners that have the same batch. Every `SLICE_SECONDS` the drain gives way to the rest of the event loop and goes
on with another group: a small channel does not wait until a large one is served.

Why one task: when a batch takes longer to all listeners of a group than a frame lasts, the next batch has two frames
and is written as one, so the cost of a frame falls as the load rises.

The listeners in step with their group are served by `Group.write_some`; `_serve_lagging` is the whole rule, for one
that has a queue of its own.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from relay.hub.batch import MAX_WRITE_FLICKS, MAX_WRITE_FRAMES, Batch, Batches
from relay.hub.group import Group
from relay.hub.listener import LAGGING, Listener
from relay.vocabulary.clock import Clock

SLICE_SECONDS = 0.002
"""How long the drain may keep the event loop from ingest, handshakes and control messages, and one group the others."""

LONGEST_SLICE_SECONDS = 0.01
"""The same when the rest takes longer itself: audio gets as much time as a crowd at the door does, up to this."""

_LISTENERS_AT_A_TIME = 16
"""Listeners between two looks at the clock; each costs some ten microseconds."""

logger = logging.getLogger(__name__)


class _Turn(NamedTuple):
    """The service of a group that was woken: one batch to those in step, and what those who lag are owed.

    Attributes:
        began: When, in seconds of the relay's clock.
        steps: Serves the next few listeners at each step.
    """

    began: float
    steps: Iterator[None]


class Drain:
    """Turns of the groups that have something to get, side by side."""

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
        self._turns: dict[Group | None, _Turn] = {}
        self._batches = Batches(serialize)
        self._wake = asyncio.Event()
        self._slice_seconds = SLICE_SECONDS
        self._slice_end = 0.0

    @property
    def busy_seconds(self) -> float:
        """How long the turn is under way that began first; 0 when nobody has anything to get."""
        for turn in self._turns.values():
            return self._clock() - turn.began
        return 0.0

    def wake(self, group: Group) -> None:
        """Note that the listeners of a group have something to get; who they are is looked up when they are served."""
        self._groups[group] = None
        self._wake.set()

    def wake_listener(self, listener: Listener, group: Group) -> None:
        """Note that a listener that lags has something to get, or can take something again."""
        self._listeners[listener] = group
        self._wake.set()

    async def run(self) -> None:
        """Serve listeners for ever; cancellation leaves every account consistent."""
        while True:
            if not self._begin_turns():
                self._wake.clear()
                await self._wake.wait()
                self._slice_end = self._clock() + self._slice_seconds
                continue
            self._batches = Batches(self._serialize)
            for group, turn in list(self._turns.items()):
                if (now := self._clock()) >= self._slice_end:
                    await self._give_way(now)
                if self._is_over(turn):
                    del self._turns[group]

    def _begin_turns(self) -> bool:
        """Begin the turns of all who were woken and have none; tell whether there are any turns."""
        now = self._clock()
        for group in [woken for woken in self._groups if woken not in self._turns]:
            del self._groups[group]
            self._turns[group] = _Turn(now, self._serve(group))
        if self._listeners and None not in self._turns:
            listeners, self._listeners = self._listeners, {}
            self._turns[None] = _Turn(now, self._serve_all_lagging(listeners.items()))
        return bool(self._turns)

    def _is_over(self, turn: _Turn) -> bool:
        """Go on with a turn until the slice is over; tell whether the turn is."""
        return all(self._clock() < self._slice_end for _ in turn.steps)

    async def _give_way(self, now: float) -> None:
        """Let the event loop do everything else that waits for it."""
        await asyncio.sleep(0)
        back = self._clock()
        self._slice_seconds = min(max(SLICE_SECONDS, back - now), LONGEST_SLICE_SECONDS)
        self._slice_end = back + self._slice_seconds

    def _serve(self, group: Group) -> Iterator[None]:
        if group.begin_batch(self._batches):
            if group.has_backlog:
                self.wake(group)
            while group.write_some(_LISTENERS_AT_A_TIME, self._clock()):
                yield
            group.finish_batch()
        yield from self._serve_all_lagging([(listener, group) for listener in group.lagging])

    def _serve_all_lagging(self, listeners: Iterable[tuple[Listener, Group]]) -> Iterator[None]:
        for count, (listener, group) in enumerate(listeners, 1):
            try:
                self._serve_lagging(listener, group)
            except Exception:
                logger.exception("listener cut off: serving it failed", extra={"connection": listener.connection_id})
                listener.blocked_since = math.inf
                listener.port.abort("Serving it failed.")
            if count % _LISTENERS_AT_A_TIME == 0:
                yield

    def _serve_lagging(self, listener: Listener, group: Group) -> None:
        """Write to one listener all that its socket takes now, until it is in step with its group."""
        if listener.index != LAGGING:
            return
        frames, notes = listener.frames, listener.notes
        while listener.blocked_since is None and not group.bring_into_step(listener):
            if frames and frames[0][1] < (oldest := self._clock() - listener.bound_seconds):
                group.drop_stale(listener, oldest)
            elif notes and (not frames or frames[0].start.position >= notes[0].place.position):
                listener.tell_next_note()
            elif not frames:
                if (end := group.end_at_rest) is None or end.position <= listener.place.position:
                    return
                listener.tell_gap(end)
            elif frames[0].start is listener.place:
                self._write(listener, group, _next_batch(listener, group, self._batches))
            else:
                listener.tell_gap(frames[0].start)

    def _write(self, listener: Listener, group: Group, batch: Batch) -> None:
        """Write a batch to a listener that lags; what its socket does not begin stays in its queue."""
        try:
            written = group.send(listener.sink, batch.wire)
        except BlockingIOError:
            written = 0
        except OSError as error:
            # It says for ever that it can be written to, and can't.
            listener.blocked_since = math.inf
            listener.port.abort(error)
            return
        begun, rest = (batch, b"") if written == len(batch.wire) else batch.begun(written)
        if begun is not None:
            listener.place = begun.end
            listener.buffer.take(begun.amount.chunks)
        if written == len(batch.wire):
            group.count_delivered(batch, self._clock())
        else:
            group.end_short_write(listener, begun, rest, self._clock())


def _next_batch(listener: Listener, group: Group, batches: Batches) -> Batch:
    """Give the oldest frames of a listener that go into one write, up to its next note and to its group's place."""
    most = MAX_WRITE_FRAMES if listener.port.takes_parts else 1
    count = min(listener.buffer.count_within(MAX_WRITE_FLICKS), most)
    position = listener.place.position
    if listener.notes:
        count = min(count, listener.notes[0].place.position - position)
    if (behind := group.place.position - position) > 0:
        count = min(count, behind)
    return batches.join(list(islice(listener.frames, count)), listener.framing)
