"""Decides when a broadcaster's messages leave, and what is dropped when they cannot.

A relay passes audio of pace `live` on as it arrives, so the sender is responsible for an even flow. Late audio leaves
at `CATCH_UP_SPEED`; audio ahead of real time waits here until it is due. So only other senders reach the relay's own
limit (`LiveIngest`). If a relay sends `backpressure` nevertheless, sending stops until the relay asks for more, and
from then on follows real time. The relay itself schedules audio of pace `speech`: it leaves at once, and waits only
while the relay has enough.

A live source may begin with a backlog, and a file may come through a pipe. Both bring much audio at once, but only the
file continues to do so. Therefore up to `READ_AHEAD_SECONDS` of a source that is ahead may wait here. If the source
then brings audio in real time, it is live, and what waits is late. If it fills the queue, it can wait, and loses
nothing.

Invariants: messages leave in order. Nothing is dropped if the source can wait. Nothing here reads a clock: time is an
argument, in seconds.
"""

from enum import Enum, StrEnum, auto
from math import inf
from typing import Protocol

from relay.audio.ingest import CATCH_UP_SECONDS
from relay.audio.pace import MAX_CATCH_UP_SECONDS
from relay.client.send_queue import SendQueue
from relay.vocabulary.audio import Pace, Piece

CATCH_UP_SPEED = 4.0
"""Speed at which late audio of pace `live` is sent, as a multiple of real time.

Five seconds of late audio are sent in 1.7 s; meanwhile, the queue drops audio that is too late to be worth hearing.
"""

HEAD_START_SECONDS = 0.5
"""How far ahead of real time audio of pace `live` is sent.

FFmpeg's `-re` starts with this much at once, and a sound card's clock differs slightly from the relay's.
"""

SETTLE_SECONDS = 2.0
"""Audio that waits this long while the connection accepts audio stays late: a live source does not make it up."""

UNEVEN_SHARE = 0.25
"""A source brings audio in real time while its lead changes by no more than this share of the time.

A download at 1.3 times real time is faster. A stream that comes in pieces of half a second is not.
"""

READ_AHEAD_SECONDS = 20.0
"""How much audio of a source that is ahead may wait until it is known whether it is live.

Many radio stations send 64 KiB at once to fill the buffers of their listeners: 16 s at 32 kb/s.
"""

LAG_SECONDS = 0.2
"""A shorter delay is not a lag, only the jitter of a pipe."""

FULL_SPEED_SECONDS = 20.0
"""Up to this lead over real time, audio of pace `speech` is sent as fast as the connection accepts it."""

CAUTIOUS_SPEED = 4.0
"""Speed at which audio of pace `speech` is sent beyond that lead, as a multiple of real time.

A relay that has enough stops reading. Everything under way at that moment reaches it before a `clear` does: on a fast
network, seconds of audio in the buffers of two kernels. At this speed it is little more than a message.
"""

_CAUTION = 0.8
"""Audio is sent at full speed up to this share of the lead at which the relay had enough before."""

_LONGEST_EPISODE_SECONDS = 10.0
"""If a network stays too slow, it is reported once in this time."""


class Dropping(StrEnum):
    """What happens when a broadcaster sends to a full queue.

    Attributes:
        NEVER: The broadcaster always waits.
        IN_CUTS: The broadcaster waits, except without a connection: then the queue drops the oldest audio.
        LATE: The queue drops the oldest audio, and all audio that stays late. The broadcaster waits only if the relay
            holds it back, or if its audio comes faster than real time.
    """

    NEVER = "never"
    IN_CUTS = "in-cuts"
    LATE = "late"


class _SendPace(Protocol):
    """When audio may leave."""

    @property
    def can_wait(self) -> bool:
        """Whether the source waits while the queue is full, and loses nothing."""

    @property
    def reads_ahead(self) -> bool:
        """Whether up to `READ_AHEAD_SECONDS` may wait, to find out whether the source is live."""

    def begin(self, now: float) -> None:
        """A new connection begins."""

    def hold(self, now: float, *, on: bool) -> None:
        """The relay wants no more audio for now, or wants it again."""

    def clear(self, now: float) -> None:
        """Listeners will not hear what was sent."""

    def sent(self, seconds: float, now: float) -> None:
        """A message of this duration leaves."""

    def wait_seconds(self, now: float) -> float:
        """Return how long the next message has to wait."""

    def note_full(self, held_seconds: float, now: float) -> None:
        """The source produced more than the queue holds, while there is a connection."""

    def surplus_seconds(self, held_seconds: float, now: float) -> float:
        """Return how much of the waiting audio is too late to send."""


