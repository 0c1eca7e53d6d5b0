"""Who may do what: the rules that admit a client, and that hold for it while it is connected. Pure; the clock is given.

Invariants: whoever is not admitted learns nothing of what exists; what let a client in can be asked again at any
time, after the rules changed too.
"""

import hmac
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from relay.access.grants import Grant, Reason, RefusedError, TokenRole, matches
from relay.vocabulary.clock import Clock
from relay.vocabulary.errors import TokenExpiredError
from relay.vocabulary.names import ChannelAddress


class Verifier(Protocol):
    """Reads tokens by keys that it has."""

    @property
    def sources(self) -> frozenset[Hashable]:
        """Of the grants that it gives."""
        ...

    def verify(self, token: str) -> Grant:
        """Give what a token lets its bearer do, whenever.

        Raises:
            RefusedError: It is not by one of these keys, or not for this relay.
        """
        ...


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The rules of a relay.

    Attributes:
        sessions: Patterns of the sessions that exist.
        open_sessions: Patterns of those that need no token of listeners.
        open_broadcast: Whether broadcasting needs none either.
        broadcast_key: Lets its bearer broadcast anywhere; None: nobody has it.
        admin_key: Lets its bearer see and end everything, and nothing else; None: nobody has it.
        verifier: Reads tokens; None: nobody has any.
        leeway_seconds: How far off the clock of whoever makes tokens may be.
    """

    sessions: tuple[str, ...] = ("*",)
    open_sessions: tuple[str, ...] = ("*",)
    open_broadcast: bool = False
    broadcast_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    verifier: Verifier | None = None
    leeway_seconds: float = 0.0

    def is_open(self, role: TokenRole, session: str) -> bool:
        """Tell whether nothing need be shown."""
        if role is TokenRole.LISTEN:
            return matches(self.open_sessions, session)
        return role is TokenRole.BROADCAST and self.open_broadcast

    def vouch(self, credential: str | None) -> Grant:
        """Give what a credential lets its bearer do.

        Raises:
            RefusedError: Nothing.
        """
        if not credential:
            raise RefusedError(Reason.MISSING, "There is none.")
        for key, grant in self._key_grants:
            if _equal(credential, key):
                return grant
        if self.verifier is None:
            raise RefusedError(Reason.KEY_ID, "This relay takes no tokens.")
        return self.verifier.verify(credential)

    def holds(self, grant: Grant) -> bool:
        """Tell whether the key of a grant is still one of this relay's."""
        by_key = any(grant == by_key for _, by_key in self._key_grants)
        return by_key or (self.verifier is not None and grant.source in self.verifier.sources)

    @property
    def _key_grants(self) -> Iterator[tuple[str, Grant]]:
        """The keys that there are, and what each lets its bearer do."""
        if self.broadcast_key is not None:
            yield self.broadcast_key, _key_grant(TokenRole.BROADCAST, "broadcast.key", self.broadcast_key)
        if self.admin_key is not None:
            yield self.admin_key, _key_grant(TokenRole.ADMIN, "access.admin_key", self.admin_key)


def _equal(credential: str, key: str) -> bool:
    """Compare in constant time; a peer's text may have bytes that are not UTF-8."""
    return hmac.compare_digest(credential.encode(errors="surrogateescape"), key.encode())


def _key_grant(role: TokenRole, name: str, key: str) -> Grant:
    return Grant(frozenset({role}), ("*",), ("*",), (name, sha256(key.encode()).digest()))


class Access:
    """The rules in force, and what was refused by them.

    Attributes:
        rules: May be replaced at any time; whoever is inside is then asked again by `Permit.check`.
        refusals: How often somebody was refused, by reason, since the relay started.
    """

    def __init__(self, rules: AccessRules, clock: Clock) -> None:
        """Begin with `rules`; `clock` is the wall clock."""
        self.rules = rules
        self.refusals: Counter[Reason] = Counter()
        self._clock = clock

    @property
    def now(self) -> float:
        """The wall clock."""
        return self._clock()

    def admit(self, role: TokenRole, address: ChannelAddress, credential: str | None) -> "Permit":
        """Let a client in that shows `credential`, if anything.

        Raises:
            RefusedError: It may not; one text for all reasons.
        """
        rules = self.rules
        try:
            grant = None if rules.is_open(role, address.session) else rules.vouch(credential)
            permit = Permit(self, role, address, grant)
            self.check(permit, address)
        except RefusedError as error:
            self.refusals[error.reason] += 1
            raise
        return permit

    def admit_operator(self, credential: str | None) -> "OperatorPermit":
        """Let somebody in who administers something, whatever it is.

        Raises:
            RefusedError: They administer nothing; the text is that of every refusal.
        """
        try:
            grant = self.rules.vouch(credential)
            grant.check_time(self.now, self.rules.leeway_seconds)
            grant.check_role(TokenRole.ADMIN)
        except RefusedError as error:
            self.refusals[error.reason] += 1
            raise
        return OperatorPermit(self.rules.sessions, grant)

    def check(self, permit: "Permit", address: ChannelAddress) -> None:
        """Make sure that the holder of a permit may be at `address` now.

        Raises:
            RefusedError: It may not.
        """
        rules, grant = self.rules, permit.grant
        if grant is not None:
            if not rules.holds(grant):
                raise RefusedError(Reason.WITHDRAWN, "Its key is no longer one of this relay's.")
            grant.check_time(self.now, rules.leeway_seconds)
            grant.check(permit.role, address)
        elif not rules.is_open(permit.role, address.session):
            raise RefusedError(Reason.MISSING, "There is none.")
        if not matches(rules.sessions, address.session):
            raise RefusedError(Reason.NO_SESSION, f"There is no session {address.session}.")


@dataclass(slots=True, eq=False)
class Permit:
    """What let one client in; it holds for as long as `check` does not raise.

    Attributes:
        access: Whose rules these are.
        role: As what the client is in.
        address: Where it is; a listener may move.
        grant: What it showed; None when nothing was needed.
    """

    access: Access
    role: TokenRole
    address: ChannelAddress
    grant: Grant | None

    def check_move(self, address: ChannelAddress) -> None:
        """Make sure that the client may go to another channel; whoever moves it sets `address`.

        Raises:
            RefusedError: It may not.
        """
        self.access.check(self, address)

    def check(self) -> None:
        """Make sure that it still holds.

        Raises:
            TokenExpiredError: It does not.
        """
        try:
            self.access.check(self, self.address)
        except RefusedError as error:
            self.access.refusals[error.reason] += 1
            raise TokenExpiredError("The token has expired or was withdrawn; connect again with a new one.") from error


@dataclass(frozen=True, slots=True)
class OperatorPermit:
    """What one request of an operator may see and touch.

    Attributes:
        sessions: Patterns of the sessions that exist.
        grant: What was shown.
    """

    sessions: tuple[str, ...]
    grant: Grant

    def covers_session(self, session: str) -> bool:
        """Tell whether it is for some channel of a session."""
        return matches(self.sessions, session) and matches(self.grant.sessions, session)

    def covers(self, address: ChannelAddress) -> bool:
        """Tell whether it is for a channel."""
        return self.covers_session(address.session) and matches(self.grant.channels, address.channel)
