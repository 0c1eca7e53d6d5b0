"""Decides how long after a lost connection a client reconnects.

Invariants: delays have full jitter, so clients that lost their connections together do not return together. If a relay
asks for a delay, no attempt is made earlier. Nothing here sleeps or reads a clock.

Source: full jitter as in "Exponential Backoff And Jitter", AWS Architecture Blog.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from relay.vocabulary.errors import ConnectionLostError, UnreachableError

_MOST_DOUBLINGS = 32

PassingError = (UnreachableError, ConnectionLostError)
"""Errors after which a client tries again."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a client reconnects after it lost its connection.

    Attributes:
        first_seconds: Maximum random delay before the first attempt. It doubles with each attempt.
        max_seconds: Maximum random delay. The delay that the relay asks for, if any, is added.
        give_up_seconds: Time after the loss beyond which there is no further attempt; None never gives up.
    """

    first_seconds: float = 1.0
    max_seconds: float = 10.0
    give_up_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the delays.

        Raises:
            ValueError: A time is negative, or `first_seconds` is greater than `max_seconds`.
        """
        if not 0 <= self.first_seconds <= self.max_seconds or (self.give_up_seconds or 0) < 0:
            raise ValueError("Reconnect needs 0 <= first_seconds <= max_seconds, and give_up_seconds not below 0.")


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection is lost, and another attempt to connect follows.

    Attributes:
        attempt: Number of the attempt, from 1. It starts again once a connection has lasted for a while.
        delay_seconds: Time from now until the attempt.
        reason: Why, in one sentence.
    """

    attempt: int
    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection is back.

    Attributes:
        resumed: For a listener: whether the relay continues after the last frame received. If not, an `UnknownLoss`
            follows, unless nothing can be missing. Always True for a broadcaster.
    """

    resumed: bool = True


class Reconnector:
    """The attempts of one client."""

    def __init__(self, policy: Reconnect | None, random_source: Callable[[], float] = random.random) -> None:
        """Start before the first connection.

        Args:
            policy: Limits of the delays; None makes no attempt.
            random_source: Returns numbers from 0 up to, not including, 1.
        """
        self._policy = policy
        self._random = random_source
        self._attempts = 0
        self._connected_at = 0.0
        self._lost_at: float | None = None
        self._try_at = 0.0

    def connected(self, now: float) -> None:
        """Record a connection at `now` (seconds)."""
        self._connected_at = now
        self._lost_at = None

    def lost(self, error: UnreachableError | ConnectionLostError, now: float) -> Reconnecting:
        """Plan the next attempt after the connection or an attempt failed at `now` (seconds).

        A connection that lasted less than `max_seconds` does not reset the delays. Otherwise, clients would keep
        hammering a relay that accepts and closes every connection at once.

        Args:
            error: The reason. The random delay is added to the delay that the relay asks for.
            now: The current time.

        Raises:
            RelayError: There is no further attempt; this is `error`.
        """
        policy = self._policy
        if policy is None:
            raise error
        if self._lost_at is None:
            self._lost_at = now
            if now - self._connected_at >= policy.max_seconds:
                self._attempts = 0
        doubled = policy.first_seconds * 2 ** min(self._attempts, _MOST_DOUBLINGS)
        delay_seconds = error.retry_after_seconds + self._random() * min(doubled, policy.max_seconds)
        if policy.give_up_seconds is not None and now + delay_seconds - self._lost_at > policy.give_up_seconds:
            raise error
        self._try_at = now + delay_seconds
        self._attempts += 1
        return Reconnecting(self._attempts, delay_seconds, str(error))

    def wait_seconds(self, now: float) -> float:
        """Return the time from `now` until the next attempt; 0 if it is due."""
        return max(0.0, self._try_at - now)
