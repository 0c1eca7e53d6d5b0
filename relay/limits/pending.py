"""Connections that are not WebSockets yet: how many there are by address, and which one to drop if there are too many.

Invariants: the address with the most pending connections loses its oldest one, so an address that floods the relay
displaces only itself. A connection that has ended is forgotten.
"""

from collections.abc import Iterator
from functools import partial
from typing import Protocol

from relay.limits.seats import Owner


class Visitor(Owner, Protocol):
    """A connection that may be pending."""

    peer_address: str

    def cut_off(self) -> None:
        """End the connection at once."""
        ...


class Pending:
    """The pending connections."""

    def __init__(self) -> None:
        self._groups: dict[Visitor, str | None] = {}
        self._members: dict[str | None, dict[Visitor, None]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Visitor]:
        """Iterate over the connections in order of arrival."""
        return iter(self._groups)

    def add(self, visitor: Visitor, group: str | None) -> None:
        """Count a connection until it ends. None is the group of all unknown addresses."""
        self._groups[visitor] = group
        self._members.setdefault(group, {})[visitor] = None
        visitor.at_end(partial(self.discard, visitor))

    def discard(self, visitor: Visitor) -> None:
        """Stop counting a connection. Idempotent."""
        if visitor in self._groups:
            group = self._groups.pop(visitor)
            del self._members[group][visitor]
            if not self._members[group]:
                del self._members[group]

    def oldest_of_most(self) -> Visitor:
        """Return the oldest connection of the group that has the most. There must be at least one."""
        most = max(self._members, key=lambda group: len(self._members[group]))
        return next(iter(self._members[most]))
