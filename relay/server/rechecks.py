"""Recheck the permits of open connections, close those that no longer hold with 4001, and log refusals.

Invariants: a connection whose token expires is closed little more than `RECHECK_SECONDS` later. A connection whose key
was withdrawn is closed as soon as the rules are replaced. While nothing expires, checking costs nothing per connection.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Iterable

from relay.access.grants import Reason
from relay.access.rules import Access, AccessRules, Permit
from relay.server.served import ServedConnection
from relay.vocabulary.errors import TokenExpiredError

RECHECK_SECONDS = 1.0
"""Interval between checks for expired tokens."""

REPORT_SECONDS = 60.0
"""Interval at which the log says how many clients were refused, and why. Single refusals are logged only at level
debug."""

logger = logging.getLogger(__name__)


class Rechecks:
    """Holds connections to their permits. The caller starts `run` as a task."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._inside: dict[ServedConnection, Permit] = {}
        self._expiring: dict[ServedConnection, float] = {}
        self._told: Counter[Reason] = Counter()

    def watch(self, connection: ServedConnection, permit: Permit) -> None:
        """Hold a connection to its permit until `forget`.

        Raises:
            TokenExpiredError: The permit expired during the handshake. The connection is not watched.
        """
        permit.check()
        self._inside[connection] = permit
        # The leeway is added later, because new rules may change it while the connection is open.
        if permit.grant is not None and permit.grant.expires_at < math.inf:
            self._expiring[connection] = permit.grant.expires_at

    def forget(self, connection: ServedConnection) -> None:
        """Stop watching a connection. A connection that is not watched is ignored."""
        self._inside.pop(connection, None)
        self._expiring.pop(connection, None)

    def replace(self, rules: AccessRules) -> int:
        """Put new rules into force, and close the connections that they do not admit. Return how many."""
        self._access.rules = rules
        return self._close_refused(self._inside)

    async def run(self) -> None:
        """Close connections with expired tokens and log refusals, forever."""
        loop = asyncio.get_running_loop()
        report_at = loop.time() + REPORT_SECONDS
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            if loop.time() >= report_at:
                report_at += REPORT_SECONDS
                self.tell_refusals()
            self.close_expired()

    def close_expired(self) -> int:
        """Close the connections whose tokens expired, with the current leeway. Return how many."""
        expired_before = self._access.now - self._access.rules.leeway_seconds
        return self._close_refused([inside for inside, expiry in self._expiring.items() if expiry <= expired_before])

    def tell_refusals(self) -> None:
        """Log how many clients were refused since the last call, by reason. Log nothing if there were none."""
        news = self._access.refusals - self._told
        if news:
            reasons = {str(reason): count for reason, count in news.most_common()}
            logger.warning("clients were refused", extra={"refused": news.total(), "reasons": reasons})
            self._told = self._access.refusals.copy()

    def _close_refused(self, connections: Iterable[ServedConnection]) -> int:
        closed = 0
        for connection in list(connections):
            try:
                self._inside[connection].check()
            except TokenExpiredError as error:
                closed += 1
                self.forget(connection)
                connection.refuse(error)
        return closed
