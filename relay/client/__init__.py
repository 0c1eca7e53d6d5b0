"""Listen and broadcast from Python, with typed events and automatic reconnects.

A program that listens:

    import asyncio
    from relay.client import Audio, listen

    async def main():
        async with listen("http://127.0.0.1:8080", "ev1") as listener:
            async for event in listener:
                print(len(event.payload) if isinstance(event, Audio) else event)

    asyncio.run(main())
"""

from functools import partial
from typing import Literal

from relay.access.local_key import find_local_key
from relay.client.broadcaster import Broadcaster, BroadcastingEvent, CaughtUp, SendingStats
from relay.client.listener import AskedCodecs, Listener, ListeningEvent, name_codecs
from relay.client.outbox import Dropping
from relay.client.reception import ReceptionStats, UnknownLoss
from relay.client.reconnect import Reconnect, Reconnected, Reconnecting, Reconnector
from relay.client.transport.connection import Endpoint, Token
from relay.protocol.messages import (
    Audience,
    Backpressure,
    ChannelEntry,
    Channels,
    Clear,
    DeliveryChange,
    ErrorNotice,
    FormatChange,
    Gap,
    Goaway,
    Hello,
    Pong,
    StateChange,
)
from relay.protocol.requests import Offer
from relay.protocol.wire import Audio, Header
from relay.vocabulary.audio import AudioFormat, Codec, Pace
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import (
    BadRequestError,
    ChannelBusyError,
    ConnectionLostError,
    NotAllowedError,
    PolicyError,
    RelayError,
    UnreachableError,
    UserError,
)
from relay.vocabulary.labels import Label, tidy_name
from relay.vocabulary.names import DEFAULT_CHANNEL, ChannelAddress

__all__ = [
    "Audience",
    "Audio",
    "AudioFormat",
    "Backpressure",
    "BadRequestError",
    "Broadcaster",
    "BroadcastingEvent",
    "CaughtUp",
    "ChannelBusyError",
    "ChannelEntry",
    "ChannelState",
    "Channels",
    "Clear",
    "Codec",
    "ConnectionLostError",
    "DeliveryChange",
    "Dropping",
    "ErrorNotice",
    "FormatChange",
    "Gap",
    "Goaway",
    "Header",
    "Hello",
    "Listener",
    "ListeningEvent",
    "NotAllowedError",
    "Pace",
    "PolicyError",
    "Pong",
    "ReceptionStats",
    "Reconnect",
    "Reconnected",
    "Reconnecting",
    "RelayError",
    "SendingStats",
    "Silence",
    "StateChange",
    "UnknownLoss",
    "UnreachableError",
    "UserError",
    "broadcast",
    "listen",
]

QUEUE_SECONDS = 5.0
"""Default bound of a broadcaster's queue: it covers a short outage, and its audio is still worth hearing."""


def listen(
    url: str,
    session: str,
    *,
    channel: str = DEFAULT_CHANNEL,
    codec: AskedCodecs | None = None,
    buffer_ms: int | None = None,
    burst_ms: int | None = None,
    coalesce_ms: int | None = None,
    packet_ms: int | None = None,
    token: Token | None = None,
    reconnect: Reconnect | None = Reconnect(),  # noqa: B008 - it is immutable
) -> Listener:
    """Create a listener. It connects within `async with`, and `async for` iterates over its events.

    Args:
        url: Address of the relay, for example `wss://relay.example.org` or `https://example.org/relay`.
        session: Id of the session, which need not have begun.
        channel: Id of the channel within the session.
        codec: `pcm_s16le` for 16-bit PCM, `opus` for Opus packets, or both in the order of preference. The relay
            converts the audio if need be, and `audio_format` says what it is. None is PCM.
        buffer_ms: Maximum age of the audio that the relay sends, in milliseconds. None takes the longest that the relay
            grants, which loses least.
        burst_ms: How much audio from before the join to receive first, in milliseconds. None receives none.
        coalesce_ms: How long the relay may hold frames to send them together, in milliseconds. None: the relay decides.
        packet_ms: How much Opus may share a message, in milliseconds, up to 100. Each packet is an event of its own in
            any case. None puts one packet in a message.
        token: Key or token for the relay, if the relay asks listeners for one. A function, asynchronous or not, is
            called for one at every connection.
        reconnect: How to reconnect after the connection is lost; None never reconnects.

    Raises:
        BadRequestError: The id of the session or the channel is not valid.
        ValueError: There is no such codec.
    """
    query = {
        "codec": None if codec is None else name_codecs(codec),
        "buffer_ms": buffer_ms,
        "burst_ms": burst_ms,
        "coalesce_ms": coalesce_ms,
        "packet_ms": packet_ms,
    }
    return Listener(Endpoint(url, token), ChannelAddress(session, channel), query, Reconnector(reconnect))


