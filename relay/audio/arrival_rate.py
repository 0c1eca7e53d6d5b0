"""Measures how fast a live source's audio arrives. Audio of 24 kHz announced as 16 kHz arrives 1.5 times too fast.

Three cases look like a wrong rate but are not:
- After a pause (a stall, or a source that sends only speech) a sender may catch up. A pause is therefore a debt, which
  audio faster than real time pays first.
- A sender that omits short silences is slow overall, but most of its messages follow each other in real time.
- A burst is fast, but not for ten seconds.

While a receiver holds a source back, it sees only the speed that it allows. The speed before the hold is therefore the
measure, and stays valid while the source keeps pressing. A source that is held back from the start, such as a file or a
full pipe, shows no speed and gets no verdict.

Invariants: A verdict takes ten seconds. Nothing here reads a clock; time is an argument, in seconds.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median
from typing import NamedTuple

from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat, Codec

TOLERANCE = 0.05
"""The largest deviation from real time that counts as right. Sound cards deviate less, and the closest usual rates
differ by 8 %."""

JUDGED_SECONDS = 10.0
"""How long a rate must be wrong, or right again, before a verdict."""

SAME_RATE = 0.02
"""How close a rate must be to a usual format before that format is named."""

PAUSE_SECONDS = 0.5
"""A gap that is longer than this plus two messages is a pause: the source sent nothing, or could not."""

LONGEST_DEBT_SECONDS = 60.0
"""The most that a source may catch up. Without it, an hour of silence would hide a wrong rate for another hour."""

_CELL_SECONDS = 1.0
_CELLS = round(JUDGED_SECONDS / _CELL_SECONDS)

_CELL_MESSAGES = 4
"""The fewest messages in a cell. Long messages make a cell longer, because its length would otherwise be random."""

_VOTES = 8
"""How many of the judged seconds must be too fast, or too slow, on their own."""

_EVENT_SECONDS = 0.01
"""Messages closer together than this arrived together: a network or a busy machine delivers in clumps."""

_CLUMP_SPEED = 4 / 3
"""Messages of a slow source that arrive this much faster than real time are one clump, however far it is spread."""

_STRETCH_SECONDS = 0.1
"""Where frames and the writes of a pipe differ in length, frames arrive alternately too soon and too late."""

_LONGEST_CLUMP_SECONDS = 0.25
"""The most audio in a clump; more is a burst."""

MAX_EVENTS = round(JUDGED_SECONDS / _EVENT_SECONDS)
"""The most arrivals that are kept of a broadcaster."""

_LEAST_RAMP_SECONDS = 0.25
"""A source that is held back earlier than this has sent a burst."""

_EVEN = 0.25
"""The least that a source that is too fast gains in each quarter of the time, as a share of an even gain."""

_PRESSING = 0.25
"""The least share of its lead at the first hold that a source keeps while it goes on pressing. A source that obeys
falls to a half. A source that sends sentence after sentence in bursts falls to nothing."""

_LONGEST_WAIT_SECONDS = 3.0
"""The longest pause of a source that obeys a hold. Such a pause creates no debt."""


class _Event(NamedTuple):
    """Audio that arrived at one time. All values are in seconds; `gap` is the time since the previous event."""

    at: float
    gap: float
    audio: float


@dataclass(frozen=True, slots=True)
class _Ramp:
    """How a source's audio arrived before the source was first held back.

    Attributes:
        ratio: Its speed relative to real time.
        since: When the ramp began.
        level: How far ahead the source was then, counted from the source's start.
        held_level: How far ahead it was at the hold, counted the same way.
    """

    ratio: float
    since: float
    level: float
    held_level: float


class ArrivalRate:
    """Watches the audio of one live source. It keeps ten seconds of arrival times, at most a thousand.

    Args:
        owed_seconds: How much audio the source may catch up from the start.

    Attributes:
        ratio: The speed of the last ten seconds relative to real time if that is wrong; None if it is right or not
            known yet. It stays until ten seconds were right.
    """

    def __init__(self, owed_seconds: float = 0.0) -> None:
        self.ratio: float | None = None
        self._last_at: float | None = None
        self._last_seconds = 0.0
        self._debt = owed_seconds
        self._paid_at = -inf
        self._total = 0.0
        """Audio minus time, since the start of the source."""
        self._ramp: _Ramp | None = None
        self._was_held = False
        self._begin(0.0)

    def note(self, seconds: float, now: float, *, is_held: bool = False) -> bool:
        """Record audio that arrived at `now`, and whether the source is held back from then on.

        Returns:
            Whether the verdict changed to wrong or right.
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
        """Start a new measurement, unrelated to what came before."""
        self._event_at = now
        self._events = deque[_Event](maxlen=MAX_EVENTS)
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
        """Compare the largest lead of each second. Lateness that the source makes up for does not count."""
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
        """Whether most messages were later than real time, not just a few after an omitted silence."""
        stretches = _join_stretches(_join_clumps(self._events))
        mean = sum(each.gap for each in stretches) / sum(each.audio for each in stretches)
        limit = (1 + mean) / 2
        return sum(each.gap > limit * each.audio for each in stretches) * 2 > len(stretches)

    def _measure_ramp(self) -> _Ramp | None:
        """Return how the audio arrived until now; None if it was a burst or in real time."""
        events = [event for event in self._events if event.at > self._paid_at]
        ahead = sum(event.audio - event.gap for event in events)
        # More messages may still join the last event.
        del events[-1:]
        if not events:
            return None
        began = events[0].at - events[0].gap
        span = events[-1].at - began
        if span < _LEAST_RAMP_SECONDS:
            return None
        # The largest lead in each quarter: a burst shows in one quarter, and lateness that is made up for in none.
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
        """Whether the source is no longer as far ahead as a source that keeps pressing."""
        ramp = self._ramp
        return ramp is not None and self._total < ramp.level + (ramp.held_level - ramp.level) * _PRESSING

    def _find(self, ratio: float | None) -> bool:
        """Set the verdict. Return whether it changed."""
        if _direction(ratio) == _direction(self.ratio):
            return False
        self.ratio = ratio
        return True


