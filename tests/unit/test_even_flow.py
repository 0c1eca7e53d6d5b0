"""A sender, a source and the relay's limit go through minutes of stalls. Listeners get audio evenly and on time.

The rules are those of the programs (`Outbox`, `LiveIngest` and `SpeechIngest`). The test simulates the clock,
the network and the relay's housekeeping in steps of 5 ms.
"""

import math
from collections import deque
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest

from relay.audio.arrival_rate import ArrivalRate
from relay.audio.ingest import CATCH_UP_SECONDS, Ingest, IngestLimits, Timed, ingest_for
from relay.client.outbox import READ_AHEAD_SECONDS, Dropping, Outbox
from relay.client.send_queue import SendQueue
from relay.vocabulary.audio import AudioFormat, Pace, Piece

MONO = AudioFormat()
FRAME_SECONDS = 0.02
FRAME_BYTES = 640
STEP_SECONDS = 0.005
HOUSEKEEPING_SECONDS = 0.5
SETTLED_SECONDS = 4.0
"""Time that audio may take to flow evenly again."""

AFTERWARDS_SECONDS = 60.0
"""How long a simulation goes on after its trouble."""

NEVER = (math.inf, math.inf)


@dataclass(frozen=True)
class Trouble:
    """When something stops: a span in seconds for each kind of trouble.

    Attributes:
        cut: There is no connection, and the relay remembers the channel.
        restart: There is no connection, and the relay remembers nothing.
        stuck: The connection accepts nothing.
        stopped: The sending program does nothing. The source's audio waits in its pipe.
        intruder: Another broadcaster holds the channel and is as far ahead as the relay allows.
    """

    cut: tuple[float, float] = NEVER
    restart: tuple[float, float] = NEVER
    stuck: tuple[float, float] = NEVER
    stopped: tuple[float, float] = NEVER
    intruder: tuple[float, float] = NEVER

    @property
    def over_at(self) -> float:
        spans = (self.cut, self.restart, self.stuck, self.stopped, self.intruder)
        return max(end for _, end in spans if end < math.inf)


def holds(span: tuple[float, float], now: float) -> bool:
    return span[0] <= now < span[1]


@dataclass(frozen=True)
class Source:
    """A source of audio.

    Attributes:
        dropping: Which audio the sender drops.
        speed: How many times real time the source can supply audio.
        is_scheduled: Whether the program sends the audio in real time, as it does with a file.
        late_seconds: Audio that arrived before the sender first reads.
        queue_seconds: Audio that may wait at the sender.
    """

    dropping: Dropping
    speed: float = 1.0
    is_scheduled: bool = False
    late_seconds: float = 0.0
    queue_seconds: float = 5.0


MICROPHONE = Source(Dropping.LATE)
BEGUN_BEFORE = [Source(Dropping.LATE, late_seconds=seconds) for seconds in (3.0, 5.5, 8.0)]
FAST_CARD = Source(Dropping.LATE, speed=1.002)
FAST_PIPE = Source(Dropping.LATE, speed=1000.0)
DOWNLOAD = Source(Dropping.LATE, speed=1.5)
PROGRAM = Source(Dropping.IN_CUTS)
HASTY_PROGRAM = Source(Dropping.IN_CUTS, speed=1000.0)
FILE = Source(Dropping.NEVER, speed=1000.0, is_scheduled=True, queue_seconds=1.0)
UNSCHEDULED = Source(Dropping.NEVER, speed=1000.0)


