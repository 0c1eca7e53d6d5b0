"""What a broadcaster does with its audio: when a message leaves, and what is dropped when it can not.

A relay passes audio of pace `live` on when it comes, so its sender is the one who sees to an even flow. Audio that is
late leaves at `CATCH_UP_SPEED`; audio that is ahead of real time waits here until it is due. So the relay's own limit
(`LiveIngest`) is met only by who sends without this, and a relay that says `backpressure` all the same is
followed once, and from then on sent to in real time. Audio of pace `speech` is planned by the relay: it leaves at once,
and waits only while the relay has enough.

Invariants: messages leave in order; nothing is dropped of a source that can wait; nothing here reads a clock: time
is an argument, in seconds.
"""

from enum import StrEnum
from math import inf
from typing import Protocol

from relay.audio.ingest import CATCH_UP_SECONDS
from relay.audio.pace import MAX_CATCH_UP_SECONDS
from relay.client.send_queue import SendQueue
from relay.vocabulary.audio import Pace, Piece

CATCH_UP_SPEED = 4.0
"""How many times real time late audio of pace `live` is sent.

Five seconds of it are gone after 1.7 s, and meanwhile what is too late to be worth hearing has been pushed out.
"""

HEAD_START_SECONDS = 0.5
"""How far ahead of real time audio of pace `live` is sent.

FFmpeg's `-re` begins with so much at once, and a sound card's clock is not exactly the relay's.
"""

SETTLE_SECONDS = 2.0
"""What waits all this time, while the connection takes audio, is late for good: a live source does not make it up."""

LAG_SECONDS = 0.2
"""Less than this is no lag: the jitter of a pipe."""

FULL_SPEED_SECONDS = 20.0
"""How far ahead of real time audio of pace `speech` is sent as fast as the connection takes it."""

CAUTIOUS_SPEED = 4.0
"""How many times real time it is sent when it is further ahead.

A relay that has enough reads nothing more, so what is under way when it says so is in front of a `clear`: on a fast
network, seconds of audio in the buffers of two kernels. At this speed it is little more than a message.
"""

_CAUTION = 0.8
"""Of the lead at which a relay had enough before, how much is sent at full speed."""

_LONGEST_EPISODE_SECONDS = 10.0
"""A network that is too slow all the time is told of once in this time."""


class Dropping(StrEnum):
    """What a full queue does to a broadcaster that sends on.

    Attributes:
        NEVER: It waits, always.
        IN_CUTS: It waits while there is a connection; while there is none the oldest is dropped.
        LATE: It never waits, unless it turns out to be ahead of real time: the oldest is dropped, and of what
            is late for good all.
    """

    NEVER = "never"
    IN_CUTS = "in-cuts"
    LATE = "late"


class _SendPace(Protocol):
    """When audio may leave."""

    can_wait: bool

    def begin(self, now: float) -> None:
        """Note a new connection."""
        ...

    def hold(self, now: float, *, on: bool) -> None:
        """Note that the relay wants no more for now, or wants it again."""
        ...

    def clear(self, now: float) -> None:
        """Note that what was sent is not heard."""
        ...

    def sent(self, seconds: float, now: float) -> None:
        """Note that so much leaves."""
        ...

    def wait_seconds(self, now: float) -> float:
        """Give how long the next message has to wait."""
        ...

    def note_full(self, held_seconds: float, now: float) -> None:
        """Note that the source gave more than the queue takes, while there is a connection."""
        ...

    def surplus_seconds(self, held_seconds: float, now: float) -> float:
        """Give how much of what waits is late for good."""
        ...


