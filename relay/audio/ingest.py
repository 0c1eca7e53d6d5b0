"""Schedules a broadcaster's audio in real time: when it is due, and when the broadcaster has sent enough.

Only the broadcaster knows whether its audio is late or early. In pace `live` (a microphone), audio is due when it
arrives. After a stall it is passed on at once, so that listeners catch up. In pace `speech` (synthesis), a sentence
that arrives in one burst is due word after word, and none of it may be skipped. A broadcaster that returns first sends
what it could not send before. That audio is late, not ahead. No audio is due before the remaining audio of a previous
broadcaster is over.

Invariants: Due times never decrease. Audio is released in order. A broadcaster that obeys `must_wait` never makes the
queue exceed its bound. Time is an argument, in seconds.

Source: docs/protocol.md, "Numbering and time".
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from relay.audio.amounts import AudioAmount
from relay.vocabulary.audio import FLICKS_PER_SECOND, FRAMES_PER_SECOND, Pace, Piece

CATCH_UP_SECONDS = 10.0
"""The most audio of pace `live` that may arrive at once after a stall. Older audio is of no use to listeners."""

FORGIVEN_SECONDS = 12.0
"""The most lead that is forgiven at once: what listeners may have received early, and a stall.

More is forgiven only as time passes, so a broadcaster that clears or returns again and again sends at most twice as
fast as real time.
"""

CLOCK_ALLOWANCE = 1.01
"""A sound card whose clock is this much faster than the relay's is not ahead of real time."""

PAUSE_AT = 0.8
"""The share of its limit at which a broadcaster is asked to stop. The rest is room for audio in transit."""

GO_ON_AT = 0.5
"""The share of its limit at which a broadcaster may continue."""

STEP_SECONDS = 0.02
"""The shortest wait. A broadcaster that is held back continues in steps of about a frame."""


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """How far ahead of real time a broadcaster may be.

    Attributes:
        ahead_seconds: In pace `live`, the lead of the broadcaster; listeners receive all of it at once.
        lead_seconds: In pace `speech`, how long before its due time audio is released to listeners.
        queue_seconds: In pace `speech`, how much audio may wait for its release.
    """

    ahead_seconds: float = 2.0
    lead_seconds: float = 2.0
    queue_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Timed:
    """Audio of one frame, and its due time in seconds of the relay's clock."""

    piece: Piece
    due: float


@dataclass(frozen=True, slots=True)
class IngestRecord:
    """The schedule of a broadcaster's audio, as plain values. Times are in seconds of the relay's clock.

    Attributes:
        pace: A `Pace`.
        not_before: The earliest due time of the next audio; None if nothing else remains to be heard.
        covered_until: In pace `live`, when the audio so far is over; None before the first audio.
    """

    pace: str
    not_before: float | None
    covered_until: float | None = None


class Leniency:
    """Limits how much lead a channel's broadcasters are forgiven: as much as time passes, and `FORGIVEN_SECONDS`."""

    def __init__(self) -> None:
        self._spent_until = -math.inf

    def forgive(self, seconds: float, now: float) -> float:
        """Forgive as many of these seconds of lead as possible, and return how many that are."""
        spent_until = max(self._spent_until, now)
        forgiven_seconds = max(0.0, min(seconds, now + FORGIVEN_SECONDS - spent_until))
        self._spent_until = spent_until + forgiven_seconds
        return forgiven_seconds


