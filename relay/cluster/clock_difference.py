"""The difference between two machines' clocks, from messages that travel one way.

The time of arrival by the receiver's clock, minus the time of sending by the sender's clock, is the difference of the
clocks plus the delay of the network. The smallest such value contains the shortest delay, which is about a millisecond
within a region. Only the last 20 seconds count, so the result follows clocks that drift or are set.

Seconds without a message do not count. After an outage, the first messages are those that waited for its end, and say
nothing of the clocks.

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
        self._second, self._count = 0, 0

    def note(self, sent: float, received: float) -> None:
        """Record a message that was sent and received at these times of the two clocks."""
        difference, second = received - sent, math.floor(received)
        if second != self._second:
            self._second = second
            self._count += 1
        least, count = self._least, self._count
        if not least or count != least[-1][0] or difference < least[-1][1]:
            while least and least[-1][1] >= difference:
                least.pop()
            least.append((count, difference))
            while least[0][0] <= count - WINDOW_SECONDS:
                least.popleft()
            self.seconds = least[0][1]
