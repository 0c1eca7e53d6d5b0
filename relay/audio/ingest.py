"""How a broadcaster's audio meets real time: what is late, what is early, and when it has sent enough.

Lateness and lead are different things, and only the broadcaster knows which it produces. In pace `live` (a
microphone) audio is due when it comes: after a stall it is passed on at once, so that listeners catch up. In pace
`speech` (synthesis) a sentence that comes in one burst is due word after word, and none of it may be skipped. A
broadcaster that returns brings what it could not send: that is late as well, and not ahead. Nothing is due before what
another broadcaster left to be heard is over.

Invariants: due times never decrease; what was given is released in order; whoever keeps to `must_wait` never makes the
queue grow beyond its bound. Time is an argument, in seconds.

Source: docs/protocol.md, "Numbering and time".
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.audio.amounts import AudioAmount
from relay.vocabulary.audio import FLICKS_PER_SECOND, FRAMES_PER_SECOND, Pace, Piece

CATCH_UP_SECONDS = 10.0
"""How much audio of pace `live` may come at once after a stall; what is older is of no use to anybody."""

CLOCK_ALLOWANCE = 1.01
"""A sound card that is this much faster than the relay's clock is not ahead of real time."""

PAUSE_AT = 0.8
"""How much of what a broadcaster may be ahead it is when it is asked to stop: what is under way still has room."""

GO_ON_AT = 0.5
"""The same when it may go on."""

STEP_SECONDS = 0.02
"""The least wait; a broadcaster that is held back goes on in steps of about a frame."""


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """How far ahead of real time a broadcaster may be.

    Attributes:
        ahead_seconds: In pace `live`, all of which listeners have got.
        lead_seconds: In pace `speech`, how long before it is due audio is released to the listeners.
        queue_seconds: In pace `speech`, how much may wait for that.
    """

    ahead_seconds: float = 2.0
    lead_seconds: float = 2.0
    queue_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Timed:
    """Audio of one frame with the time at which it is due, in seconds of the relay's clock."""

    piece: Piece
    due: float


@dataclass(frozen=True, slots=True)
class IngestRecord:
    """How a broadcaster's audio stood against real time, as plain values; times are in seconds of the relay's clock.

    Attributes:
        pace: A `Pace`.
        not_before: Nothing is due before it; None when nothing was to be heard.
        covered_until: In pace `live`, until when the audio so far lasts; None before the first.
    """

    pace: str
    not_before: float | None
    covered_until: float | None = None


class Ingest(Protocol):
    """What stands between a broadcaster and its channel."""

    pace: Pace

    def offer(self, pieces: Sequence[Piece], now: float) -> list[Timed]:
        """Take frames that came at `now`; gives what is to be released at once."""
        ...

    def release(self, now: float) -> list[Timed]:
        """Give what has to be released by now."""
        ...

    def next_release(self) -> float | None:
        """Tell when `release` has something to give; None when nothing waits."""
        ...

    def must_wait(self, now: float) -> float:
        """Tell how many seconds nothing more should be read from the broadcaster; 0 when it may go on."""
        ...

    def should_pause(self, now: float) -> bool:
        """Tell whether the broadcaster should stop by itself, before it is made to wait."""
        ...

    def is_far_ahead(self, now: float) -> bool:
        """Tell whether the broadcaster, once told to stop, should go on waiting."""
        ...

    def note_return(self, now: float) -> None:
        """Note that a broadcaster came which had the channel before, and brings what waited meanwhile."""
        ...

    def clear(self, now: float) -> AudioAmount:
        """Throw away what waits; gives how much that was. What comes next is due at once."""
        ...

    def lead_seconds(self, now: float) -> float:
        """Tell how far the broadcaster is ahead of real time."""
        ...

    def queued_seconds(self) -> float:
        """Tell how much waits here."""
        ...

    def queued_bytes(self) -> int:
        """Tell how many bytes that is."""
        ...

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """What waits here, oldest first."""
        ...

    def export(self) -> IngestRecord:
        """Give all but what waits as plain values."""
        ...


class LiveIngest:
    """Pace `live`: nothing waits here; only how fast it comes is watched."""

    pace = Pace.LIVE

    def __init__(self, limits: IngestLimits, not_before: float = -math.inf) -> None:
        """Make it for audio of which nothing is due before `not_before`, in seconds."""
        self._limit = limits.ahead_seconds
        self._not_before = not_before
        self._covered_until: float | None = None

    def offer(self, pieces: Sequence[Piece], now: float) -> list[Timed]:
        """Pass everything on, due now or when what was before it is over."""
        seconds = sum(piece.flicks for piece in pieces) / FLICKS_PER_SECOND
        covered = now if self._covered_until is None else max(self._covered_until, now - CATCH_UP_SECONDS)
        self._covered_until = covered + seconds / CLOCK_ALLOWANCE
        due = max(now, self._not_before)
        return [Timed(piece, due) for piece in pieces]

    def release(self, now: float) -> list[Timed]:  # noqa: ARG002 - the protocol's signature
        """Give nothing: nothing waits."""
        return []

    def next_release(self) -> float | None:
        """Give None: nothing waits."""
        return None

    def must_wait(self, now: float) -> float:
        """Tell how long until real time has come near enough."""
        excess = self.lead_seconds(now) - self._limit
        return 0.0 if excess <= 0 else max(excess, STEP_SECONDS)

    def should_pause(self, now: float) -> bool:
        """Tell whether it is nearly as far ahead as is allowed."""
        return self.lead_seconds(now) > self._limit * PAUSE_AT

    def is_far_ahead(self, now: float) -> bool:
        """Tell whether it is more than half of what is allowed ahead."""
        return self.lead_seconds(now) > self._limit * GO_ON_AT

    def note_return(self, now: float) -> None:
        """Let it make up for as much as after a stall, whatever the relay or another broadcaster did meanwhile."""
        self._covered_until = now - CATCH_UP_SECONDS

    def clear(self, now: float) -> AudioAmount:
        """Forget the lead, and what was before: nothing of it will be heard."""
        self._not_before = -math.inf
        self._covered_until = None if self._covered_until is None else min(self._covered_until, now)
        return AudioAmount()

    def lead_seconds(self, now: float) -> float:
        """Tell how far the audio so far reaches into the future."""
        return 0.0 if self._covered_until is None else max(0.0, self._covered_until - now)

    def queued_seconds(self) -> float:
        """Give 0: nothing waits."""
        return 0.0

    def queued_bytes(self) -> int:
        """Give 0: nothing waits."""
        return 0

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """Nothing."""
        return ()

    def export(self) -> IngestRecord:
        """Give it as plain values."""
        return IngestRecord(self.pace.value, _finite(self._not_before), self._covered_until)

    def restore(self, covered_until: float | None) -> None:
        """Take over how far the audio so far lasts."""
        self._covered_until = covered_until


