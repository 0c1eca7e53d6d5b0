"""Estimates the difference between another machine's clock and ours, from requests and timestamped answers.

The other machine wrote its timestamp between our request and the arrival of its answer. So each answer bounds the
difference to an interval as wide as the round trip. All bounds hold at the same time, so the estimate is their
intersection: the shortest round trip counts most, and a delay in one direction does no harm. When a crowd joins, its
many answers narrow the interval below one millisecond, the resolution in which the relay reports its clock.
"""

MAX_DRIFT = 100e-6
"""The greatest assumed drift between two clocks, as a ratio. The bounds of older answers widen at this rate."""


class ClockOffset:
    """The estimate of `their clock − our clock`, in milliseconds. Neither clock wraps here."""

    __slots__ = ("_at_ms", "_highest_ms", "_lowest_ms")

    def __init__(self) -> None:
        self._at_ms: float | None = None
        self._lowest_ms = 0.0
        self._highest_ms = 0.0

    def note(self, asked_ms: float, answered_ms: float, their_ms: int) -> None:
        """Update the estimate with an answer.

        Args:
            asked_ms: Our clock before the request left.
            answered_ms: Our clock after the answer arrived.
            their_ms: Their clock in between, in whole milliseconds, rounded down.
        """
        lowest, highest = their_ms - answered_ms, their_ms + 1 - asked_ms
        if self._at_ms is not None:
            drift = (answered_ms - self._at_ms) * MAX_DRIFT
            overlap = max(lowest, self._lowest_ms - drift), min(highest, self._highest_ms + drift)
            if overlap[0] <= overlap[1]:
                lowest, highest = overlap
            # Otherwise one of the clocks jumped, and only the newest answer is valid.
        self._at_ms, self._lowest_ms, self._highest_ms = answered_ms, lowest, highest

    @property
    def known(self) -> bool:
        """Whether any answer has arrived."""
        return self._at_ms is not None

    @property
    def milliseconds(self) -> float:
        """The middle of the interval; 0 before the first answer."""
        return (self._lowest_ms + self._highest_ms) / 2

    @property
    def uncertainty_ms(self) -> float:
        """The greatest possible error of `milliseconds`: half the interval."""
        return (self._highest_ms - self._lowest_ms) / 2
