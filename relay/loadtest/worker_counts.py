"""What a receiving process counts beside the frames, until it is reported.

Invariant: each connection is counted once, when it is over: as a failure to join or as closed, with its account.
"""

from collections import Counter

from relay.loadtest.account import Accounts, ListenerAccount
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import Visit
from relay.loadtest.worker_messages import NORMAL_CLOSE, STILL_OPEN, Report

MAX_REASONS = 50
"""How many different reasons are told apart; what comes after counts as `OTHER`."""

OTHER = "other reasons"


class WorkerCounts:
    """The counts of one process."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.joins = Histogram()
        self.received_bytes = 0
        self.gap_frames = 0
        self._failures: Counter[str] = Counter()
        self._closes: Counter[str] = Counter()
        self._slow_closes: Counter[str] = Counter()
        self._healthy = Accounts()
        self._slow = Accounts()

    def failed(self, reason: str) -> None:
        """Count a connection that never joined."""
        _count(self._failures, reason)

    def closed(self, visit: Visit, account: ListenerAccount, how: str, published: int | None) -> None:
        """Close the account of a connection that had joined.

        Args:
            visit: What it was for.
            account: What it got.
            how: `NORMAL_CLOSE`, `LEFT`, `STILL_OPEN`, or a close code with its reason.
            published: How many frames its channel got in all; None before that is known.
        """
        _count(self._closes if visit.reads else self._slow_closes, how)
        owed = 0 if published is None else account.owed(published)
        closed = Accounts.of(
            account,
            unaccounted=owed if how == NORMAL_CLOSE else 0,
            undelivered=owed if how == STILL_OPEN else 0,
        )
        if visit.reads:
            self._healthy += closed
        else:
            self._slow += closed

    def report(self) -> Report:
        """Give all counts, and begin anew with those that are of an interval."""
        report = Report(
            joins=self.joins,
            received_bytes=self.received_bytes,
            gap_frames=self.gap_frames,
            failures=dict(self._failures),
            closes=dict(self._closes),
            slow_closes=dict(self._slow_closes),
            healthy=self._healthy,
            slow=self._slow,
        )
        self.joins = Histogram()
        self.received_bytes = self.gap_frames = 0
        return report


def _count(reasons: Counter[str], reason: str) -> None:
    reasons[reason if reason in reasons or len(reasons) < MAX_REASONS else OTHER] += 1
