"""The limits by name: each is a setting of the section `limits`, and a counter of how often it was applied."""

from collections import Counter
from enum import StrEnum


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
    AUDIO_RATE = "max_audio_messages_per_second"
    TEXT_RATE = "max_texts_per_second"
    PING_RATE = "max_pings_per_second"
    FRAGMENT_RATE = "max_fragments_per_second"
    UNREAD_BYTES = "max_unread_bytes"
    SILENCE = "stall_limit_seconds"
    LAG = "max_lag_ms"
    ABANDONED_PER_SESSION = "max_abandoned_channels_per_session"
    ABANDONED = "max_abandoned_channels"
    ABANDONED_BYTES_PER_SESSION = "max_abandoned_bytes_per_session"
    ABANDONED_BYTES = "max_abandoned_bytes"


LimitCounters = Counter[Limit]
"""How often each limit was applied since the relay started."""
