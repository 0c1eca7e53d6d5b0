"""What can go wrong, and what the peer learns about it: every error has a close code and an HTTP status.

Invariant: the text of a `RelayError` is one sentence for the person at the other end. It says what was wrong, where,
and what to do. It never contains a secret.
"""

from enum import IntEnum
from typing import ClassVar, Self

_MISUNDERSTANDING = "A protocol error occurred between this page and the relay. Reload the page."


class CloseCode(IntEnum):
    """The WebSocket close codes of `relay.v1`, defined only here.

    `python -m scripts.generate` derives the tables of the player and of docs/protocol.md from this class. Codes
    4000–4499 ask the client to reconnect; codes 4500–4999 forbid it.

    Attributes:
        may_reconnect: Whether the same client may reconnect.
        meaning: What the code means, for docs/protocol.md.
        advice: What a client does, for docs/protocol.md.
        http_status: The HTTP status of a refusal before the upgrade; None if the code is not a refusal.
        reason: The default text of the close frame, when the relay has nothing more exact to say.
        sentence: What a client shows a person when the close frame has no reason.
    """

    may_reconnect: bool
    meaning: str
    advice: str
    http_status: int | None
    reason: str
    sentence: str

    def __new__(  # noqa: PLR0917 - a row of a table
        cls,
        code: int,
        may_reconnect: bool = True,
        meaning: str = "",
        advice: str = "",
        http_status: int | None = None,
        reason: str = "",
        sentence: str = "",
    ) -> Self:
        """Create a row of the table."""
        self = int.__new__(cls, code)
        self._value_ = code
        self.may_reconnect, self.meaning, self.advice = may_reconnect, meaning, advice
        self.http_status, self.reason, self.sentence = http_status, reason, sentence
        return self

    # fmt: off
    SESSION_ENDED = (
        1000, False, ("The broadcaster or the operator ended the session. For a broadcaster also: the relay accepted "
        "its `pause`."), "Stops.", None, "The session ended.", "The session has ended.")
    GOING_AWAY = 1001, True, "The other side leaves: a page was closed, or a proxy stops.", "Reconnects with backoff."
    NOT_WEBSOCKET = 1002, False, "A frame breaks the WebSocket protocol.", "Stops.", None, "", _MISUNDERSTANDING
    NOT_TAKEN = (
        1003, False, "The receiver does not accept messages of this type.", "Stops.", None, "", _MISUNDERSTANDING)
    CONNECTION_BROKE = (
        1006, True, ("There was no close frame. The network failed, or the relay cut off a listener that accepted no "
        "audio for the stall limit (15 s)."), "Reconnects with backoff.")
    NOT_UTF8 = 1007, False, "A text message is not UTF-8.", "Stops.", None, "", _MISUNDERSTANDING
    POLICY = (
        1008, False, ("The client broke a rule. Any client: it exceeded a [limit](limits.md) that the reason names, or "
        "sent malformed JSON, or a text that is over 4 KiB or nested deeper than 32. A listener: it sent audio. A "
        "broadcaster: it began with a compressed file, or sent unusable audio for the fifth time (incomplete samples, "
        "audio in a text message, or a WAV header). The first four times, it gets an `error`."), "Stops.", 400, "",
        "The relay closed the connection because of something this page sent. Reload the page.")
    TOO_BIG = (
        1009, False, "A message is too big.", "Stops.", None, "",
        "The relay closed the connection because a message was too big. Reload the page.")
    INTERNAL = 1011, True, "The relay failed.", "Reconnects with backoff.", 500, "The relay failed; try again."
    RESTARTING = (
        1012, True, "The relay is restarting.", "Reconnects after the delay in `goaway`.", None,
        "The relay is restarting.")
    TOKEN_EXPIRED = (
        4001, True, "The token expired while connected, or its key was withdrawn.", "Gets a new token, and reconnects.",
        401)
    TAKEN_OVER = (
        4500, False, "Another broadcaster took over the channel.", "Stops.", None, "Another broadcaster took over.",
        "Another broadcaster took over this channel.")
    DISCONNECTED = (
        4501, False, "The operator disconnected the client.", "Stops.", None, "The operator disconnected you.",
        "The operator of the relay closed this connection.")
    NOT_ALLOWED = (
        4502, False, ("Not allowed. The token or key is missing, wrong, expired or for something else, or the session "
        "does not exist. The relay does not say which."), "Stops, and asks the person.", 401, "",
        "The relay did not accept the key for this session.")
    CHANNEL_BUSY = (
        4503, False, "The channel already has a broadcaster.", "Stops, and offers to take over.", 409, "",
        "This channel already has a broadcaster.")
    BAD_REQUEST = (
        4504, False, "The request is malformed. The reason says how.", "Stops.", 400, "",
        "The relay does not accept this page's address.")
    # fmt: on


FORBIDDEN = range(4500, 5000)
"""Codes that forbid a reconnect, including those that this version does not know."""


def may_reconnect(code: int) -> bool:
    """Return whether a client may reconnect after a close with this code."""
    return CloseCode(code).may_reconnect if code in set(CloseCode) else code not in FORBIDDEN


class RelayError(Exception):
    """The root of all errors that the relay raises on purpose. On its own, it is the relay's fault, not the peer's."""

    close_code: ClassVar[CloseCode] = CloseCode.INTERNAL
    http_status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        """Derive the HTTP status from the close code, unless the class sets its own."""
        if "http_status" not in vars(cls):
            cls.http_status = cls.close_code.http_status or RelayError.http_status


class PeerError(RelayError):
    """The peer broke the rules; the relay works as intended."""

    close_code = CloseCode.POLICY


class BadRequestError(PeerError):
    """An address or a query does not follow the protocol."""

    close_code = CloseCode.BAD_REQUEST


class NotServedError(PeerError):
    """The relay does not serve what the address names, because of its settings or for want of a library."""

    close_code = CloseCode.BAD_REQUEST
    http_status = 404


class NotAllowedError(PeerError):
    """The token or key is missing, wrong or for something else, or the session does not exist: one answer for all."""

    close_code = CloseCode.NOT_ALLOWED


class TokenExpiredError(PeerError):
    """The client is connected, but its token or key is no longer valid."""

    close_code = CloseCode.TOKEN_EXPIRED


class ChannelBusyError(PeerError):
    """The channel has a broadcaster already."""

    close_code = CloseCode.CHANNEL_BUSY


class TakenOverError(PeerError):
    """Another broadcaster took the channel over while this one was about to claim it."""

    close_code = CloseCode.TAKEN_OVER
    http_status = 409


class PolicyError(PeerError):
    """A peer sent a message that its role must not send."""

    close_code = CloseCode.POLICY


class AudioFaultError(PolicyError):
    """Audio that the relay cannot use. It drops the message and keeps the connection, unless this happens often."""


class UserError(RelayError):
    """A mistake on the command line or in the configuration; printed as one sentence, with exit code 2."""


class ConfigurationError(UserError):
    """A configuration that cannot be used; the text names the key and where it was set."""


class UnreachableError(UserError):
    """A client reaches nothing that answers like a relay, but a later attempt may succeed.

    Attributes:
        retry_after_seconds: How long the other end asks the client to wait before the next attempt.
    """

    def __init__(self, sentence: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class ConnectionLostError(RelayError):
    """A client lost its connection and may reconnect. The attribute is the same as in `UnreachableError`."""

    def __init__(self, sentence: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds
