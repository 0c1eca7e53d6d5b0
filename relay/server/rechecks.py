"""Open connections and what let them in: who may no longer be here is closed with 4001. Refusals are told in the log.

Invariants: a connection whose token expires is closed within `RECHECK_SECONDS` and a little; one whose key was
withdrawn, at once when the rules are replaced; asking costs nothing per connection while nothing expires.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Iterable

from relay.access.grants import Reason
from relay.access.rules import Access, AccessRules, Permit
from relay.server.connection import RelayConnection
from relay.vocabulary.errors import TokenExpiredError

RECHECK_SECONDS = 1.0
"""How late an expiry may be noticed."""

REPORT_SECONDS = 60.0
"""How often the log tells how many were refused, and why; each by itself is only there at the level debug."""

logger = logging.getLogger(__name__)


class Rechecks:
    """Holds connections to what let them in. `run` is a task of the caller's."""

    def __init__(self, access: Access) -> None:
        """Begin with nobody."""
        self._access = access
        self._inside: dict[RelayConnection, Permit] = {}
        self._expiring: dict[RelayConnection, float] = {}
        self._told: Counter[Reason] = Counter()

    def watch(self, connection: RelayConnection, permit: Permit) -> None:
        """Hold a connection to its permit until `forget`.

        Raises:
            TokenExpiredError: The permit ceased to hold during the handshake; it is not watched.
        """
        permit.check()
        self._inside[connection] = permit
        # Without the leeway, which other rules may change while the connection is open.
        if permit.grant is not None and permit.grant.expires_at < math.inf:
            self._expiring[connection] = permit.grant.expires_at

    def forget(self, connection: RelayConnection) -> None:
        """Watch a connection no more; nothing when it is not watched."""
        self._inside.pop(connection, None)
        self._expiring.pop(connection, None)

    def replace(self, rules: AccessRules) -> int:
        """Put other rules in force, and close whoever they do not admit; gives how many those are."""
        self._access.rules = rules
        return self._close_refused(self._inside)

    async def run(self) -> None:
        """Look for expired tokens, and tell of refusals, for ever."""
        loop = asyncio.get_running_loop()
        report_at = loop.time() + REPORT_SECONDS
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            if loop.time() >= report_at:
                report_at += REPORT_SECONDS
                self.tell_refusals()
            self.close_expired()

    def close_expired(self) -> int:
        """Close whoever's token expired, by the leeway in force now; gives how many those are."""
        expired_before = self._access.now - self._access.rules.leeway_seconds
        return self._close_refused([inside for inside, expiry in self._expiring.items() if expiry <= expired_before])

    def tell_refusals(self) -> None:
        """Write to the log how many were refused since this was called last, by reason; nothing when none were."""
        news = self._access.refusals - self._told
        if news:
            reasons = {str(reason): count for reason, count in news.most_common()}
            logger.warning("clients refused", extra={"refused": news.total(), "reasons": reasons})
            self._told = self._access.refusals.copy()

    def _close_refused(self, connections: Iterable[RelayConnection]) -> int:
        closed = 0
        for connection in list(connections):
            try:
                self._inside[connection].check()
            except TokenExpiredError as error:
                closed += 1
                self.forget(connection)
                connection.refuse(error)
        return closed
