"""Limits repeated log lines: the first ones of each interval are written, and the rest are counted.

Invariants: the number of omitted lines of a kind is reported once, after its interval. At most `MAX_KINDS` kinds are
remembered; beyond them, all others count as one kind. Time is an argument, in seconds.
"""

from collections.abc import Hashable
from dataclasses import dataclass

MAX_KINDS = 1000
"""Kinds that are remembered, some hundred bytes each. The relay has fewer sentences than this."""

_OTHERS = "others"


@dataclass(slots=True)
class _Kind:
    """The present interval of one kind.

    Attributes:
        ends_at: When the interval ends.
        written: Lines that were written.
        left_out: Lines that were omitted.
    """

    ends_at: float
    written: int = 0
    left_out: int = 0


class Repeats:
    """Decides which lines are written and counts the others."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def admit(self, kind: Hashable, most: int, interval_seconds: float, now: float) -> bool:
        """Return whether to write a line of this kind, at most `most` per interval. Otherwise count it as omitted."""
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
        """End the intervals that are over. Return each kind with omitted lines, and their number."""
        ended = {kind: known for kind, known in self._kinds.items() if known.ends_at <= now}
        for kind in ended:
            del self._kinds[kind]
        return [(kind, known.left_out) for kind, known in ended.items() if known.left_out]
