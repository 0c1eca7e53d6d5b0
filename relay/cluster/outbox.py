"""Messages that the bus has not confirmed, in order, within a bound of time and bytes.

Bound: messages older than `max_seconds` go, and the oldest beyond `max_bytes`. `dropped_messages` counts them.

Invariants: messages leave in the order in which they came. `rewind` makes those that the bus has not confirmed leave
once more, in the same order. Numbers of messages only grow.
"""

from collections import deque
from typing import NamedTuple


class Message(NamedTuple):
    """A message on its way to the bus.

    Attributes:
        subject: Its subject.
        payload: Its content.
        reply: The subject for the bus's acknowledgement; empty if nobody waits for one.
    """

    subject: str
    payload: bytes
    reply: str = ""


class BusOutbox:
    """See the module's docstring.

    Attributes:
        dropped_messages: How many messages the bus never confirmed within the bound.
        held_bytes: The sum of the messages that are kept.
        sent: How many messages have left: the number of the next one, counted from the first of all.
    """

    def __init__(self, max_seconds: float, max_bytes: int) -> None:
        self.dropped_messages = 0
        self.held_bytes = 0
        self.sent = 0
        self._max_seconds = max_seconds
        self._max_bytes = max_bytes
        self._first = 0
        self._kept: deque[tuple[float, Message]] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def unsent(self) -> int:
        """How many messages have not left yet."""
        return self._first + len(self._kept) - self.sent

    @property
    def first(self) -> int:
        """The number of the oldest message that is kept."""
        return self._first

    def put(self, message: Message, now: float) -> None:
        """Add a message, and drop the oldest beyond the bounds."""
        self._kept.append((now, message))
        self.held_bytes += len(message.payload)
        self.expire(now)

    def take(self) -> Message | None:
        """Return the next message to send; None if there is none."""
        if not self.unsent:
            return None
        _, message = self._kept[self.sent - self._first]
        self.sent += 1
        return message

    def confirm(self, number: int) -> None:
        """Forget the messages before this number: the bus has them."""
        while self._kept and self._first < min(number, self.sent):
            self._forget_first()

    def rewind(self, now: float) -> None:
        """Send everything again that is not confirmed and not too old."""
        self.expire(now)
        self.sent = self._first

    def expire(self, now: float) -> None:
        """Drop the messages beyond the bounds."""
        while self._kept and (self._kept[0][0] < now - self._max_seconds or self.held_bytes > self._max_bytes):
            self._forget_first()
            self.dropped_messages += 1

    def _forget_first(self) -> None:
        _, message = self._kept.popleft()
        self.held_bytes -= len(message.payload)
        self._first += 1
        self.sent = max(self.sent, self._first)
