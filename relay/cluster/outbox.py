"""Holds messages that the bus has not confirmed, in order.

Bound: Messages older than `max_seconds` are dropped, and the oldest ones beyond `max_bytes`. `dropped_messages` counts
them.

Invariants: Messages are sent in the order in which they came. After `rewind`, unconfirmed messages are sent again, in
the same order. The numbers of messages only grow.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple


class Message(NamedTuple):
    """A message on its way to the bus.

    Attributes:
        subject: Its subject.
        payload: Its content.
        reply: The subject for the bus's acknowledgement; empty if nobody waits for one.
        headers: Its headers.
    """

    subject: str
    payload: bytes
    reply: str = ""
    headers: Mapping[str, str] | None = None


class BusOutbox:
    """See the module's docstring.

    Attributes:
        dropped_messages: How many messages the bus never confirmed within the bound.
        held_bytes: The sum of the messages that are kept.
        sent: The number of the next message to send, counted from the first message of all.
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
        """The number of messages that are still to be sent."""
        return self._first + len(self._kept) - self.sent

    @property
    def is_half_full(self) -> bool:
        """Whether it has half of the bytes that it may have."""
        return self.held_bytes >= self._max_bytes // 2

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
        """Send all messages again that are neither confirmed nor too old."""
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
