"""Listening and broadcasting from Python: typed events, and connections that come back by themselves.

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
from relay.client.listener import Listener, ListeningEvent
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
from relay.vocabulary.audio import AudioFormat, Pace
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
    "ConnectionLostError",
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
"""How much audio waits at a broadcaster: enough for a short cut, little enough to be worth hearing after it."""


def listen(
    url: str,
    session: str,
    *,
    channel: str = DEFAULT_CHANNEL,
    buffer_ms: int | None = None,
    burst_ms: int | None = None,
    coalesce_ms: int | None = None,
    token: Token | None = None,
    reconnect: Reconnect | None = Reconnect(),  # noqa: B008 - it is immutable
) -> Listener:
    """Make a listener, which receives within `async with` and gives its events to `async for`.

    Args:
        url: Of the relay, for example `wss://relay.example.org` or `https://example.org/relay`.
        session: The session's id; it need not have begun.
        channel: The audio track of it.
        buffer_ms: Bound on the age of the audio that the relay sends; None takes the longest that it grants, which
            loses least.
        burst_ms: How much audio from before the join it begins with; None: none.
        coalesce_ms: How long the relay may let frames wait for each other; None leaves it to the relay.
        token: The relay's key or token, if it asks listeners for one; or a function, asynchronous or not, that gives
            one at every connection.
        reconnect: How to come back after a lost connection; None does not.

    Raises:
        BadRequestError: The session or the channel can not have that name.
    """
    query = {"buffer_ms": buffer_ms, "burst_ms": burst_ms, "coalesce_ms": coalesce_ms}
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
    """Make a broadcaster, which within `async with` has a channel and sends to it.

    A broadcaster that lost its connection takes its channel back, from whoever has it by then; one that another
    broadcaster took over from stops for good.

    Args:
        url: Of the relay, for example `wss://relay.example.org` or `https://example.org/relay`.
        session: The session's id.
        channel: The audio track of it.
        audio_format: Of the audio: 16-bit samples, 16 kHz mono when not said.
        pace: `live` for a microphone, or whatever comes in real time: what comes late is late. `speech` for
            synthesis, which comes early and in bursts: the relay has it heard in real time, whole.
        name: What people call the channel.
        lang: BCP 47 tag of its language, for example `de`.
        session_name: What people call the session, for example `Town hall`; the operator's name for it goes before it.
        takeover: Replace a broadcaster that the channel has.
        token: The relay's key or token; or a function, asynchronous or not, that gives one at every connection. None
            finds the key of a relay on this machine that made one for itself.
        reconnect: How to come back after a lost connection; None does not.
        queue_seconds: How much audio waits here at the most; beside it, what did not arrive when a connection broke.
        dropping: What happens when that is full. `never`: `send` waits; for a file, which can. `late`: the oldest is
            dropped, and what is late for good; for a microphone, which can not wait. `in-cuts`: the oldest is dropped
            while there is no connection. None: `in-cuts` in pace `live`. Pace `speech` never drops anything.

    Raises:
        BadRequestError: The session or the channel can not have that name, or a name or the language is not valid.
        ValueError: There is no such pace or dropping, or speech would be dropped.
    """
    pace = Pace(pace)
    dropping = Dropping(dropping or (Dropping.NEVER if pace is Pace.SPEECH else Dropping.IN_CUTS))
    if pace is Pace.SPEECH and dropping is not Dropping.NEVER:
        raise ValueError("Audio of pace speech is never dropped.")
    title = None if session_name is None else tidy_name("session_name", session_name)
    offer = Offer(audio_format, pace, takeover, Label(name, lang), session_name=title)
    address = ChannelAddress(session, channel)
    # Asked at every connection: a relay that was restarted has made itself another key.
    endpoint = Endpoint(url, partial(find_local_key, url) if token is None else token)
    return Broadcaster(endpoint, address, offer, Reconnector(reconnect), queue_seconds=queue_seconds, dropping=dropping)