class Outbox:
    """A send queue, with the rules that fill and empty it.

    Attributes:
        queue: The audio that waits or is under way.
        is_connected: Whether there is a connection.
        is_held_back: Whether the relay wants no more audio for now.
    """

    def __init__(self, pace: Pace, dropping: Dropping, queue: SendQueue, now: float) -> None:
        self.queue = queue
        self.is_connected = False
        self.is_held_back = False
        self._dropping = dropping
        self._queue_seconds = queue.max_seconds
        self._pace: _SendPace = _SpeechPace() if pace is Pace.SPEECH else _LivePace(queue.max_seconds, now, dropping)
        self._late_seconds = 0.0
        self._tell_at = 0.0

    @property
    def has_room(self) -> bool:
        """Whether a message can be put without waiting. If the queue is full, this drops the oldest."""
        return not self.queue.is_full or self._may_drop

    @property
    def has_audio(self) -> bool:
        """Whether a message may leave, now or after `wait_seconds`."""
        return self.is_connected and not self.is_held_back and self.queue.may_take

    def begin(self, accepted: int | None, now: float) -> bool:
        """Start a new connection; `accepted` is how much of the last one's audio the relay took, in ticks, if known.

        Returns:
            Whether the last `clear` has to be sent again.
        """
        self.is_connected, self.is_held_back = True, False
        owes_clear = self.queue.begin(accepted)
        if not self._pace.can_wait:
            self.queue.trim()
        self._pace.begin(now)
        return owes_clear

    def lose(self) -> None:
        """The connection is gone."""
        self.is_connected = False

    def hold(self, now: float, *, on: bool) -> None:
        """Apply the relay's `backpressure`."""
        self.is_held_back = on
        self._pace.hold(now, on=on)

    def look(self, now: float) -> None:
        """Check, if the queue is full, whether the source is ahead of real time. Call this before `has_room`."""
        if self.is_connected and self.queue.is_full:
            self._pace.note_full(self.queue.held_seconds, now)
            self._limit_queue()

    def put(self, piece: Piece, now: float) -> None:
        """Put audio at the end. A full queue drops its oldest audio first."""
        dropped_before = self.queue.dropped
        if self.queue.is_full:
            self.queue.make_room()
        self.queue.put(piece)
        if self.is_connected:
            late_seconds = self._pace.surplus_seconds(self.queue.held_seconds, now)
            self._limit_queue()
            if self._dropping is Dropping.LATE:
                self.queue.shed(late_seconds)
            if not self._late_seconds:
                self._tell_at = now + _LONGEST_EPISODE_SECONDS
            self._late_seconds += (self.queue.dropped - dropped_before).seconds

    def wait_seconds(self, now: float) -> float:
        """Return how long the next message has to wait; 0 if it may leave."""
        return self._pace.wait_seconds(now)

    def take(self, now: float) -> Piece:
        """Take the message that leaves now.

        Raises:
            IndexError: No message waits.
        """
        piece = self.queue.take()
        self._pace.sent(piece.seconds, now)
        return piece

    def clear(self, now: float) -> None:
        """Discard the audio that waits. Audio under way does not come back."""
        self.queue.clear()
        self._pace.clear(now)

    def take_late_seconds(self, now: float) -> float:
        """Return the seconds dropped since the last report, once the episode is over or has lasted long; else 0."""
        is_over = self.queue.held_seconds <= LAG_SECONDS or now >= self._tell_at
        late_seconds, self._late_seconds = (self._late_seconds, 0.0) if is_over else (0.0, self._late_seconds)
        return late_seconds

    def _limit_queue(self) -> None:
        seconds = max(self._queue_seconds, READ_AHEAD_SECONDS) if self._pace.reads_ahead else self._queue_seconds
        if seconds != self.queue.max_seconds:
            self.queue.limit(seconds)

    @property
    def _may_drop(self) -> bool:
        if self._pace.can_wait:
            return False
        return not self.is_connected or (self._dropping is Dropping.LATE and not self.is_held_back)


class _SpeechPace:
    """Pace `speech`: audio leaves at once, but more slowly when the relay nearly has enough."""

    can_wait = True
    reads_ahead = False

    def __init__(self) -> None:
        self._full_speed_seconds = FULL_SPEED_SECONDS
        # When the audio sent on this connection ends. The relay may hold all of it back until it is due.
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


class _Source(Enum):
    """What is known of a source of pace `live`."""

    LIVE = auto()
    """As far as is known, it brings audio in real time and cannot wait."""

    EARLY = auto()
    """It is ahead of real time. Either it is live and began with a backlog, or it can wait."""

    WAITING = auto()
    """It can wait."""


class _Watch:
    """What the source and the queue have done since a moment.

    Attributes:
        least_seconds: The least audio that waited.
        has_sent: Whether audio left.
    """

    def __init__(self, now: float) -> None:
        self.least_seconds = inf
        self.has_sent = False
        self._since = now
        self._least_lead_seconds = inf
        self._most_lead_seconds = -inf

    def note(self, held_seconds: float, lead_seconds: float) -> None:
        """Record how much audio waits, and how far the source is ahead of real time."""
        self.least_seconds = min(self.least_seconds, held_seconds)
        self._least_lead_seconds = min(self._least_lead_seconds, lead_seconds)
        self._most_lead_seconds = max(self._most_lead_seconds, lead_seconds)

    def seconds(self, now: float) -> float:
        """Return the time since that moment."""
        return now - self._since

    def is_even(self, seconds: float) -> bool:
        """Whether the lead changed little enough for a source that brought audio in real time during `seconds`."""
        return self._most_lead_seconds - self._least_lead_seconds <= UNEVEN_SHARE * seconds


