"""How many are inside: in all, of each session and role, and of each address.

Invariants: a seat belongs to an owner, whose end gives it back, once; who has ended takes none; what is counted as 0
is not remembered.
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
    """What one connection occupies.

    Attributes:
        role: What it is.
        session: Of which session; None for one that is only told why it is refused.
        group: The group of its address; None when that is not known.
    """

    role: Role
    session: str | None
    group: str | None


class Owner(Protocol):
    """Who may take a seat."""

    def at_end(self, action: Callable[[], None]) -> None:
        """Do something once, when the owner ends; at once when it has ended."""
        ...


class Seats:
    """Those that are taken."""

    def __init__(self) -> None:
        """Make them all free."""
        self._taken: Counter[tuple[Limit, str]] = Counter()

    def count(self, role: Role) -> int:
        """Give how many of a role are taken."""
        return self._taken[Limit.CONNECTIONS, role]

    @property
    def is_empty(self) -> bool:
        """Whether none is taken."""
        return not self._taken

    def full(self, seat: Seat, most: Callable[[Limit], int | None]) -> Limit | None:
        """Give the limit that a seat would be over; None when it may be taken.

        Args:
            seat: The seat.
            most: Gives what there may be by each limit; None is without limit.
        """
        for counted in _counted(seat):
            limit = counted[0]
            allowed = most(limit)
            if allowed is not None and self._taken[counted] >= allowed:
                return limit
        return None

    def take(self, seat: Seat, owner: Owner) -> None:
        """Take a seat, whether or not it is free, until its owner ends."""
        self._taken.update(_counted(seat))
        owner.at_end(partial(self._give_back, seat))

    def _give_back(self, seat: Seat) -> None:
        for counted in _counted(seat):
            self._taken[counted] -= 1
            if not self._taken[counted]:
                del self._taken[counted]


def _counted(seat: Seat) -> Iterator[tuple[Limit, str]]:
    """Give what a seat is counted as. Roles are counted apart in all, so listeners never keep a broadcaster out."""
    yield Limit.CONNECTIONS, seat.role
    if seat.session is not None:
        yield Limit.LISTENERS if seat.role is Role.LISTENER else Limit.BROADCASTERS, seat.session
    if seat.group is not None:
        yield Limit.CONNECTIONS_PER_ADDRESS, seat.group
