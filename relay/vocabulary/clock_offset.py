"""The difference between another machine's clock and ours, from requests and the times in their answers.

An answer that says "my clock shows r" was written between the moment we asked and the moment we read it, so the
difference lies in an interval as wide as the round trip. All intervals hold at once, so what is known is where they
overlap: the shortest round trip counts most, a delay on one way only does no harm, and the many answers of a crowd
that joins narrow it to less than the millisecond in which the relay's clock is written.
"""

MAX_DRIFT = 100e-6
"""How fast two clocks may drift apart, as a ratio: an old answer says this much less with each second."""


class ClockOffset:
    """What is known of `their clock − our clock`, in milliseconds; neither wraps here."""

    __slots__ = ("_at_ms", "_highest_ms", "_lowest_ms")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._at_ms: float | None = None
        self._lowest_ms = 0.0
        self._highest_ms = 0.0

    def note(self, asked_ms: float, answered_ms: float, their_ms: int) -> None:
        """Take note of an answer.

        Args:
            asked_ms: Our clock before the question left.
            answered_ms: Our clock after the answer came.
            their_ms: What their clock showed in between, whole milliseconds rounded down.
        """
        lowest, highest = their_ms - answered_ms, their_ms + 1 - asked_ms
        if self._at_ms is not None:
            drift = (answered_ms - self._at_ms) * MAX_DRIFT
            overlap = max(lowest, self._lowest_ms - drift), min(highest, self._highest_ms + drift)
            if overlap[0] <= overlap[1]:
                lowest, highest = overlap
            # Otherwise one of the clocks jumped, and only the newest answer holds.
        self._at_ms, self._lowest_ms, self._highest_ms = answered_ms, lowest, highest

    @property
    def known(self) -> bool:
        """Whether there was an answer."""
        return self._at_ms is not None

    @property
    def milliseconds(self) -> float:
        """The middle of what is possible; 0 while nothing is known."""
        return (self._lowest_ms + self._highest_ms) / 2

    @property
    def uncertainty_ms(self) -> float:
        """How far from the middle the truth may be."""
        return (self._highest_ms - self._lowest_ms) / 2