class SpeechIngest:
    """Pace `speech`: audio waits until a little before it is due.

    Bound: `limits.queue_seconds`, in the frames that are held for so much (`frames_within`), and one message. Drops:
    nothing; the broadcaster is made to wait.
    """

    pace = Pace.SPEECH

    def __init__(self, limits: IngestLimits, not_before: float = -math.inf) -> None:
        """Make it for audio of which nothing is due before `not_before`, in seconds."""
        self._limits = limits
        self._queue: deque[Timed] = deque()
        self._queued = AudioAmount()
        self._next_due = not_before

    def offer(self, pieces: Sequence[Piece], now: float) -> list[Timed]:
        """Plan when each frame is due, and give those that are to be released already."""
        for piece in pieces:
            due = max(self._next_due, now)
            self._next_due = due + piece.seconds
            self._queue.append(Timed(piece, due))
            self._queued += _amount(piece)
        return self.release(now)

    def release(self, now: float) -> list[Timed]:
        """Give what is due within the lead."""
        released = []
        horizon = now + self._limits.lead_seconds
        while self._queue and self._queue[0].due <= horizon:
            released.append(self._queue.popleft())
            self._queued -= _amount(released[-1].piece)
        return released

    def next_release(self) -> float | None:
        """Tell when the next frame comes within the lead."""
        return self._queue[0].due - self._limits.lead_seconds if self._queue else None

    def must_wait(self, now: float) -> float:  # noqa: ARG002 - the protocol's signature
        """Tell how long until the queue has room again."""
        excess = self._filled_seconds - self._limits.queue_seconds
        return 0.0 if excess < 0 else max(excess, STEP_SECONDS)

    def should_pause(self, now: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """Tell whether the queue is nearly full."""
        return self._filled_seconds > self._limits.queue_seconds * PAUSE_AT

    def is_far_ahead(self, now: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """Tell whether the queue is more than half full."""
        return self._filled_seconds > self._limits.queue_seconds * GO_ON_AT

    @property
    def _filled_seconds(self) -> float:
        """How full the queue is, by the bound that is nearer."""
        return max(self.queued_seconds(), len(self._queue) / FRAMES_PER_SECOND)

    def note_return(self, now: float) -> None:
        """Change nothing: what comes is due behind what waits."""

    def clear(self, now: float) -> AudioAmount:
        """Throw the queue away; what comes next is due when it comes."""
        thrown_away, self._queued = self._queued, AudioAmount()
        self._queue.clear()
        self._next_due = min(self._next_due, now)
        return thrown_away

    def lead_seconds(self, now: float) -> float:
        """Tell how far the audio so far reaches into the future."""
        return max(0.0, self._next_due - now)

    def queued_seconds(self) -> float:
        """Tell how much waits."""
        return self._queued.seconds

    def queued_bytes(self) -> int:
        """Tell how many bytes wait."""
        return self._queued.bytes

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """What waits here, oldest first."""
        return tuple(self._queue)

    def export(self) -> IngestRecord:
        """Give all but what waits as plain values."""
        return IngestRecord(self.pace.value, _finite(self._next_due))

    def restore(self, waiting: Iterable[Timed]) -> None:
        """Take over what waits, as it was planned."""
        for timed in waiting:
            self._queue.append(timed)
            self._queued += _amount(timed.piece)


def ingest_for(pace: Pace, limits: IngestLimits, not_before: float = -math.inf) -> Ingest:
    """Make what a broadcaster of that pace needs; nothing is due before `not_before`, in seconds."""
    return (SpeechIngest if pace is Pace.SPEECH else LiveIngest)(limits, not_before)


def restore_ingest(record: IngestRecord, limits: IngestLimits, waiting: Iterable[Timed] = ()) -> Ingest:
    """Go on where another ingest was when it was exported, with what waited there."""
    not_before = -math.inf if record.not_before is None else record.not_before
    if record.pace == Pace.LIVE:
        live = LiveIngest(limits, not_before)
        live.restore(record.covered_until)
        return live
    speech = SpeechIngest(limits, not_before)
    speech.restore(waiting)
    return speech


def _finite(seconds: float) -> float | None:
    return None if seconds == -math.inf else seconds


def _amount(piece: Piece) -> AudioAmount:
    return AudioAmount(1, len(piece.audio), piece.flicks)
