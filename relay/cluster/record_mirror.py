"""A node's copy of the records, from news and from repeated reads.

News arrives at once, but may get lost. A read is complete up to some revision, but may lag behind. The mirror merges
both, so that an older change never follows a newer one.

Invariant: `take` accepts a change only if it is newer than what is known of the same record. Revisions restart when the
bus loses its memory. The caller of `read_anew` says whether that happened.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A record as the bus reports it.

    Attributes:
        key: Its key.
        revision: Its revision.
        value: Its bytes; None if it was deleted.
    """

    key: str
    revision: int
    value: bytes | None


class RecordMirror:
    """See the module's docstring.

    Attributes:
        read_until: Everything up to this revision is known.
    """

    def __init__(self) -> None:
        self.read_until = 0
        self._known: dict[str, Change] = {}

    def take(self, change: Change) -> bool:
        """Take a change, and return whether it is newer than what is known."""
        before = self._known.get(change.key)
        if change.revision <= max(self.read_until, 0 if before is None else before.revision):
            return False
        self._known[change.key] = change
        return True

    def read_on(self, changes: Iterable[Change]) -> list[Change]:
        """Take all changes after `read_until`, in their order, and return those that are news."""
        news, last = [], self.read_until
        for change in changes:
            if self.take(change):
                news.append(change)
            last = change.revision
        self._settle(last)
        return news

    def read_anew(self, changes: Iterable[Change], *, has_same_revisions: bool) -> tuple[list[Change], list[str]]:
        """Take all records.

        Args:
            changes: The last change of each record, in their order.
            has_same_revisions: Whether the bus still has its memory, so that revisions can be compared.

        Returns:
            All known changes, and the keys of records that were known but are missing now. Those records were deleted,
            or are so new that the read did not contain them.
        """
        before, self._known = self._known, {}
        self.read_until, last = 0, 0
        for change in changes:
            self._known[change.key] = change
            last = change.revision
        if has_same_revisions:
            for change in before.values():
                if change.revision > last:
                    self._known[change.key] = change
        known = dict(self._known)
        self._settle(last)
        missing = [key for key, change in before.items() if change.value is not None and key not in known]
        return list(known.values()), missing

    def _settle(self, revision: int) -> None:
        """Forget the deletions up to a revision, because no older change can come any more."""
        self.read_until = max(self.read_until, revision)
        self._known = {
            key: change
            for key, change in self._known.items()
            if change.value is not None or change.revision > self.read_until
        }
