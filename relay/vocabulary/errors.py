"""What can go wrong, and what a peer is told: every error knows its close code and its HTTP status.

Invariant: the text of a `RelayError` is one sentence for the person at the other end: what was wrong, where,
and what to do. It never contains a secret.
"""

from enum import IntEnum
from typing import ClassVar


class CloseCode(IntEnum):
    """WebSocket close codes of `relay.v1`; 4000–4499 ask the client to reconnect, 4500–4999 forbid it."""

    SESSION_ENDED = 1000
    GOING_AWAY = 1001
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTARTING = 1012
    TOKEN_EXPIRED = 4001
    TAKEN_OVER = 4500
    DISCONNECTED = 4501
    NOT_ALLOWED = 4502
    CHANNEL_BUSY = 4503
    BAD_REQUEST = 4504


class RelayError(Exception):
    """The root of everything that the relay raises on purpose; on its own it is our fault, not the peer's."""

    close_code: ClassVar[CloseCode] = CloseCode.INTERNAL
    http_status: ClassVar[int] = 500


class PeerError(RelayError):
    """The peer asked for or did something that it must not; nothing is wrong with the relay."""

    close_code = CloseCode.POLICY
    http_status = 400


class BadRequestError(PeerError):
    """An address or a query that is not of the protocol's form."""

    close_code = CloseCode.BAD_REQUEST
    http_status = 400


class NotAllowedError(PeerError):
    """The token or key is missing, wrong or not for this, or there is no such session; one answer for every reason."""

    close_code = CloseCode.NOT_ALLOWED
    http_status = 401


class TokenExpiredError(PeerError):
    """What let a client in holds no longer, while it is connected."""

    close_code = CloseCode.TOKEN_EXPIRED
    http_status = 401


class ChannelBusyError(PeerError):
    """The channel has a broadcaster already."""

    close_code = CloseCode.CHANNEL_BUSY
    http_status = 409


class PolicyError(PeerError):
    """A message that a peer of this role must not send."""

    close_code = CloseCode.POLICY


class AudioFaultError(PolicyError):
    """Audio that the relay can't take; nothing of it is taken, and the connection goes on unless it happens often."""


class UserError(RelayError):
    """A mistake of the person at the command line or in the configuration; printed as one sentence, exit code 2."""


class ConfigurationError(UserError):
    """A configuration that cannot be used; the text names the key and where it was set."""


class UnreachableError(UserError):
    """A client finds nobody who answers like a relay, and later somebody may.

    Attributes:
        retry_after_seconds: How long the other end asks to wait before another try.
    """

    def __init__(self, sentence: str, retry_after_seconds: float = 0.0) -> None:
        """Take the sentence for the person, and the time that the other end asked for."""
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class ConnectionLostError(RelayError):
    """A client's connection ended in a way that welcomes another one; the attribute is that of `UnreachableError`."""

    def __init__(self, sentence: str, retry_after_seconds: float = 0.0) -> None:
        """Take the sentence for the person, and the time that the relay asked for."""
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds
