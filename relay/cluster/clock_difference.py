"""The difference between two machines' clocks, from messages that travel one way.

The time of arrival by the receiver's clock, minus the time of sending by the sender's clock, is the difference of the
clocks plus the delay of the network. The smallest such value contains the shortest delay, which is about a millisecond
within a region. Only the last 20 seconds count, so the result follows clocks that drift or are set.

Bound: one figure for each second of the window. Time is an argument, in seconds.
"""

import math
from collections import deque

WINDOW_SECONDS = 20
"""Long enough for at least one message that nothing held up, and short enough to follow a clock that was set."""


class ClockDifference:
    """How much later the receiver's clock is than the sender's.

    Args:
        guess: The difference until the first message.
    """

    def __init__(self, guess: float) -> None:
        self.seconds = guess
        self._least: deque[tuple[int, float]] = deque()

    def note(self, sent: float, received: float) -> None:
        """Record a message that was sent and received at these times of the two clocks."""
        difference, second = received - sent, math.floor(received)
        least = self._least
        if not least or second != least[-1][0] or difference < least[-1][1]:
            while least and least[-1][1] >= difference:
                least.pop()
            least.append((second, difference))
            while least[0][0] <= second - WINDOW_SECONDS:
                least.popleft()
            self.seconds = least[0][1]