class Ingest(ABC):
    """The schedule between a broadcaster and its channel. This base is for a pace in which no audio waits.

    Args:
        limits: How far ahead of real time the broadcaster may be.
        not_before: The earliest due time of its audio, in seconds of the relay's clock.

    Attributes:
        leniency: Limits how much lead is forgiven.
    """

    pace: Pace

    def __init__(self, limits: IngestLimits, not_before: float = -math.inf) -> None:
        self._limits = limits
        self._not_before = not_before
        self.leniency = Leniency()

    def follow(self, before: "Ingest", now: float) -> None:
        """Continue after the ingest of a broadcaster with another format or pace: lead that it left remains lead."""
        self.leniency = before.leniency
        if (lead_seconds := before.lead_seconds(now)) > 0:
            self._owe(now + lead_seconds)

    @abstractmethod
    def _owe(self, until: float) -> None:
        """Count time up to this moment as covered by audio."""

    @abstractmethod
    def offer(self, pieces: Sequence[Piece], now: float) -> list[Timed]:
        """Accept frames that arrived at `now`. Return those to release at once."""

    def release(self, now: float) -> list[Timed]:  # noqa: ARG002 - here, no audio waits for a time
        """Return the frames to release by now."""
        return []

    def next_release(self) -> float | None:
        """Return the time of the next release; None if nothing waits."""
        return None

    @abstractmethod
    def must_wait(self, now: float) -> float:
        """Return how many seconds to stop reading from the broadcaster; 0 to continue."""

    def should_pause(self, now: float) -> bool:
        """Whether the broadcaster should stop by itself, before it is made to wait."""
        return self._used_share(now) > PAUSE_AT

    def is_far_ahead(self, now: float) -> bool:
        """Whether a broadcaster that was asked to stop should keep waiting."""
        return self._used_share(now) > GO_ON_AT

    @abstractmethod
    def _used_share(self, now: float) -> float:
        """Return how much of its limit the broadcaster uses."""

    @abstractmethod
    def note_return(self, now: float) -> None:
        """Record that a broadcaster took its channel back and brings the audio that it could not send before."""

    @abstractmethod
    def clear(self, now: float) -> AudioAmount:
        """Drop the waiting audio, and return its amount. The next audio is due when it arrives, if that is forgiven."""

    @abstractmethod
    def lead_seconds(self, now: float) -> float:
        """Return how far the audio so far extends into the future."""

    def queued_seconds(self) -> float:
        """Return how many seconds of audio wait."""
        return 0.0

    def queued_bytes(self) -> int:
        """Return how many bytes of audio wait."""
        return 0

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """The waiting audio, oldest first."""
        return ()

    def latest(self, count: int) -> list[Timed]:  # noqa: ARG002 - here, no audio waits
        """Return the audio that waits of the latest `count` frames, oldest first."""
        return []

    def export(self) -> IngestRecord:
        """Return the schedule as plain values, without the waiting audio."""
        return IngestRecord(self.pace.value, None if self._not_before == -math.inf else self._not_before)


class LiveIngest(Ingest):
    """Pace `live`: no audio waits; only its speed is watched."""

    pace = Pace.LIVE

    def __init__(self, limits: IngestLimits, not_before: float = -math.inf) -> None:
        super().__init__(limits, not_before)
        self._covered_until: float | None = None

    def offer(self, pieces: Sequence[Piece], now: float) -> list[Timed]:
        """Pass everything on, due now or when the earlier audio is over."""
        seconds = sum(piece.flicks for piece in pieces) / FLICKS_PER_SECOND
        covered = now if self._covered_until is None else max(self._covered_until, now - CATCH_UP_SECONDS)
        self._covered_until = covered + seconds / CLOCK_ALLOWANCE
        due = max(now, self._not_before)
        return [Timed(piece, due) for piece in pieces]

    def must_wait(self, now: float) -> float:
        """Return how long the lead exceeds its limit."""
        excess = self.lead_seconds(now) - self._limits.ahead_seconds
        return 0.0 if excess <= 0 else max(excess, STEP_SECONDS)

    def _used_share(self, now: float) -> float:
        return self.lead_seconds(now) / self._limits.ahead_seconds

    def _owe(self, until: float) -> None:
        self._covered_until = until

    def note_return(self, now: float) -> None:
        """Allow as much catching up as after a stall, even if another broadcaster sent audio in between."""
        covered = now if self._covered_until is None else max(self._covered_until, now - CATCH_UP_SECONDS)
        self._covered_until = covered - self.leniency.forgive(covered + CATCH_UP_SECONDS - now, now)

    def clear(self, now: float) -> AudioAmount:
        """Forget the lead and the earlier audio, which nobody will hear."""
        self._not_before = -math.inf
        if self._covered_until is not None:
            self._covered_until -= self.leniency.forgive(self._covered_until - now, now)
        return AudioAmount()

    def lead_seconds(self, now: float) -> float:
        """Return how far the audio so far extends into the future."""
        return 0.0 if self._covered_until is None else max(0.0, self._covered_until - now)

    def export(self) -> IngestRecord:
        """Return the schedule as plain values."""
        return replace(super().export(), covered_until=self._covered_until)

    def restore(self, covered_until: float | None) -> None:
        """Set when the audio so far is over."""
        self._covered_until = covered_until


