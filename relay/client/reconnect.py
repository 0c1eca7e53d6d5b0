"""How long after a lost connection a client comes back.

Invariants: delays have full jitter, so clients that were cut off together do not return together; a relay that asks
for a delay is not asked before it is over; nothing here sleeps, reads a clock or owns a random source.

Source: full jitter as in "Exponential Backoff And Jitter", AWS Architecture Blog.
"""

from collections.abc import Callable
from dataclasses import dataclass

_MOST_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a client comes back after it lost its connection.

    Attributes:
        first_seconds: The first try is a random time up to this after the loss; each further one may wait twice as
            long.
        max_seconds: No delay is longer, unless the relay asks for it.
        give_up_seconds: How long after the loss no further try is made; None: never.
    """

    first_seconds: float = 1.0
    max_seconds: float = 10.0
    give_up_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no delay.

        Raises:
            ValueError: A time is negative, or the first is longer than the longest.
        """
        if not 0 <= self.first_seconds <= self.max_seconds or (self.give_up_seconds or 0) < 0:
            raise ValueError("Reconnect needs 0 <= first_seconds <= max_seconds, and give_up_seconds not below 0.")


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection is gone, and a try to connect again follows.

    Attributes:
        attempt: Counted from 1 since the connection was last there for a while.
        delay_seconds: How long from now the try is made.
        reason: One sentence.
    """

    attempt: int
    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection is there again.

    Attributes:
        resumed: For a listener: whether the relay goes on behind the last frame that came; when not, an
            `UnknownLoss` says so, unless nothing can be missing. A broadcaster always goes on.
    """

    resumed: bool = True


class Backoff:
    """The delays of one client."""

    def __init__(self, policy: Reconnect, random: Callable[[], float]) -> None:
        """Begin before the first loss.

        Args:
            policy: What the delays may be.
            random: Gives numbers from 0 up to, not including, 1.
        """
        self._policy = policy
        self._random = random
        self._attempts = 0
        self._connected_at = 0.0
        self._lost_at: float | None = None

    def connected(self, now: float) -> None:
        """Note at `now` (seconds) that a connection is there."""
        self._connected_at = now
        self._lost_at = None

    def next_try(self, now: float, reason: str, at_least_seconds: float = 0.0) -> Reconnecting | None:
        """Give the next try, counted from `now` (seconds), at which the connection or a try was lost.

        A connection that did not live for `max_seconds` does not begin the delays anew: a relay that accepts
        everybody and closes them at once must not be asked all the time.

        Args:
            now: The present time.
            reason: Why it is needed, one sentence.
            at_least_seconds: What the relay asked for; the random delay comes on top.

        Returns:
            None when it is time to give up.
        """
        if self._lost_at is None:
            self._lost_at = now
            if now - self._connected_at >= self._policy.max_seconds:
                self._attempts = 0
        give_up_seconds = self._policy.give_up_seconds
        if give_up_seconds is not None and now - self._lost_at >= give_up_seconds:
            return None
        doubled = self._policy.first_seconds * 2 ** min(self._attempts, _MOST_DOUBLINGS)
        self._attempts += 1
        delay_seconds = at_least_seconds + self._random() * min(doubled, self._policy.max_seconds)
        return Reconnecting(self._attempts, delay_seconds, reason)