class Outbox:
    """A send queue, and the rules by which it is filled and emptied.

    Attributes:
        queue: What waits, and what is under way.
        is_connected: Whether there is a connection.
        is_held_back: Whether the relay wants no more audio for now.
    """

    def __init__(self, pace: Pace, dropping: Dropping, queue: SendQueue, now: float) -> None:
        """Make an empty one for audio of one pace."""
        self.queue = queue
        self.is_connected = False
        self.is_held_back = False
        self._dropping = dropping
        can_wait = dropping is Dropping.NEVER
        self._pace: _SendPace = (
            _SpeechPace() if pace is Pace.SPEECH else _LivePace(queue.max_seconds, now, dropping, can_wait=can_wait)
        )
        self._late_seconds = 0.0
        self._tell_at = 0.0

    @property
    def has_room(self) -> bool:
        """Whether a message can be put without waiting; if the queue is full, the oldest is dropped for it."""
        return not self.queue.is_full or self._may_drop

    @property
    def has_audio(self) -> bool:
        """Whether a message may leave, now or after `wait_seconds`."""
        return self.is_connected and not self.is_held_back and self.queue.may_take

    def begin(self, accepted: int | None, now: float) -> bool:
        """Note a new connection, whose greeting said how much of the last one's audio was taken.

        Returns:
            Whether the last `clear` has to be told again.
        """
        self.is_connected, self.is_held_back = True, False
        owes_clear = self.queue.begin(accepted)
        if not self._pace.can_wait:
            self.queue.trim()
        self._pace.begin(now)
        return owes_clear

    def lose(self) -> None:
        """Note that the connection is gone."""
        self.is_connected = False

    def hold(self, now: float, *, on: bool) -> None:
        """Note `backpressure`."""
        self.is_held_back = on
        self._pace.hold(now, on=on)

    def look(self, now: float) -> None:
        """Learn from a full queue whether the source is ahead of real time; to be asked before `has_room`."""
        if self.is_connected and self.queue.is_full:
            self._pace.note_full(self.queue.held_seconds, now)

    def put(self, piece: Piece, now: float) -> None:
        """Put audio at the end; what has no room is dropped, the oldest first."""
        dropped_before = self.queue.dropped
        if self.queue.is_full:
            self.queue.make_room()
        self.queue.put(piece)
        if self.is_connected:
            late_seconds = self._pace.surplus_seconds(self.queue.held_seconds, now)
            if self._dropping is Dropping.LATE:
                self.queue.shed(late_seconds)
            if not self._late_seconds:
                self._tell_at = now + _LONGEST_EPISODE_SECONDS
            self._late_seconds += (self.queue.dropped - dropped_before).seconds

    def wait_seconds(self, now: float) -> float:
        """Give how long the next message has to wait; 0: it may leave."""
        return self._pace.wait_seconds(now)

    def take(self, now: float) -> Piece:
        """Take the message that leaves now.

        Raises:
            IndexError: None waits.
        """
        piece = self.queue.take()
        self._pace.sent(piece.seconds, now)
        return piece

    def clear(self, now: float) -> None:
        """Throw away what waits; what is under way does not come back."""
        self.queue.clear()
        self._pace.clear(now)

    def take_late_seconds(self, now: float) -> float:
        """Give how much was dropped on a connection since this was told, when that is over, or goes on for long."""
        is_over = self.queue.held_seconds <= LAG_SECONDS or now >= self._tell_at
        late_seconds, self._late_seconds = (self._late_seconds, 0.0) if is_over else (0.0, self._late_seconds)
        return late_seconds

    @property
    def _may_drop(self) -> bool:
        if self._pace.can_wait:
            return False
        return not self.is_connected or (self._dropping is Dropping.LATE and not self.is_held_back)


