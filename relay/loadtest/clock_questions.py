"""Asking the relay what its clock shows, while it is being loaded."""

import itertools
from collections import deque
from collections.abc import Iterable

from relay.loadtest.receiver_connection import Connection
from relay.protocol.messages import Ping, Pong
from relay.vocabulary.clock_offset import ClockOffset

MAX_QUESTIONS = 64
"""Unanswered questions that are remembered; an answer to an older one would say little."""


class ClockQuestions:
    """One listener after another asks, so that none asks often; every greeting is an answer, too.

    Attributes:
        offset: What is known of the difference.
        offset_ms: Its middle, for those who need it for every frame.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.offset = ClockOffset()
        self.offset_ms = 0.0
        self._ids = itertools.count()
        self._asked_ms: dict[int, float] = {}
        self._askers: deque[Connection] = deque()

    def ask(self, connections: Iterable[Connection], now_ms: float) -> None:
        """Ask through the next of the connections that can."""
        if not self._askers:
            self._askers.extend(connections)
        while self._askers:
            asker = self._askers.popleft()
            if _can_ask(asker):
                self._ask(asker, now_ms)
                return

    def _ask(self, asker: Connection, now_ms: float) -> None:
        if len(self._asked_ms) >= MAX_QUESTIONS:
            del self._asked_ms[next(iter(self._asked_ms))]
        ping_id = next(self._ids)
        self._asked_ms[ping_id] = now_ms
        asker.send_text(Ping({"id": ping_id}).text())

    def answer(self, pong: Pong, now_ms: float) -> None:
        """Take note of an answer."""
        asked_ms = self._asked_ms.pop(pong.ping_id, None)
        if asked_ms is not None:
            self.note(asked_ms, now_ms, pong.clock_ms)

    def note(self, asked_ms: float, now_ms: float, clock_ms: int) -> None:
        """Take note that between `asked_ms` and `now_ms` the relay's clock showed `clock_ms`."""
        self.offset.note(asked_ms, now_ms, clock_ms)
        self.offset_ms = self.offset.milliseconds


def _can_ask(connection: Connection) -> bool:
    is_open = connection.joined and connection.outcome is None
    return is_open and connection.reading and not connection.expect.is_stamped
