"""What a token or key permits: roles, patterns of sessions and channels, and a period of validity. Pure.

Invariants: the peer gets the same sentence for every fault. It reveals neither whether a session exists nor what a
token lacked. Every grant from a token expires.

Times are seconds of the wall clock, since tokens are made on other machines.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from relay.vocabulary.errors import NotAllowedError
from relay.vocabulary.names import ChannelAddress, is_pattern
from relay.vocabulary.text import quoted

MAX_TOKEN_CHARACTERS = 4096
"""The longest accepted token. A header of the handshake can hold little more."""

MAX_PATTERNS = 64
"""The number of patterns that one claim may have, so that matching stays cheap."""

_ANYTHING = "*"


class TokenRole(StrEnum):
    """The roles that a token can grant. A WebSocket client uses one of the first two."""

    BROADCAST = "broadcast"
    LISTEN = "listen"
    ADMIN = "admin"


class Reason(StrEnum):
    """Reasons for a refusal: for the operator's counters, never for the peer."""

    MISSING = "no token"
    MALFORMED = "not a token"
    KEY_ID = "unknown key id"
    ALGORITHM = "wrong algorithm"
    SIGNATURE = "wrong signature"
    CLAIMS = "wrong claims"
    ISSUER = "wrong issuer"
    AUDIENCE = "wrong audience"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    WITHDRAWN = "key withdrawn"
    NOT_FOR_THIS = "wrong role, session or channel"
    NO_SESSION = "no such session"


class RefusedError(NotAllowedError):
    """The peer may not do what it requested. The text is the same for every reason.

    Attributes:
        reason: For counters.
        detail: A sentence for the owner of the keys. It contains no secret.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(
            "Not allowed: the token or key is missing, wrong, expired or for something else, "
            "or the session does not exist."
        )
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token or key permits.

    Attributes:
        roles: The permitted roles.
        sessions: Patterns, one of which the session must match.
        channels: Patterns, one of which the channel must match.
        source: The key behind the grant, and its terms. Equal values mean the same source.
        not_before: When the grant begins.
        expires_at: When the grant ends.
    """

    roles: frozenset[TokenRole]
    sessions: tuple[str, ...]
    channels: tuple[str, ...]
    source: Hashable = field(repr=False)
    not_before: float = -math.inf
    expires_at: float = math.inf

    def check(self, role: TokenRole, address: ChannelAddress) -> None:
        """Ensure that the grant covers `role` in `address`.

        Raises:
            RefusedError: It does not.
        """
        self.check_role(role)
        if not matches(self.sessions, address.session):
            raise RefusedError(Reason.NOT_FOR_THIS, f"The token is not for the session {address.session}.")
        if not matches(self.channels, address.channel):
            raise RefusedError(Reason.NOT_FOR_THIS, f"The token is not for the channel {address.channel}.")

    def check_role(self, role: TokenRole) -> None:
        """Ensure that the grant covers `role`, anywhere.

        Raises:
            RefusedError: It does not.
        """
        if role not in self.roles:
            raise RefusedError(Reason.NOT_FOR_THIS, f"The token has the role {join_words(self.roles)}, not {role}.")

    def check_time(self, now: float, leeway_seconds: float) -> None:
        """Ensure that the grant is valid now.

        Raises:
            RefusedError: It is not valid yet, or has expired.
        """
        if now >= self.expires_at + leeway_seconds:
            raise RefusedError(Reason.EXPIRED, "The token has expired.")
        if now < self.not_before - leeway_seconds:
            raise RefusedError(Reason.NOT_YET, "The token is not valid yet.")


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a name matches one of the patterns. `*` stands for any characters or none."""
    return _ANYTHING in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def join_words(words: frozenset[TokenRole] | tuple[str, ...]) -> str:
    """Join words with commas, in a fixed order."""
    return ", ".join(sorted(words))


def read_claims(claims: Mapping[str, object], source: Hashable) -> Grant:
    """Read the grant from a token's claims, after its signature, issuer and audience were verified.

    Args:
        claims: `role`, `session` and `channel` are each a text or a list of texts. `exp` is required, `nbf` is not.
        source: See `Grant`.

    Raises:
        RefusedError: A claim is missing or malformed.
    """
    roles = _read_texts(claims, "role")
    unknown = [role for role in roles if role not in set(TokenRole)]
    if unknown:
        raise RefusedError(
            Reason.CLAIMS, f"The token's role must be broadcast, listen or admin, not {quoted(unknown[0])}."
        )
    return Grant(
        roles=frozenset(map(TokenRole, roles)),
        sessions=_read_patterns(claims, "session"),
        channels=_read_patterns(claims, "channel"),
        source=source,
        not_before=_read_time(claims, "nbf", -math.inf),
        expires_at=_read_time(claims, "exp", None),
    )


def _read_texts(claims: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = claims.get(name)
    texts = value if isinstance(value, list) else [value]
    if not 1 <= len(texts) <= MAX_PATTERNS or not all(isinstance(text, str) for text in texts):
        wrong = "is missing" if value is None else f"must be a string or a list of 1 to {MAX_PATTERNS} strings"
        raise RefusedError(Reason.CLAIMS, f"The token's claim {name} {wrong}{_but(value)}.")
    return tuple(texts)


def _read_patterns(claims: Mapping[str, object], name: str) -> tuple[str, ...]:
    patterns = _read_texts(claims, name)
    for pattern in patterns:
        if not is_pattern(pattern):
            raise RefusedError(
                Reason.CLAIMS, f"The token's claim {name} has {quoted(pattern)}, which no {name} can match."
            )
    return patterns


def _read_time(claims: Mapping[str, object], name: str, default: float | None) -> float:
    value = claims.get(name, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.nan
        if math.isfinite(seconds) or value is default:
            return seconds
    wrong = "is missing" if value is None else "must be a number of seconds"
    raise RefusedError(Reason.CLAIMS, f"The token's claim {name} {wrong}{_but(value)}.")


def _but(value: object) -> str:
    return "" if value is None else f", not {quoted(value)}"
