"""Those who are no WebSocket yet: how many, of which address, and who has to go when there are too many.

Invariants: it is the address with most of them that loses one, and of these the oldest; so an address that fills the
door keeps nobody out but itself. Who has ended is forgotten.
"""

from collections.abc import Iterator
from functools import partial
from typing import Protocol

from relay.limits.seats import Owner


class Visitor(Owner, Protocol):
    """Who may be at the door."""

    peer_address: str

    def cut_off(self) -> None:
        """End at once."""
        ...


class Pending:
    """Those who are there now."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._groups: dict[Visitor, str | None] = {}
        self._members: dict[str | None, dict[Visitor, None]] = {}

    def __len__(self) -> int:
        """Give how many there are."""
        return len(self._groups)

    def __iter__(self) -> Iterator[Visitor]:
        """Give each, in the order in which they came."""
        return iter(self._groups)

    def add(self, visitor: Visitor, group: str | None) -> None:
        """Count one, until it ends.

        Args:
            visitor: Who has come.
            group: The group of its address; those of which it is not known are one group.
        """
        self._groups[visitor] = group
        self._members.setdefault(group, {})[visitor] = None
        visitor.at_end(partial(self.discard, visitor))

    def discard(self, visitor: Visitor) -> None:
        """Count one no more; done twice, it changes nothing."""
        if visitor in self._groups:
            group = self._groups.pop(visitor)
            del self._members[group][visitor]
            if not self._members[group]:
                del self._members[group]

    def oldest_of_most(self) -> Visitor:
        """Give who has to go; there must be one."""
        most = max(self._members, key=lambda group: len(self._members[group]))
        return next(iter(self._members[most]))
