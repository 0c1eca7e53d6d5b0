"""The rules that admit a client and apply while it is connected. Pure: the caller passes the clock.

Invariants: a refused client learns nothing of what exists; a client's permission can be checked again at any time,
even after the rules changed.
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
    """Verifies tokens with its keys."""

    @property
    def sources(self) -> frozenset[Hashable]:
        """The sources of the grants that it returns."""

    def verify(self, token: str) -> Grant:
        """Return what a token permits, regardless of the time.

        Raises:
            RefusedError: None of these keys signed it, or it is not for this relay.
        """


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The rules of a relay.

    Attributes:
        sessions: Patterns of the sessions that exist.
        open_sessions: Patterns of the sessions that need no token to listen.
        open_broadcast: Whether broadcasting needs no token either.
        broadcast_key: Permits broadcasting anywhere; None if there is no such key.
        admin_key: Permits seeing and ending everything, and nothing else; None if there is no such key.
        verifier: Verifies tokens; None if the relay accepts none.
        leeway_seconds: How far the clock of a token's maker may be off.
    """

    sessions: tuple[str, ...] = ("*",)
    open_sessions: tuple[str, ...] = ("*",)
    open_broadcast: bool = False
    broadcast_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)
    verifier: Verifier | None = None
    leeway_seconds: float = 0.0

    def is_open(self, role: TokenRole, session: str) -> bool:
        """Whether this needs no credential."""
        if role is TokenRole.LISTEN:
            return matches(self.open_sessions, session)
        return role is TokenRole.BROADCAST and self.open_broadcast

    def vouch(self, credential: str | None) -> Grant:
        """Return what a credential permits.

        Raises:
            RefusedError: It permits nothing.
        """
        if not credential:
            raise RefusedError(Reason.MISSING, "The client sent no token or key.")
        for key, grant in self._key_grants:
            if _equal(credential, key):
                return grant
        if self.verifier is None:
            raise RefusedError(Reason.KEY_ID, "This relay accepts no tokens, because its settings have no token keys.")
        return self.verifier.verify(credential)

    def holds(self, grant: Grant) -> bool:
        """Whether the key behind a grant is still one of this relay's."""
        by_key = any(grant == by_key for _, by_key in self._key_grants)
        return by_key or (self.verifier is not None and grant.source in self.verifier.sources)

    @property
    def _key_grants(self) -> Iterator[tuple[str, Grant]]:
        """Yield the configured keys, and what each permits."""
        if self.broadcast_key is not None:
            yield self.broadcast_key, _key_grant(TokenRole.BROADCAST, "broadcast.key", self.broadcast_key)
        if self.admin_key is not None:
            yield self.admin_key, _key_grant(TokenRole.ADMIN, "access.admin_key", self.admin_key)


def _equal(credential: str, key: str) -> bool:
    """Compare in constant time. A peer's text may have bytes that are not UTF-8."""
    return hmac.compare_digest(credential.encode(errors="surrogateescape"), key.encode())


def _key_grant(role: TokenRole, name: str, key: str) -> Grant:
    return Grant(frozenset({role}), ("*",), ("*",), (name, sha256(key.encode()).digest()))


class Access:
    """The rules in force, and counts of refusals.

    Attributes:
        rules: May be replaced at any time. Then `Permit.check` applies the new rules to connected clients.
        refusals: The number of refusals by reason since the relay started.
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
        """Admit a client that presents `credential`, if any.

        Raises:
            RefusedError: It may not enter. The text is the same for all reasons.
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
        """Admit an operator, whatever they administer.

        Raises:
            RefusedError: They administer nothing. The text is the same as for every refusal.
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
        """Ensure that the holder of a permit may be at `address` now.

        Raises:
            RefusedError: It may not.
        """
        rules, grant = self.rules, permit.grant
        if grant is not None:
            if not rules.holds(grant):
                raise RefusedError(Reason.WITHDRAWN, "The relay no longer has the key of this token.")
            grant.check_time(self.now, rules.leeway_seconds)
            grant.check(permit.role, address)
        elif not rules.is_open(permit.role, address.session):
            raise RefusedError(Reason.MISSING, "The client sent no token or key.")
        if not matches(rules.sessions, address.session):
            raise RefusedError(Reason.NO_SESSION, f"The session {address.session} does not exist.")


@dataclass(slots=True, eq=False)
class Permit:
    """The permission of one client. It is valid as long as `check` does not raise.

    Attributes:
        access: The rules that apply.
        role: The client's role.
        address: The client's channel. A listener may move.
        grant: What its credential permits; None if it needed none.
    """

    access: Access
    role: TokenRole
    address: ChannelAddress
    grant: Grant | None

    def check_move(self, address: ChannelAddress) -> None:
        """Ensure that the client may move to another channel. The caller then sets `address`.

        Raises:
            RefusedError: It may not.
        """
        self.access.check(self, address)

    def check(self) -> None:
        """Ensure that the permit is still valid.

        Raises:
            TokenExpiredError: It is not.
        """
        try:
            self.access.check(self, self.address)
        except RefusedError as error:
            self.access.refusals[error.reason] += 1
            raise TokenExpiredError(
                "The token has expired or its key was withdrawn; connect again with a new token."
            ) from error


@dataclass(frozen=True, slots=True)
class OperatorPermit:
    """What an operator's request may see and change.

    Attributes:
        sessions: Patterns of the sessions that exist.
        grant: What the operator's credential permits.
    """

    sessions: tuple[str, ...]
    grant: Grant

    def covers_session(self, session: str) -> bool:
        """Whether it covers some channel of a session."""
        return matches(self.sessions, session) and matches(self.grant.sessions, session)

    def covers(self, address: ChannelAddress) -> bool:
        """Whether it covers a channel."""
        return self.covers_session(address.session) and matches(self.grant.channels, address.channel)
