"""How fast a live source's audio arrives, against real time: 24 kHz announced as 16 kHz comes 1.5 times too fast.

Three things look like a wrong rate and are none. After a pause (a stall, or a source that sends only speech) a sender
may catch up, so a pause is a debt that audio faster than real time pays first. A sender that leaves out short silences
is slow on the whole, but most of its messages follow each other in real time. A burst is fast, but not for ten seconds.

A receiver that holds a source back sees no more of its speed than it lets through. So what came before the hold is the
measure, and counts as long as the source goes on pressing. One that is held back from its first moment on shows no
speed, be it a file or a pipe that was full, and there is no verdict.

Invariants: a verdict needs ten seconds; nothing here reads a clock: time is an argument, in seconds.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median
from typing import NamedTuple

from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat

TOLERANCE = 0.05
"""A rate that is further from real time is wrong. No sound card's clock is; the nearest usual rates differ by 8 %."""

JUDGED_SECONDS = 10.0
"""How long it has to be."""

SAME_RATE = 0.02
"""How near to a usual format a rate must be for that format to be named."""

PAUSE_SECONDS = 0.5
"""A gap that is longer, by two messages, is a pause: nothing was sent, or it could not be."""

LONGEST_DEBT_SECONDS = 60.0
"""How much a source may catch up; an hour of silence does not hide a wrong rate for another hour."""

_CELL_SECONDS = 1.0
_CELLS = round(JUDGED_SECONDS / _CELL_SECONDS)

_CELL_MESSAGES = 4
"""With long messages a cell is longer, since with fewer of them its length is chance."""

_VOTES = 8
"""Of so many seconds, how many must be too fast, or too slow, by themselves."""

_EVENT_SECONDS = 0.01
"""Messages that are nearer to each other came together: a network, or a busy machine, delivers in clumps."""

_CLUMP_SPEED = 4 / 3
"""The messages of a slow source that come this much faster than real time came in a clump, however far it is spread."""

_LONGEST_CLUMP_SECONDS = 0.25
"""How much audio a clump may be; more is a burst."""

_MAX_EVENTS = round(JUDGED_SECONDS / _EVENT_SECONDS)

_LEAST_RAMP_SECONDS = 0.25
"""A source that is held back sooner has sent a burst."""

_EVEN = 0.25
"""What a source that is too fast gains in each quarter of the time, of what it would gain in it by its speed."""

_PRESSING = 0.25
"""How much of what it was ahead at its first hold a source always is that goes on pressing. One that does as it is told
falls to a half; one that sends sentence after sentence in bursts falls to nothing."""

_LONGEST_WAIT_SECONDS = 3.0
"""A source that is held back and does as it is told pauses for no longer, and owes nothing for it."""


class _Event(NamedTuple):
    """Audio that came at one time, in seconds; `gap` is the time since the event before."""

    at: float
    gap: float
    audio: float


@dataclass(frozen=True, slots=True)
class _Ramp:
    """How a source came before it was first held back.

    Attributes:
        ratio: Times real time.
        since: When it began.
        level: How far ahead it was then, and at the hold, since the source began.
        held_level: The latter.
    """

    ratio: float
    since: float
    level: float
    held_level: float