class Play:
    """One broadcast.

    Attributes:
        released: When the relay released each frame to its listeners, and the frame's number.
        due: When each frame is due.
        holds: When the relay sent `backpressure`.
        wrong: When the relay's verdict on the arrival rate changed.
        most_held_seconds: The most audio that waited at the sender at once.
    """

    def __init__(
        self, source: Source, trouble: Trouble, pace: Pace = Pace.LIVE, limits: IngestLimits | None = None
    ) -> None:
        self.source, self.trouble, self.pace = source, trouble, pace
        self.limits = limits or IngestLimits()
        self.queue = SendQueue(source.queue_seconds, 30.0)
        self.outbox = Outbox(pace, source.dropping, self.queue, 0.0)
        self.ingest: Ingest = ingest_for(pace, self.limits)
        self.network: deque[Piece] = deque()
        self.released: list[tuple[float, int]] = []
        self.due: list[float] = []
        self.holds: list[float] = []
        self.wrong: list[float] = []
        self.arrival = ArrivalRate()
        self.most_held_seconds = 0.0
        self.put = 0
        self.given_until = 0.0
        self.scheduled_from = 0.0
        self.read_at = 0.0
        self.is_held = False
        self.accepted = 0
        self.outbox.begin(None, 0.0)

    def run(self, seconds: float) -> "Play":
        for step in range(round(seconds / STEP_SECONDS)):
            now = step * STEP_SECONDS
            self._connect(now)
            if not holds(self.trouble.stopped, now):
                self._fill(now)
                self._send(now)
            self._receive(now)
            if step % round(HOUSEKEEPING_SECONDS / STEP_SECONDS) == 0:
                self._keep_house(now)
        return self

    def lag(self, at: int) -> float:
        """Return the seconds from when the source could first supply a frame until its release."""
        released_at, number = self.released[at]
        return released_at + self.source.late_seconds - (number + 1) * FRAME_SECONDS / self.source.speed

    def _connect(self, now: float) -> None:
        is_away = any(holds(span, now) for span in (self.trouble.cut, self.trouble.restart, self.trouble.intruder))
        if self.outbox.is_connected and is_away:
            self.network.clear()
            self.outbox.lose()
            if holds(self.trouble.restart, now):
                self.ingest = ingest_for(self.pace, self.limits)
        if holds(self.trouble.intruder, now):
            while not self.ingest.must_wait(now):
                self.ingest.offer([MONO.measure(bytes(FRAME_BYTES))], now)
        if not self.outbox.is_connected and not is_away:
            self.ingest.note_return(now)
            self.outbox.begin(self.accepted if self.trouble.restart is NEVER else None, now)
            self.accepted, self.is_held = 0, False
            self.arrival = ArrivalRate(CATCH_UP_SECONDS)

    def _fill(self, now: float) -> None:
        while (self.put + 1) * FRAME_SECONDS / self.source.speed <= now + self.source.late_seconds:
            if self.source.is_scheduled:
                late = now - self.scheduled_from - self.put * FRAME_SECONDS
                self.scheduled_from += late if late > 1.0 else 0.0
                if late < 0:
                    return
            self.outbox.look(now)
            if not self.outbox.has_room:
                return
            self.outbox.put(MONO.measure(self.put.to_bytes(4, "big") * (FRAME_BYTES // 4)), now)
            self.most_held_seconds = max(self.most_held_seconds, self.queue.held_seconds)
            self.put += 1

    def _send(self, now: float) -> None:
        while self.outbox.has_audio and not self.outbox.wait_seconds(now) and len(self.network) < 200:
            self.network.append(self.outbox.take(now))

    def _receive(self, now: float) -> None:
        if not holds(self.trouble.stuck, now):
            while self.network and now >= self.read_at:
                piece = self.network.popleft()
                self.accepted += piece.ticks
                self._note(now, self.ingest.offer([piece], now))
                is_ahead = self.ingest.should_pause(now)
                if self.arrival.note(FRAME_SECONDS, now, is_held=is_ahead):
                    self.wrong.append(now)
                if not self.is_held and is_ahead:
                    self.is_held = True
                    self.holds.append(now)
                    self.outbox.hold(now, on=True)
                self.read_at = now + self.ingest.must_wait(now)
        self._note(now, self.ingest.release(now))

    def _note(self, now: float, frames: list[Timed]) -> None:
        for timed in frames:
            self.released.append((now, int.from_bytes(timed.piece.audio[:4], "big")))
            self.due.append(timed.due)

    def _keep_house(self, now: float) -> None:
        if self.outbox.is_connected and not holds(self.trouble.stuck, now):
            self.queue.note_accepted(self.accepted)
            if self.is_held and not self.ingest.is_far_ahead(now):
                self.is_held = False
                self.outbox.hold(now, on=False)


@cache
def played(source: Source, trouble: Trouble) -> Play:
    """Return the course of live audio, which several tests judge."""
    return Play(source, trouble).run(trouble.over_at + AFTERWARDS_SECONDS)


def longest_pause(play: Play, after: float) -> float:
    times = [now for now, _ in play.released if now >= after]
    return max(later - earlier for earlier, later in pairwise(times))


CUTS = [Trouble(cut=(10, 10 + seconds)) for seconds in (1, 5, 20, 60)]
RESTARTS = [Trouble(restart=(10, 10 + seconds)) for seconds in (2, 5, 60)]
STALLS = [Trouble(stuck=(10, 16)), Trouble(stuck=(10, 18)), Trouble(stopped=(10, 16)), Trouble(stopped=(10, 70))]
TAKE_OVERS = [Trouble(intruder=(10, 11)), Trouble(intruder=(10, 20))]
SOON = [Trouble(cut=(1, 6)), Trouble(restart=(1, 6)), Trouble(stuck=(1, 7)), Trouble(stopped=(1, 7))]
ALL = [*CUTS, *RESTARTS, *STALLS, *TAKE_OVERS, *SOON]
CANNOT_WAIT = [MICROPHONE, *BEGUN_BEFORE, FAST_CARD]
CAN_WAIT = [FAST_PIPE, FILE, UNSCHEDULED]
SOURCES = [*CANNOT_WAIT, *CAN_WAIT, PROGRAM, HASTY_PROGRAM]


@pytest.mark.parametrize("trouble", ALL, ids=str)
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_whatever_stood_still_the_flow_is_even_again_within_four_seconds(source: Source, trouble: Trouble) -> None:
    play = played(source, trouble)
    assert longest_pause(play, trouble.over_at + SETTLED_SECONDS) <= FRAME_SECONDS + 0.1
    assert play.holds == [], "the sender keeps to the relay's limit by itself"
    assert play.released[-1][0] > trouble.over_at + AFTERWARDS_SECONDS - 1, "it goes on"
    assert play.wrong == [], "no sender catches up in a way that looks like a wrong rate"


@pytest.mark.parametrize("trouble", ALL, ids=str)
@pytest.mark.parametrize("source", CANNOT_WAIT, ids=str)
def test_live_audio_is_live_again_within_three_seconds(source: Source, trouble: Trouble) -> None:
    play = played(source, trouble)
    lags = [play.lag(at) for at, (now, _) in enumerate(play.released) if now > trouble.over_at + 3]
    assert max(lags) < 1
    if trouble.restart is NEVER:
        released = len(play.released) + len(play.queue) + len(play.network)
        assert play.queue.dropped.chunks + released == play.put, "what is dropped is counted"


@pytest.mark.parametrize("trouble", ALL, ids=str)
@pytest.mark.parametrize("source", CAN_WAIT, ids=str)
def test_what_can_wait_loses_nothing(source: Source, trouble: Trouble) -> None:
    play = played(source, trouble)
    assert play.queue.dropped.chunks == 0
    assert play.most_held_seconds < READ_AHEAD_SECONDS + 1
    numbers = [number for _, number in play.released]
    if trouble.restart is NEVER:
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("source", BEGUN_BEFORE, ids=str)
def test_live_audio_that_began_before_its_sender_is_live_within_three_seconds(source: Source) -> None:
    play = Play(source, Trouble()).run(AFTERWARDS_SECONDS)
    assert max(play.lag(at) for at, (now, _) in enumerate(play.released) if now > 3) < 1
    assert play.queue.dropped.seconds < source.late_seconds, "what the relay accepts at once is sent"


@pytest.mark.parametrize("trouble", [Trouble(), Trouble(stopped=(30, 36)), Trouble(cut=(30, 50))], ids=str)
def test_a_download_that_is_a_little_faster_than_real_time_loses_nothing(trouble: Trouble) -> None:
    play = Play(DOWNLOAD, trouble).run(120)
    assert play.queue.dropped.chunks == 0
    assert len(play.released) * FRAME_SECONDS > 90, "it goes on"


@pytest.mark.parametrize("trouble", ALL, ids=str)
def test_speech_is_due_evenly_and_loses_nothing(trouble: Trouble) -> None:
    play = Play(UNSCHEDULED, trouble, Pace.SPEECH).run(trouble.over_at + AFTERWARDS_SECONDS)
    assert play.queue.dropped.chunks == 0
    due = [due for due in play.due if due > trouble.over_at + SETTLED_SECONDS]
    assert max(later - earlier for earlier, later in pairwise(due)) == pytest.approx(FRAME_SECONDS)
    assert longest_pause(play, trouble.over_at + SETTLED_SECONDS) <= FRAME_SECONDS + 0.1


@pytest.mark.parametrize("source", [MICROPHONE, FAST_PIPE, HASTY_PROGRAM, UNSCHEDULED], ids=str)
def test_a_relay_that_allows_less_is_obeyed_once(source: Source) -> None:
    """The sender's head start reaches the narrow limit at first, but not for long."""
    play = Play(source, Trouble(restart=(10, 15)), limits=IngestLimits(ahead_seconds=0.5)).run(80)
    assert len(play.holds) <= 2
    assert longest_pause(play, 19) <= FRAME_SECONDS + 0.1


def test_audio_that_is_late_for_good_is_dropped_and_told_once() -> None:
    """The connection carries 1.5 times real time, so the backlog of a stall does not drain in time."""
    queue = SendQueue(5.0, 30.0)
    outbox = Outbox(Pace.LIVE, Dropping.LATE, queue, 0.0)
    outbox.begin(None, 0.0)
    told: list[float] = []
    held: list[float] = []
    for step in range(1500):
        now = step * FRAME_SECONDS
        outbox.look(now)
        outbox.put(MONO.measure(bytes(FRAME_BYTES)), now)
        told += [seconds] if (seconds := outbox.take_late_seconds(now)) else []
        for _ in range(0 if 5 <= now < 9 else 1 + step % 2):
            if outbox.has_audio and not outbox.wait_seconds(now):
                outbox.take(now)
        queue.note_accepted(10**9)
        held.append(queue.held_seconds)
    assert max(held) > 3.9
    assert max(held[round(12 / FRAME_SECONDS) :]) < 1
    assert [round(seconds) for seconds in told] == [round(queue.dropped.seconds)]
    assert 1 < queue.dropped.seconds < 4