class _SpeechPace:
    """Pace `speech`: at once, and not so fast when the relay has nearly enough."""

    can_wait = True

    def __init__(self) -> None:
        self._full_speed_seconds = FULL_SPEED_SECONDS
        # The relay may hold back all that was sent on this connection until it is due.
        self._ends_at = 0.0
        self._free_at = 0.0

    def begin(self, now: float) -> None:
        self.clear(now)

    def hold(self, now: float, *, on: bool) -> None:
        if on:
            self._full_speed_seconds = min(self._full_speed_seconds, max(0.0, self._ends_at - now) * _CAUTION)

    def clear(self, now: float) -> None:
        self._ends_at = self._free_at = now

    def sent(self, seconds: float, now: float) -> None:
        self._ends_at = max(self._ends_at, now) + seconds
        if self._ends_at - now > self._full_speed_seconds:
            self._free_at = now + seconds / CAUTIOUS_SPEED

    def wait_seconds(self, now: float) -> float:
        return max(0.0, self._free_at - now)

    def note_full(self, held_seconds: float, now: float) -> None:
        """Change nothing: the source waits in any case."""

    def surplus_seconds(self, held_seconds: float, now: float) -> float:  # noqa: ARG002 - the protocol's signature
        return 0.0


class _LivePace:
    """Pace `live`: in real time, or faster while it is late.

    A source that can wait has nothing to make up for but what it was late by itself, so a cut moves its schedule.
    """

    def __init__(self, queue_seconds: float, now: float, dropping: Dropping, *, can_wait: bool) -> None:
        self.can_wait = can_wait
        # A source that is this far ahead of real time is not live, whatever it is.
        self._early_seconds = queue_seconds / 2
        # What a live source gives first has come since it was begun.
        is_live = dropping is Dropping.LATE
        self._covered_until = now if is_live else None
        # What is live can have no more to make up for than it is late; what is not may have paused.
        self._longest_stall_seconds = inf if is_live else CATCH_UP_SECONDS
        self._free_at = now
        self._is_limited = False
        self._window_from = now
        self._least_seconds = 0.0
        self._has_sent = False

    def begin(self, now: float) -> None:
        self._is_limited = False
        self._begin_window(now)

    def hold(self, now: float, *, on: bool) -> None:  # noqa: ARG002 - the protocol's signature
        # The relay's judgement counts: it has seen all that is ahead, and more than real time it will not take.
        self._is_limited = True
        self._covered_until = max(self._covered(now), now + HEAD_START_SECONDS)

    def clear(self, now: float) -> None:
        self._covered_until = min(self._covered(now), now)
        self._free_at = now

    def sent(self, seconds: float, now: float) -> None:
        self._covered_until = self._covered(now) + seconds
        # A timer that fires late is made up for.
        self._free_at = max(self._free_at, now - LAG_SECONDS) + seconds / CATCH_UP_SPEED
        self._has_sent = True

    def wait_seconds(self, now: float) -> float:
        return max(0.0, self._covered(now) - HEAD_START_SECONDS - now, self._free_at - now)

    def note_full(self, held_seconds: float, now: float) -> None:
        if self._covered(now) + held_seconds - now > self._early_seconds:
            self.can_wait = True

    def surplus_seconds(self, held_seconds: float, now: float) -> float:
        self._least_seconds = min(self._least_seconds, held_seconds)
        if now - self._window_from < SETTLE_SECONDS:
            return 0.0
        least_seconds, has_sent = self._least_seconds, self._has_sent
        self._begin_window(now)
        # A connection that takes nothing is stuck; what it holds up is bounded by the queue.
        if self.can_wait or not has_sent or least_seconds <= LAG_SECONDS:
            return 0.0
        if not self._is_limited and self._covered(now) > now:
            # It waited since it seemed to be ahead; but the source has no more to give, so it is late.
            self._covered_until = self._covered(now) - least_seconds - HEAD_START_SECONDS
            return 0.0
        return least_seconds

    def _covered(self, now: float) -> float:
        """Until when what was sent lasts, by the source's own time."""
        covered = now if self._covered_until is None else self._covered_until
        return max(covered, now - (MAX_CATCH_UP_SECONDS if self.can_wait else self._longest_stall_seconds))

    def _begin_window(self, now: float) -> None:
        self._window_from, self._least_seconds, self._has_sent = now, inf, False
