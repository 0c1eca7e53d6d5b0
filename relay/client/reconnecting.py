"""Waiting between a lost connection and the next try."""

import asyncio
import random
from collections.abc import Callable

from relay.client.reconnect import Backoff, Reconnect, Reconnecting
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import ConnectionLostError, UnreachableError

PassingError = (UnreachableError, ConnectionLostError)
"""What a client that reconnects gets over."""


class Reconnector:
    """The tries of one client."""

    def __init__(self, policy: Reconnect | None, random_source: Callable[[], float] = random.random) -> None:
        """Begin with a connection that is there.

        Args:
            policy: When to try; None: never.
            random_source: Gives numbers from 0 up to, not including, 1.
        """
        self._backoff = None if policy is None else Backoff(policy, random_source)
        self._try_at = 0.0
        self.connected()

    def connected(self) -> None:
        """Note that a connection is there now."""
        if self._backoff is not None:
            self._backoff.connected(relay_clock())

    def lost(self, error: UnreachableError | ConnectionLostError) -> Reconnecting:
        """Note that the connection, or a try, came to nothing; give when the next try is.

        Raises:
            RelayError: There is none; it is the error given.
        """
        now = relay_clock()
        following = None
        if self._backoff is not None:
            following = self._backoff.next_try(now, str(error), error.retry_after_seconds)
        if following is None:
            raise error
        self._try_at = now + following.delay_seconds
        return following

    async def wait(self) -> None:
        """Wait until the next try is due; cancelled and asked again, it waits for the rest."""
        await asyncio.sleep(max(0.0, self._try_at - relay_clock()))