class ArrivalRate:
    """Watches the audio of one live source. It keeps ten seconds of arrival times, a thousand at most.

    Attributes:
        ratio: How many times as fast as real time audio has come for ten seconds, when that is wrong; None when it is
            right, or not known yet. It stands until ten seconds were right.
    """

    def __init__(self, owed_seconds: float = 0.0) -> None:
        """Watch a source that may have `owed_seconds` to catch up from the start."""
        self.ratio: float | None = None
        self._last_at: float | None = None
        self._last_seconds = 0.0
        self._debt = owed_seconds
        self._paid_at = -inf
        self._total = 0.0
        """Audio less time, since the source began."""
        self._ramp: _Ramp | None = None
        self._was_held = False
        self._begin(0.0)

    def note(self, seconds: float, now: float, *, is_held: bool = False) -> bool:
        """Note that so much audio came at `now`, and whether the source is held back from there on.

        Returns:
            Whether the source became wrong, or right, by it.
        """
        if self._last_at is None:
            self._begin(now)
        else:
            gap = now - self._last_at
            self._total -= gap
            if self._ramp is not None and self._has_let_go():
                self._ramp = None
            if gap > PAUSE_SECONDS + 2 * max(seconds, self._last_seconds):
                if not self._was_held or gap > _LONGEST_WAIT_SECONDS:
                    self._debt = min(self._debt + gap - seconds, LONGEST_DEBT_SECONDS)
                self._begin(now)
            else:
                self._take(seconds, gap, now)
            self._total += seconds
        self._last_at, self._last_seconds, self._was_held = now, seconds, is_held
        return self._judge_hold(now) if is_held else self._judge_cells(now)

    def _judge_hold(self, now: float) -> bool:
        self._ramp = self._ramp or self._measure_ramp()
        self._begin(now)
        if self._ramp is None or now - self._ramp.since < JUDGED_SECONDS:
            return False
        return self._find(self._ramp.ratio)

    def _begin(self, now: float) -> None:
        """Begin to watch anew: what comes next does not follow what came before."""
        self._event_at = now
        self._events = deque[_Event](maxlen=_MAX_EVENTS)
        self._level = self._top = 0.0
        self._cells = deque[tuple[float, float]](maxlen=_CELLS + 1)
        self._begin_cell(now)

    def _begin_cell(self, now: float) -> None:
        self._cell_at, self._cell_top, self._cell_messages = now, -inf, 0

    def _take(self, seconds: float, gap: float, now: float) -> None:
        since_event = now - self._event_at
        if not self._events or since_event >= max(_EVENT_SECONDS, seconds / 8):
            self._events.append(_Event(now, since_event, seconds))
            self._event_at = now
        else:
            at, event_gap, audio = self._events.pop()
            self._events.append(_Event(at, event_gap, audio + seconds))
        self._level += seconds - gap
        paid = min(self._debt, max(0.0, self._level - self._top))
        self._debt -= paid
        self._paid_at = now if paid else self._paid_at
        self._level -= paid
        self._top = max(self._top, self._level)
        self._cell_top = max(self._cell_top, self._level)
        self._cell_messages += 1

    def _judge_cells(self, now: float) -> bool:
        """Compare how far ahead the source was at best, in each second; lateness that is made up for is none."""
        if now - self._cell_at < _CELL_SECONDS or self._cell_messages < _CELL_MESSAGES:
            return False
        self._cells.append((self._cell_at, self._cell_top))
        self._begin_cell(now)
        if len(self._cells) <= _CELLS:
            return False
        cells = list(self._cells)
        gains = [(top - top_0) / (at - at_0) for (at_0, top_0), (at, top) in pairwise(cells)]
        gain = (cells[-1][1] - cells[0][1]) / (cells[-1][0] - cells[0][0])
        if abs(gain) <= TOLERANCE:
            return self._find(None)
        direction = 1 if gain > 0 else -1
        is_even = sum(each * direction > TOLERANCE for each in gains) >= _VOTES
        if is_even and (gain > 0 or self._is_slow_throughout()):
            return self._find(1 + median(gains))
        return False

    def _is_slow_throughout(self) -> bool:
        """Tell whether most messages came later than real time, not only some after a silence that was left out."""
        clumps = _join_clumps(self._events)
        mean = sum(clump.gap for clump in clumps) / sum(clump.audio for clump in clumps)
        limit = (1 + mean) / 2
        return sum(clump.gap > limit * clump.audio for clump in clumps) * 2 > len(clumps)

    def _measure_ramp(self) -> _Ramp | None:
        """Tell how the source came until now; None when it was a burst, or in real time."""
        events = [event for event in self._events if event.at > self._paid_at]
        ahead = sum(event.audio - event.gap for event in events)
        # To the last event more may belong that has not come.
        del events[-1:]
        if not events:
            return None
        began = events[0].at - events[0].gap
        span = events[-1].at - began
        if span < _LEAST_RAMP_SECONDS:
            return None
        # How far ahead it was at best in each quarter: a burst stays in one, and lateness that is made up for in none.
        tops: list[tuple[float, float] | None] = [None] * 4
        level = 0.0
        for event in events:
            level += event.audio - event.gap
            quarter = min(3, int((event.at - began) / span * 4))
            top = tops[quarter]
            if top is None or level >= top[0]:
                tops[quarter] = level, event.at
        known = [top for top in tops if top is not None]
        (first_level, first_at), (last_level, last_at) = known[0], known[-1]
        least = (last_level - first_level) / len(tops) * _EVEN
        if len(known) < len(tops) or any(later[0] - earlier[0] < least for earlier, later in pairwise(known)):
            return None
        ratio = 1 + (last_level - first_level) / (last_at - first_at)
        if ratio <= 1 + TOLERANCE:
            return None
        return _Ramp(ratio, began, self._total - ahead, self._total)

    def _has_let_go(self) -> bool:
        """Tell whether the source is not as far ahead any more as one that is held back."""
        ramp = self._ramp
        return ramp is not None and self._total < ramp.level + (ramp.held_level - ramp.level) * _PRESSING

    def _find(self, ratio: float | None) -> bool:
        """Take a verdict; tells whether it is another one."""
        if _direction(ratio) == _direction(self.ratio):
            return False
        self.ratio = ratio
        return True


def _join_clumps(events: Iterable[_Event]) -> list[_Event]:
    """Take what came in a clump as one event, with the time since the clump before."""
    clumps = list[_Event]()
    for event in events:
        last = clumps[-1] if clumps else None
        since = 0.0 if last is None else event.at - last.at
        if last is not None and since < min(last.audio, _LONGEST_CLUMP_SECONDS) / _CLUMP_SPEED:
            clumps[-1] = last._replace(audio=last.audio + event.audio)
        else:
            clumps.append(event if last is None else event._replace(gap=since))
    return clumps


def _direction(ratio: float | None) -> int:
    return 0 if ratio is None else 1 if ratio > 1 else -1


def looks_like(announced: AudioFormat, ratio: float) -> str:
    """Name the usual formats of which audio would come at this speed; empty when there are none.

    They differ from what was announced in the rate or in the number of channels.
    """
    rates = [AudioFormat(announced.codec, rate, announced.channels) for rate in SAMPLE_RATES]
    channels = [AudioFormat(announced.codec, announced.rate, count) for count in CHANNEL_COUNTS]
    actual = announced.bytes_per_second * ratio
    return " or ".join(str(each) for each in rates + channels if abs(actual / each.bytes_per_second - 1) <= SAME_RATE)