def broadcast(
    url: str,
    session: str,
    *,
    channel: str = DEFAULT_CHANNEL,
    audio_format: AudioFormat = AudioFormat(),  # noqa: B008 - it is immutable
    pace: Pace | Literal["live", "speech"] = Pace.LIVE,
    name: str | None = None,
    lang: str | None = None,
    session_name: str | None = None,
    takeover: bool = False,
    token: Token | None = None,
    reconnect: Reconnect | None = Reconnect(),  # noqa: B008 - it is immutable
    queue_seconds: float = QUEUE_SECONDS,
    dropping: Dropping | Literal["never", "in-cuts", "late"] | None = None,
) -> Broadcaster:
    """Create a broadcaster. Within `async with` it holds the channel and sends audio to it.

    A broadcaster that reconnects takes its channel back, even from another broadcaster. A broadcaster stops for good
    when another one takes the channel over while it is connected.

    Args:
        url: Address of the relay, for example `wss://relay.example.org` or `https://example.org/relay`.
        session: Id of the session.
        channel: Id of the channel within the session.
        audio_format: Format of the audio; by default 16-bit PCM, 16 kHz mono. With the codec `opus`, each `send` takes
            one packet, and the format's rate is the one to which the relay decodes for listeners of PCM.
        pace: `live` for a microphone or another real-time source: late audio is late. `speech` for synthesis, which
            arrives early and in bursts: listeners hear all of it in real time.
        name: What people call the channel.
        lang: BCP 47 tag of the channel's language, for example `de`.
        session_name: What people call the session, for example `Town hall`. A name from the operator takes precedence.
        takeover: Replace the channel's present broadcaster, if there is one.
        token: Key or token for the relay. A function, asynchronous or not, is called for one at every connection. None
            finds the key of a relay on this machine that made its own.
        reconnect: How to reconnect after the connection is lost; None never reconnects.
        queue_seconds: Maximum length of the queue of unsent audio, in seconds. Audio that did not arrive when a
            connection broke is held in addition. With `late`, up to 20 s wait until it is known whether a source that
            is ahead of real time is live.
        dropping: What a full queue does. `never`: `send` waits; for a source that can wait, such as a file. `late`: the
            queue drops its oldest audio, and audio that stays late; for a source that cannot wait, such as a
            microphone. `in-cuts`: the queue drops its oldest audio, but only while there is no connection. None is
            `in-cuts` in pace `live`, and `never` in pace `speech`, which allows no other.

    Raises:
        BadRequestError: An id, a name or the language is not valid.
        ValueError: The pace or the dropping does not exist, or the pace is `speech` and the dropping is not `never`.
    """
    pace = Pace(pace)
    dropping = Dropping(dropping or (Dropping.NEVER if pace is Pace.SPEECH else Dropping.IN_CUTS))
    if pace is Pace.SPEECH and dropping is not Dropping.NEVER:
        raise ValueError("Audio of pace speech is never dropped.")
    title = None if session_name is None else tidy_name("session_name", session_name)
    offer = Offer(audio_format, pace, takeover, Label(name, lang), session_name=title)
    address = ChannelAddress(session, channel)
    # The key is looked up at every connection, because a relay that restarted has made a new one.
    endpoint = Endpoint(url, partial(find_local_key, url) if token is None else token)
    return Broadcaster(endpoint, address, offer, Reconnector(reconnect), queue_seconds=queue_seconds, dropping=dropping)
