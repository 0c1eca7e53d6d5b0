"""The connections that the relay has: WebSockets with a seat, and those that are not WebSockets yet.

Invariants: a seat belongs to an owner. When the owner ends, the seat is returned exactly once. An owner that has ended
takes no seat. A count that falls to 0 is forgotten. Of the pending connections, the address with the most loses its
oldest one, so an address that floods the relay displaces only itself.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from relay.limits.names import Limit
from relay.protocol.requests import Role


@dataclass(frozen=True, slots=True)
class Seat:
    """The seat that one connection occupies.

    Attributes:
        role: The client's role.
        session: The session's id. None for a client that is connected only to learn why it is refused.
        group: The group of its address. None if unknown.
    """

    role: Role
    session: str | None
    group: str | None


class Owner(Protocol):
    """An object that can take a seat."""

    def at_end(self, action: Callable[[], None]) -> None:
        """Call `action` once, when the owner ends. Call it immediately if the owner has ended."""


Counted = tuple[Limit, str]
"""What a seat counts as: the limit, and the role, session or address that it applies to."""


class Seats:
    """The occupied seats: in total, per session and role, and per address.

    Other nodes of a cluster have seats of the same sessions and addresses. The totals are those of this process.

    Attributes:
        elsewhere: Returns how many seats of a session or an address other nodes have. By default, there are no others.
        on_change: Called with each session or address whose number of seats here changed.
    """

    def __init__(self) -> None:
        self._taken: Counter[Counted] = Counter()
        self.elsewhere: Callable[[Counted], int] = lambda _: 0
        self.on_change: Callable[[Counted], None] = lambda _: None

    def taken(self, counted: Counted) -> int:
        """Return the number of seats of a session or an address here."""
        return self._taken[counted]

    def shared(self) -> Iterator[tuple[Counted, int]]:
        """Yield the number of seats of each session and each address here."""
        return ((counted, number) for counted, number in self._taken.items() if counted[0] is not Limit.CONNECTIONS)

    def count(self, role: Role) -> int:
        """Return the number of occupied seats of a role."""
        return self._taken[Limit.CONNECTIONS, role]

    @property
    def is_empty(self) -> bool:
        """Whether no seat is occupied."""
        return not self._taken

    def full(self, seat: Seat, most: Callable[[Limit], int | None]) -> Limit | None:
        """Return the limit that another seat would exceed, or None if the seat is available.

        `most` returns the value of a limit. None means no limit.
        """
        for counted in _counted(seat):
            limit = counted[0]
            allowed = most(limit)
            if allowed is None:
                continue
            elsewhere = 0 if limit is Limit.CONNECTIONS else self.elsewhere(counted)
            if self._taken[counted] + elsewhere >= allowed:
                return limit
        return None

    def take(self, seat: Seat, owner: Owner) -> None:
        """Take a seat until its owner ends, without checking the limits."""
        self._count(seat, 1)
        owner.at_end(partial(self._count, seat, -1))

    def _count(self, seat: Seat, seats: int) -> None:
        for counted in _counted(seat):
            self._taken[counted] += seats
            if not self._taken[counted]:
                del self._taken[counted]
            if counted[0] is not Limit.CONNECTIONS:
                self.on_change(counted)


def _counted(seat: Seat) -> Iterator[Counted]:
    """Yield what a seat counts as. Each role has its own total, so listeners never keep a broadcaster out."""
    yield Limit.CONNECTIONS, seat.role
    if seat.session is not None:
        yield Limit.LISTENERS if seat.role is Role.LISTENER else Limit.BROADCASTERS, seat.session
    if seat.group is not None:
        yield Limit.CONNECTIONS_PER_ADDRESS, seat.group


class Visitor(Owner, Protocol):
    """A connection that may be pending."""

    peer_address: str

    def cut_off(self) -> None:
        """End the connection at once."""


class Pending:
    """The connections that are not WebSockets yet, each until it ends."""

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
