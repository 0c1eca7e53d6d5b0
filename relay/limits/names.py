"""The names of the limits. Each is a setting in the section `limits` and a counter of how often it was applied."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import PeerError


class Limit(StrEnum):
    """A limit. Its value is the name of both the setting and the counter."""

    CONNECTIONS = "max_connections"
    LISTENERS = "max_listeners_per_session"
    BROADCASTERS = "max_broadcasters_per_session"
    CONNECTIONS_PER_ADDRESS = "max_connections_per_address"
    FAILURES_PER_ADDRESS = "max_failures_per_minute"
    PENDING_HANDSHAKES = "max_pending_handshakes"
    HANDSHAKE_SECONDS = "handshake_timeout_seconds"
    HANDSHAKE_BYTES = "max_handshake_bytes"
    BODY_BYTES = "max_body_bytes"
    AUDIO_RATE = "max_audio_messages_per_second"
    TEXT_RATE = "max_texts_per_second"
    PING_RATE = "max_pings_per_second"
    FRAGMENT_RATE = "max_fragments_per_second"
    UNREAD_BYTES = "max_unread_bytes"
    SILENCE = "stall_limit_seconds"
    NOTES = "max_notes"
    LAG = "max_lag_ms"
    REQUESTS_PER_ADDRESS = "max_requests_per_second_per_address"
    REQUESTS = "max_requests_per_second"
    COSTLY_PER_ADDRESS = "max_costly_requests_per_second_per_address"
    COSTLY = "max_costly_requests_per_second"
    JOINS_PER_ADDRESS = "max_joins_per_second_per_address"
    JOINS = "max_joins_per_second"
    SWITCH_RATE = "max_switches_per_second"
    SWITCHES_PER_ADDRESS = "max_switches_per_second_per_address"
    CONTROL_PER_ADDRESS = "max_control_messages_per_second_per_address"
    ABANDONED_PER_SESSION = "max_abandoned_channels_per_session"
    ABANDONED = "max_abandoned_channels"
    ABANDONED_BYTES_PER_SESSION = "max_abandoned_bytes_per_session"
    ABANDONED_BYTES = "max_abandoned_bytes"


LimitCounters = Counter[Limit]
"""How often each limit was applied since the relay started."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit on how often clients may do something that is costly but not a failure.

    Attributes:
        per_address: The limit for each address. An unknown address has no limit of its own.
        in_all: The limit for all clients together. None if the limit per address suffices.
        burst_seconds: Clients may spend the allowance of this period at once.
    """

    per_address: Limit
    in_all: Limit | None
    burst_seconds: float


REQUESTS = Rate(Limit.REQUESTS_PER_ADDRESS, Limit.REQUESTS, 10.0)
"""Requests for pages and their files, including those answered with an error."""

COSTLY = Rate(Limit.COSTLY_PER_ADDRESS, Limit.COSTLY, 2.0)
"""Drawing a QR code or the metrics page. Each takes about ten milliseconds, so the burst is small."""

JOINS = Rate(Limit.JOINS_PER_ADDRESS, Limit.JOINS, 10.0)
"""Connections that ask to listen or to broadcast."""

SWITCHES = Rate(Limit.SWITCHES_PER_ADDRESS, None, 10.0)
"""Switches to another channel. Each costs as much as a join."""

CONTROL = Rate(Limit.CONTROL_PER_ADDRESS, None, 2.0)
"""Control messages, pings, pongs and fragments."""


class LimitReachedError(PeerError):
    """A rate is used up. A retry may succeed in a few seconds."""

    http_status = 429

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"This exceeds the relay's limit {limit}.")
        self.limit = limit