class SpeechIngest(Ingest):
    """Pace `speech`: audio waits until shortly before it is due. After the first audio, `not_before` is its end.

    Bound: `limits.queue_seconds` of audio, as many frames as such audio has at most (`frames_within`), and one message.
    Drops: nothing; the broadcaster has to wait.
    """

    pace = Pace.SPEECH

    def __init__(self, limits: IngestLimits, not_before: float = -math.inf) -> None:
        super().__init__(limits, not_before)
        self._queue: deque[Timed] = deque()
        self._queued = AudioAmount()

    def offer(self, pieces: Sequence[Piece], now: float) -> list[Timed]:
        """Schedule each frame, and return those to release already."""
        for piece in pieces:
            due = max(self._not_before, now)
            self._not_before = due + piece.seconds
            self._queue.append(Timed(piece, due))
            self._queued += _amount(piece)
        return self.release(now)

    def release(self, now: float) -> list[Timed]:
        """Return the frames that are due within the lead."""
        released = []
        horizon = now + self._limits.lead_seconds
        while self._queue and self._queue[0].due <= horizon:
            released.append(self._queue.popleft())
            self._queued -= _amount(released[-1].piece)
        return released

    def next_release(self) -> float | None:
        """Return when the next frame comes within the lead."""
        return self._queue[0].due - self._limits.lead_seconds if self._queue else None

    def must_wait(self, now: float) -> float:  # noqa: ARG002 - the queue's length does not depend on the time
        """Return how long until the queue has room again."""
        excess = self._filled_seconds - self._limits.queue_seconds
        return 0.0 if excess < 0 else max(excess, STEP_SECONDS)

    def _used_share(self, now: float) -> float:  # noqa: ARG002 - the queue's length does not depend on the time
        return self._filled_seconds / self._limits.queue_seconds

    @property
    def _filled_seconds(self) -> float:
        """How full the queue is, by the bound that is closer."""
        return max(self.queued_seconds(), len(self._queue) / FRAMES_PER_SECOND)

    def _owe(self, until: float) -> None:
        self._not_before = max(self._not_before, until)

    def note_return(self, now: float) -> None:
        """Change nothing: new audio is due after the waiting audio."""

    def clear(self, now: float) -> AudioAmount:
        """Drop the queue. The next audio is due when it arrives."""
        released_until = self._queue[0].due if self._queue else self._not_before
        thrown_away, self._queued = self._queued, AudioAmount()
        self._queue.clear()
        self._not_before = released_until - self.leniency.forgive(released_until - now, now)
        return thrown_away

    def lead_seconds(self, now: float) -> float:
        """Return how far the audio so far extends into the future."""
        return max(0.0, self._not_before - now)

    def queued_seconds(self) -> float:
        """Return how many seconds of audio wait."""
        return self._queued.seconds

    def queued_bytes(self) -> int:
        """Return how many bytes of audio wait."""
        return self._queued.bytes

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """The waiting audio, oldest first."""
        return tuple(self._queue)

    def latest(self, count: int) -> list[Timed]:
        """Return the audio that waits of the latest `count` frames, oldest first."""
        return [self._queue[index] for index in range(-min(count, len(self._queue)), 0)]

    def restore(self, waiting: Iterable[Timed], now: float) -> None:
        """Add waiting audio as it was scheduled. If some is overdue, all of it moves, because nobody heard it."""
        not_before = now
        for timed in waiting:
            due = max(timed.due, not_before)
            not_before = due + timed.piece.seconds
            self._queue.append(Timed(timed.piece, due))
            self._queued += _amount(timed.piece)
        if self._queue:
            self._not_before = max(self._not_before, not_before)


def ingest_for(pace: Pace, limits: IngestLimits, not_before: float = -math.inf) -> Ingest:
    """Create the ingest for a pace. No audio is due before `not_before`, in seconds."""
    return (SpeechIngest if pace is Pace.SPEECH else LiveIngest)(limits, not_before)


def restore_ingest(record: IngestRecord, limits: IngestLimits, waiting: Iterable[Timed], now: float) -> Ingest:
    """Continue an exported ingest at `now`, with the audio that waited there."""
    not_before = -math.inf if record.not_before is None else record.not_before
    if record.pace == Pace.LIVE:
        live = LiveIngest(limits, not_before)
        live.restore(record.covered_until)
        return live
    speech = SpeechIngest(limits, not_before)
    speech.restore(waiting, now)
    return speech


def _amount(piece: Piece) -> AudioAmount:
    return AudioAmount(1, len(piece.audio), piece.flicks)