class _LivePace:
    """Pace `live`: audio leaves in real time, or faster while it is late.

    A source that can wait makes up only for its own delay, so an outage moves its schedule.
    """

    def __init__(self, queue_seconds: float, now: float, dropping: Dropping) -> None:
        self._source = _Source.WAITING if dropping is Dropping.NEVER else _Source.LIVE
        # A source that is this far ahead of real time has a backlog, or is not live.
        self._early_seconds = queue_seconds / 2
        # The audio of a live source starts now. That of another source starts when it is first sent.
        self._is_live = dropping is Dropping.LATE
        self._covered_until = now if self._is_live else None
        # A live source makes up for its whole delay. Another source may have paused, so its delay is limited.
        self._longest_stall_seconds = inf if self._is_live else CATCH_UP_SECONDS
        self._free_at = now
        self._is_limited = False
        self._noted_at = now
        self._short = _Watch(now)
        self._long = _Watch(now)

    @property
    def can_wait(self) -> bool:
        return self._source is not _Source.LIVE

    @property
    def reads_ahead(self) -> bool:
        return self._source is _Source.EARLY

    def begin(self, now: float) -> None:
        self._is_limited = False
        self._watch_anew(now)

    def hold(self, now: float, *, on: bool) -> None:  # noqa: ARG002 - the protocol's signature
        # The relay decides: it sees how far ahead the audio is, and it accepts no more than real time.
        self._is_limited = True
        self._covered_until = max(self._covered(now), now + HEAD_START_SECONDS)

    def clear(self, now: float) -> None:
        self._covered_until = min(self._covered(now), now)
        self._free_at = now

    def sent(self, seconds: float, now: float) -> None:
        self._covered_until = self._covered(now) + seconds
        # This makes up for a timer that fires late.
        self._free_at = max(self._free_at, now - LAG_SECONDS) + seconds / CATCH_UP_SPEED
        self._short.has_sent = self._long.has_sent = True

    def wait_seconds(self, now: float) -> float:
        return max(0.0, self._covered(now) - HEAD_START_SECONDS - now, self._free_at - now)

    def note_full(self, held_seconds: float, now: float) -> None:
        match self._source:
            case _Source.LIVE if self._lead_seconds(held_seconds, now) > self._early_seconds:
                self._source = _Source.EARLY if self._is_live else _Source.WAITING
            case _Source.EARLY if self._covered(now) >= now:
                self._source = _Source.WAITING
            case _Source.EARLY:
                # The connection is too slow. While the source waits for it, nobody knows how fast it is.
                self._watch_anew(now)

    def surplus_seconds(self, held_seconds: float, now: float) -> float:
        if self._source is _Source.WAITING:
            return 0.0
        seems_early = self._source is _Source.EARLY or (not self._is_limited and self._covered(now) > now)
        watch = self._settled(held_seconds, now, must_be_even=seems_early)
        # A connection that accepts nothing is stuck; the queue bounds what waits for it.
        if watch is None or not watch.has_sent:
            return 0.0
        self._source = _Source.LIVE
        late_seconds = watch.least_seconds if watch.least_seconds > LAG_SECONDS else 0.0
        if not late_seconds or self._is_limited or not seems_early:
            return late_seconds
        # The audio waited because it seemed to be ahead. But the source brings no more than real time, so it is late.
        # The relay accepts a little of it at once.
        kept_seconds = min(late_seconds, MAX_CATCH_UP_SECONDS)
        self._covered_until = now - kept_seconds
        return late_seconds - kept_seconds

    def _settled(self, held_seconds: float, now: float, *, must_be_even: bool) -> _Watch | None:
        """Return a watch that was long enough to judge the audio that waits, and watch anew; None if there is none.

        The short watch begins anew after each burst. The long one judges a source that always comes in bursts.
        """
        if now - self._noted_at > SETTLE_SECONDS:
            # This program or the source stood still, so nobody knows how fast the source is.
            self._watch_anew(now)
        self._noted_at = now
        for watch in (self._short, self._long):
            watch.note(held_seconds, self._lead_seconds(held_seconds, now))
        if must_be_even and not self._short.is_even(SETTLE_SECONDS):
            self._short = _Watch(now)
        for watch, seconds in ((self._short, SETTLE_SECONDS), (self._long, self._long.seconds(now))):
            if watch.seconds(now) >= SETTLE_SECONDS and (watch.is_even(seconds) or not must_be_even):
                self._watch_anew(now)
                return watch
        return None

    def _lead_seconds(self, held_seconds: float, now: float) -> float:
        """Return how far the source is ahead of real time."""
        return self._covered(now) + held_seconds - now

    def _covered(self, now: float) -> float:
        """Return when the audio that was sent ends, on the source's own schedule."""
        covered = now if self._covered_until is None else self._covered_until
        return max(covered, now - (MAX_CATCH_UP_SECONDS if self.can_wait else self._longest_stall_seconds))

    def _watch_anew(self, now: float) -> None:
        self._short, self._long = _Watch(now), _Watch(now)
