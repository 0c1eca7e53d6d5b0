"""The drain: the task that takes frames from the channels to the listeners' sockets, as fast as each socket allows.

Invariants:
- There is no `await` per listener.
- A listener whose socket is full is skipped until the socket takes data again.
- Audio older than a listener's bound is not written.
- After a partial write, the started frame is completed at once and the others stay in the queue, so nothing ages behind
  a write.
- Queued frames are joined once for all listeners that need the same batch.
- Every `SLICE_SECONDS` the drain yields to the event loop and continues with another group, so a small channel does not
  wait for a large one.

Why one task: If writing a batch to all listeners of a group takes longer than a frame lasts, the next batch has two
frames and is one write. The cost per frame falls as the load rises.

`Group.write_some` serves the listeners in step with their group. `_serve_lagging` has the whole rule for a listener
with its own queue.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from relay.hub.batch import MAX_WRITE_FLICKS, MAX_WRITE_FRAMES, Batch, Batches
from relay.hub.group import Group
from relay.hub.listener import LAGGING, Listener
from relay.vocabulary.clock import Clock

SLICE_SECONDS = 0.002
"""The longest time that the drain blocks ingest, handshakes and control messages, or one group blocks the others."""

LONGEST_SLICE_SECONDS = 0.01
"""The maximum of a slice that grew. A slice is as long as the rest of the event loop takes, so that audio gets an equal
share of the time when many clients connect at once."""

COALESCE_SLACK_SECONDS = 0.002
"""How much longer than requested a group waits for frames to join. A coalescing interval is usually a multiple of a
frame, so the frame that arrives just as it ends joins this write instead of starting the next interval."""

_LISTENERS_AT_A_TIME = 16
"""Listeners served between two readings of the clock. Each takes some ten microseconds."""

logger = logging.getLogger(__name__)


class _Turn(NamedTuple):
    """One service of a woken group: a batch for the listeners in step, and everything that lagging listeners are owed.

    Attributes:
        began: When it began, in seconds of the relay's clock.
        steps: Serves a few listeners at each step.
    """

    began: float
    steps: Iterator[None]


class Drain:
    """The concurrent turns of all groups that have data to send; `run` is its task.

    Args:
        clock: Returns seconds, on the same clock as the frames' due times.
        serialize: Makes the complete WebSocket message of a binary payload.
    """

    def __init__(self, clock: Clock, serialize: Callable[[bytes], bytes]) -> None:
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
        """The age of the oldest unfinished turn; 0 when there is none."""
        for turn in self._turns.values():
            return self._clock() - turn.began
        return 0.0

    def wake(self, group: Group) -> None:
        """Schedule a turn for a group. Its listeners are looked up when the turn runs."""
        self._groups[group] = None
        self._wake.set()

    def wake_in_time(self, group: Group) -> None:
        """Schedule a turn for a group that got frames: now, or when its next write has waited for others."""
        wait_seconds = group.wait_seconds
        if not wait_seconds:
            self.wake(group)
        elif not group.is_due:
            group.is_due = True
            delay = wait_seconds + COALESCE_SLACK_SECONDS
            asyncio.get_running_loop().call_later(delay, self._wake_due, group)

    def _wake_due(self, group: Group) -> None:
        group.is_due = False
        self.wake(group)

    def wake_listener(self, listener: Listener, group: Group) -> None:
        """Schedule a lagging listener that has data to receive, or whose socket takes data again."""
        self._listeners[listener] = group
        self._wake.set()

    async def run(self) -> None:
        """Serve listeners forever. Cancellation leaves all accounts consistent."""
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
        """Begin a turn for each woken group without one. Return whether there are any turns."""
        now = self._clock()
        for group in [woken for woken in self._groups if woken not in self._turns]:
            del self._groups[group]
            self._turns[group] = _Turn(now, self._serve(group))
        if self._listeners and None not in self._turns:
            listeners, self._listeners = self._listeners, {}
            self._turns[None] = _Turn(now, self._serve_all_lagging(listeners.items()))
        return bool(self._turns)

    def _is_over(self, turn: _Turn) -> bool:
        """Continue a turn until the slice ends. Return whether the turn is finished."""
        return all(self._clock() < self._slice_end for _ in turn.steps)

    async def _give_way(self, now: float) -> None:
        """Let the event loop run everything else that is ready."""
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
        """Write to one listener until its socket is full or it is in step with its group."""
        if listener.index != LAGGING or listener not in group.lagging:
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
        """Write a batch to a lagging listener. Frames that its socket did not start stay in its queue."""
        try:
            written = group.send(listener.sink, batch.wire)
        except BlockingIOError:
            written = 0
        except OSError as error:
            # Polling would report this socket as writable forever.
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
    """Join a listener's oldest frames for one write, up to its next note, its group's place, and the next hole."""
    most = MAX_WRITE_FRAMES if listener.port.takes_parts else 1
    count = min(listener.buffer.count_within(MAX_WRITE_FLICKS), most)
    position = listener.place.position
    if listener.notes:
        count = min(count, listener.notes[0].place.position - position)
    if (behind := group.place.position - position) > 0:
        count = min(count, behind)
    frames = list(islice(listener.frames, count))
    whole = next((index for index, (one, other) in enumerate(pairwise(frames), 1) if one.end is not other.start), count)
    return batches.join(frames[:whole], listener.framing)