def _join_clumps(events: Iterable[_Event]) -> list[_Event]:
    """Join the events of each clump into one, with the time since the previous clump."""
    clumps = list[_Event]()
    for event in events:
        last = clumps[-1] if clumps else None
        since = 0.0 if last is None else event.at - last.at
        if last is not None and since < min(last.audio, _LONGEST_CLUMP_SECONDS) / _CLUMP_SPEED:
            clumps[-1] = last._replace(audio=last.audio + event.audio)
        else:
            clumps.append(event if last is None else event._replace(gap=since))
    return clumps


def _join_stretches(clumps: Iterable[_Event]) -> list[_Event]:
    """Join successive clumps to stretches of audio that are long against the steps in which a pipe delivers."""
    stretches = list[_Event]()
    for clump in clumps:
        last = stretches[-1] if stretches else None
        if last is not None and last.audio < _STRETCH_SECONDS:
            stretches[-1] = clump._replace(audio=last.audio + clump.audio, gap=last.gap + clump.gap)
        else:
            stretches.append(clump)
    return stretches


def _direction(ratio: float | None) -> int:
    return 0 if ratio is None else 1 if ratio > 1 else -1


def looks_like(announced: AudioFormat, ratio: float) -> str:
    """Return the usual formats whose audio would arrive at this speed; an empty string if there are none.

    They differ from the announced format in sample rate or number of channels. A packet of Opus says itself how long it
    lasts, so no other format would explain its speed.
    """
    if announced.codec is not Codec.PCM_S16LE:
        return ""
    rates = [AudioFormat(announced.codec, rate, announced.channels) for rate in SAMPLE_RATES]
    channels = [AudioFormat(announced.codec, announced.rate, count) for count in CHANNEL_COUNTS]
    actual = announced.bytes_per_second * ratio
    return " or ".join(str(each) for each in rates + channels if abs(actual / each.bytes_per_second - 1) <= SAME_RATE)
