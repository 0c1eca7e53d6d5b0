"""What can go wrong, and what a peer is told: every error knows its close code and its HTTP status.

Invariant: the text of a `RelayError` is one sentence for the person at the other end: what was wrong, where,
and what to do. It never contains a secret.
"""

from enum import IntEnum
from typing import ClassVar, Self

_MISUNDERSTANDING = "This browser and the relay do not understand each other. Reload the page."


class CloseCode(IntEnum):
    """WebSocket close codes of `relay.v1`: the one table of them.

    `python -m scripts.generate` makes the tables of the player and of docs/protocol.md from it. 4000–4499 ask the
    client to reconnect, 4500–4999 forbid it.

    Attributes:
        may_reconnect: Whether the same client may come back.
        meaning: What it says, for docs/protocol.md.
        advice: What a client does, likewise.
        http_status: What a client gets that is refused before the upgrade; None when this is no refusal.
        reason: What the relay writes into the close frame when it has nothing more exact to say.
        sentence: What a client tells a person when the close frame had no reason.
    """

    may_reconnect: bool
    meaning: str
    advice: str
    http_status: int | None
    reason: str
    sentence: str

    def __new__(  # noqa: PLR0917 - a row of the table
        cls,
        code: int,
        may_reconnect: bool = True,
        meaning: str = "",
        advice: str = "",
        http_status: int | None = None,
        reason: str = "",
        sentence: str = "",
    ) -> Self:
        """Make a row of the table."""
        self = int.__new__(cls, code)
        self._value_ = code
        self.may_reconnect, self.meaning, self.advice = may_reconnect, meaning, advice
        self.http_status, self.reason, self.sentence = http_status, reason, sentence
        return self

    # fmt: off
    SESSION_ENDED = (
        1000, False, ("the session ended, as its broadcaster or the operator said; to a broadcaster also: its `pause` "
        "was taken"), "stops", None, "The session ended.", "The session has ended.")
    GOING_AWAY = 1001, True, "the other side leaves: a page was closed, or a proxy stops", "reconnects with backoff"
    NOT_WEBSOCKET = 1002, False, "not WebSocket", "stops", None, "", _MISUNDERSTANDING
    NOT_TAKEN = 1003, False, "not a type of message that is taken", "stops", None, "", _MISUNDERSTANDING
    CONNECTION_BROKE = (
        1006, True, ("no close frame: the network, or a listener that was not writable for the stall limit (15 s) and "
        "was cut off"), "reconnects with backoff")
    NOT_UTF8 = 1007, False, "not UTF-8", "stops", None, "", _MISUNDERSTANDING
    POLICY = (
        1008, False, ("policy: over a [limit](limits.md) that the reason names, malformed JSON, text over 4 KiB or "
        "nested deeper than 32, a listener that sends audio, a broadcaster whose first audio is a compressed file, "
        "audio that can't be taken (not whole samples, in text, with a WAV header) for the fifth time (each time "
        "before: an `error`)"), "stops", 400, "",
        "The relay closed the connection because of something this page sent. Reload the page.")
    TOO_BIG = (
        1009, False, "message too big", "stops", None, "",
        "The relay closed the connection because a message was too big. Reload the page.")
    INTERNAL = 1011, True, "the relay's fault", "reconnects with backoff", 500, "The relay failed; try again."
    RESTARTING = (
        1012, True, "the relay is restarting", "reconnects after the delay in `goaway`", None,
        "The relay is restarting.")
    TOKEN_EXPIRED = (
        4001, True, "the token expired while connected, or was withdrawn", "gets a new token, reconnects", 401)
    TAKEN_OVER = (
        4500, False, "another broadcaster took over", "stops", None, "Another broadcaster took over.",
        "Another broadcaster took over this channel.")
    DISCONNECTED = (
        4501, False, "disconnected by the operator", "stops", None, "The operator disconnected you.",
        "The operator of the relay closed this connection.")
    NOT_ALLOWED = (
        4502, False, ("not allowed: the token or key is missing, wrong, expired or not for this, or there is no such "
        "session: one answer for all"), "stops, asks the person", 401, "",
        "The relay did not accept the key for this session.")
    CHANNEL_BUSY = (
        4503, False, "the channel has a broadcaster", "stops, offers take-over", 409, "",
        "This channel has a broadcaster already.")
    BAD_REQUEST = (
        4504, False, "bad request; the reason says what, in one sentence", "stops", 400, "",
        "The relay does not understand this page's address.")
    # fmt: on


FORBIDDEN = range(4500, 5000)
"""Codes that forbid a reconnect, also those that this version does not know."""


def may_reconnect(code: int) -> bool:
    """Tell whether a client may come back after a close with this code."""
    return CloseCode(code).may_reconnect if code in set(CloseCode) else code not in FORBIDDEN


class RelayError(Exception):
    """The root of everything that the relay raises on purpose; on its own it is our fault, not the peer's."""

    close_code: ClassVar[CloseCode] = CloseCode.INTERNAL
    http_status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        """Take the HTTP status of the close code, unless the class says another."""
        if "http_status" not in vars(cls):
            cls.http_status = cls.close_code.http_status or RelayError.http_status


class PeerError(RelayError):
    """The peer asked for or did something that it must not; nothing is wrong with the relay."""

    close_code = CloseCode.POLICY


class BadRequestError(PeerError):
    """An address or a query that is not of the protocol's form."""

    close_code = CloseCode.BAD_REQUEST


class NotAllowedError(PeerError):
    """The token or key is missing, wrong or not for this, or there is no such session; one answer for every reason."""

    close_code = CloseCode.NOT_ALLOWED


class TokenExpiredError(PeerError):
    """What let a client in holds no longer, while it is connected."""

    close_code = CloseCode.TOKEN_EXPIRED


class ChannelBusyError(PeerError):
    """The channel has a broadcaster already."""

    close_code = CloseCode.CHANNEL_BUSY


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
