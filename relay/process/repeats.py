"""Which of many lines that say the same are written: the first ones of each interval, and then how many were left out.

Invariants: what was left out of a kind is told once, when its interval is over; no more than `MAX_KINDS` kinds are
remembered, and beyond them all count as one. Time is an argument, in seconds.
"""

from collections.abc import Hashable
from dataclasses import dataclass

MAX_KINDS = 1000
"""Kinds that are remembered, some hundred bytes each: more than there are sentences that the relay writes."""

_OTHERS = "others"


@dataclass(slots=True)
class _Kind:
    """What is known of one kind in its present interval.

    Attributes:
        ends_at: When the interval is over.
        written: Lines of it that were written.
        left_out: Lines of it that were not.
    """

    ends_at: float
    written: int = 0
    left_out: int = 0


class Repeats:
    """Tells lines that are written from those that are only counted."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self._kinds: dict[Hashable, _Kind] = {}

    def admit(self, kind: Hashable, most: int, interval_seconds: float, now: float) -> bool:
        """Tell whether a line of this kind is to be written, of which `most` are in an interval; else it is counted."""
        known = self._kinds.get(kind)
        if known is None:
            kind = kind if len(self._kinds) < MAX_KINDS else _OTHERS
            known = self._kinds.setdefault(kind, _Kind(now + interval_seconds))
        if known.written < most:
            known.written += 1
            return True
        known.left_out += 1
        return False

    def over(self, now: float) -> list[tuple[Hashable, int]]:
        """End the intervals that are over; gives the kinds of which lines were left out in them, and how many."""
        ended = {kind: known for kind, known in self._kinds.items() if known.ends_at <= now}
        for kind in ended:
            del self._kinds[kind]
        return [(kind, known.left_out) for kind, known in ended.items() if known.left_out]
