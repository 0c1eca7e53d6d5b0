"""The limits by name: each is a setting of the section `limits`, and a counter of how often it was applied."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from relay.vocabulary.errors import PeerError


class Limit(StrEnum):
    """What can be reached; the value is the name of the setting, and of the counter."""

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
    """Something that costs and is no failure, and so is limited by how often it happens.

    Attributes:
        per_address: Limits it for each address; an address that is not known has no limit of its own.
        in_all: Limits it for all together; None when each address's own is enough.
        burst_seconds: What this much time allows may happen at once.
    """

    per_address: Limit
    in_all: Limit | None
    burst_seconds: float


REQUESTS = Rate(Limit.REQUESTS_PER_ADDRESS, Limit.REQUESTS, 10.0)
"""Pages and their files, and what is answered instead of them."""

COSTLY = Rate(Limit.COSTLY_PER_ADDRESS, Limit.COSTLY, 2.0)
"""QR codes that have to be drawn and the page of metrics: some ten milliseconds each, so few may come at once."""

JOINS = Rate(Limit.JOINS_PER_ADDRESS, Limit.JOINS, 10.0)
"""Connections that want to listen or to broadcast."""

SWITCHES = Rate(Limit.SWITCHES_PER_ADDRESS, None, 10.0)
"""Switches to another channel, each of which is a join."""

CONTROL = Rate(Limit.CONTROL_PER_ADDRESS, None, 2.0)
"""Control messages, pings, pongs and fragments."""


class LimitReachedError(PeerError):
    """A rate is used up; another try may succeed in some seconds.

    Attributes:
        limit: Which.
    """

    http_status = 429

    def __init__(self, limit: Limit) -> None:
        """Name the limit."""
        super().__init__(f"This is over the relay's limit {limit}.")
        self.limit = limit
