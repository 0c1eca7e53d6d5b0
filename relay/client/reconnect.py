"""How long after a lost connection a client comes back.

Invariants: delays have full jitter, so clients that were cut off together do not return together; a relay that asks
for a delay is not asked before it is over; nothing here sleeps or reads a clock.

Source: full jitter as in "Exponential Backoff And Jitter", AWS Architecture Blog.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from relay.vocabulary.errors import ConnectionLostError, UnreachableError

_MOST_DOUBLINGS = 32

PassingError = (UnreachableError, ConnectionLostError)
"""What a client that reconnects gets over."""


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


class Reconnector:
    """The tries of one client."""

    def __init__(self, policy: Reconnect | None, random_source: Callable[[], float] = random.random) -> None:
        """Begin before the first connection.

        Args:
            policy: What the delays may be; None: no try is made.
            random_source: Returns numbers from 0 up to, not including, 1.
        """
        self._policy = policy
        self._random = random_source
        self._attempts = 0
        self._connected_at = 0.0
        self._lost_at: float | None = None
        self._try_at = 0.0

    def connected(self, now: float) -> None:
        """Note at `now` (seconds) that a connection is there."""
        self._connected_at = now
        self._lost_at = None

    def lost(self, error: UnreachableError | ConnectionLostError, now: float) -> Reconnecting:
        """Plan the next try, after the connection or a try was lost at `now` (seconds).

        A connection that did not live for `max_seconds` does not begin the delays anew: a relay that accepts
        everybody and closes them at once must not be asked all the time.

        Args:
            error: Why a try is needed. The random delay comes on top of what the relay asks for.
            now: The present time.

        Raises:
            RelayError: There is no further try; it is the error given.
        """
        policy = self._policy
        if policy is None:
            raise error
        if self._lost_at is None:
            self._lost_at = now
            if now - self._connected_at >= policy.max_seconds:
                self._attempts = 0
        if policy.give_up_seconds is not None and now - self._lost_at >= policy.give_up_seconds:
            raise error
        doubled = policy.first_seconds * 2 ** min(self._attempts, _MOST_DOUBLINGS)
        self._attempts += 1
        delay_seconds = error.retry_after_seconds + self._random() * min(doubled, policy.max_seconds)
        self._try_at = now + delay_seconds
        return Reconnecting(self._attempts, delay_seconds, str(error))

    def wait_seconds(self, now: float) -> float:
        """Return how long it is from `now` until the next try is due; 0 when it is."""
        return max(0.0, self._try_at - now)
