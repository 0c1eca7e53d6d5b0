"""What operators see and do: list sessions, channels and connections, end sessions, and disconnect clients.

Invariants: An operator limited to some channels learns nothing about the others, not even whether there are any.
Queries change nothing. The size of an answer is bounded, whatever the number of channels and listeners. The figures
come from the counters. The log names the client that ended or disconnected something.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from heapq import nlargest
from itertools import count
from typing import Any

from relay.access.rules import OperatorPermit
from relay.hub.channel import DISCONNECTED, Channel
from relay.hub.group import Group
from relay.hub.hub import Hub
from relay.hub.listener import Listener
from relay.hub.stream import Stream
from relay.protocol import messages
from relay.protocol.operator_requests import Operation, OperatorRequest
from relay.protocol.requests import Role
from relay.vocabulary.clock import Clock
from relay.vocabulary.names import ChannelAddress

MAX_CHANNELS = 250
"""The most channels in one answer, 225 KB at most. Channels with a broadcaster come first, then those with the most
listeners."""

MAX_LISTENERS = 100
"""The most listeners in one answer: those furthest behind, then those that lost the most."""

Json = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A client that the operator disconnected.

    Attributes:
        role: Broadcaster or listener.
        channel: Its channel.
        client_address: Its address.
    """

    role: Role
    channel: str
    client_address: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A channel in an answer.

    Attributes:
        address: The channel.
        is_home: Whether this relay numbers its audio. In a cluster, only the home knows the figures of the source.
        figures: Its members in JSON.
    """

    address: ChannelAddress
    is_home: bool
    figures: Json


@dataclass(frozen=True, slots=True)
class Survey:
    """What an operator sees of a relay, or of one session.

    Attributes:
        shown: The channels that an answer has room for, by session and name.
        left_out: The other channels, each with the number of its listeners.
        listeners: Number of listeners of all channels.
        worst_listeners: The listeners with the worst reception, the worst first. Only for one session.
        uncounted: Number of further channels that are not in `left_out` either.
    """

    shown: list[Shown]
    left_out: list[tuple[ChannelAddress, int]]
    listeners: int
    worst_listeners: list[Json]
    uncounted: int = 0

    @property
    def not_listed(self) -> int:
        """Number of channels that the answer leaves out."""
        return len(self.left_out) + self.uncounted

    def list_sessions(self) -> Json:
        """Return all sessions with their channels."""
        of_sessions: dict[str, list[Json]] = {}
        for channel in self.shown:
            of_sessions.setdefault(channel.address.session, []).append(channel.figures)
        return {
            "sessions": [{"id": session, "channels": listed} for session, listed in of_sessions.items()],
            "not_listed": self.not_listed,
        }

    def show_session(self, session: str) -> Json | None:
        """Return the only session with its worst-off listeners; None if there is none."""
        if not self.shown:
            return None
        return {
            "id": session,
            "channels": [channel.figures for channel in self.shown],
            "not_listed": self.not_listed,
            "listeners": self.listeners,
            "worst_listeners": self.worst_listeners,
        }


def covers(permit: OperatorPermit, wanted: OperatorRequest) -> bool:
    """Whether a request is within an operator's permit, even if its target does not exist."""
    if wanted.operation is Operation.LIST:
        return True
    if wanted.channel is None:
        return permit.covers_session(wanted.session)
    return permit.covers(ChannelAddress(wanted.session, wanted.channel))


class Operations:
    """The operator's side of a hub. `clock` is the hub's. Of a cluster's nodes, only the home of a channel ends it."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock

    def perform(self, wanted: OperatorRequest, permit: OperatorPermit, operator: str) -> Json | None:
        """Do what an operator wants, and return the answer. None if nothing matches that this operator may see.

        `operator` is the address that the log names.
        """
        session = wanted.session
        match wanted.operation:
            case Operation.LIST:
                return self.list_sessions(permit)
            case Operation.SHOW:
                return self.show_session(session, permit)
            case Operation.END:
                ended = self.end(session, wanted.channel, permit)
                if not ended:
                    return None
                event = "the operator ended channels"
                logger.warning(event, extra={"operator": operator, "session": session, "channels": ended})
                return {"session": session, "ended": ended}
        gone = self.disconnect(session, wanted.connection_id, permit)
        if gone is None:
            return None
        told = {"session": session, "channel": gone.channel, "connection": wanted.connection_id, "role": gone.role}
        event = "the operator disconnected a client"
        logger.warning(event, extra={"operator": operator, **told, "client": gone.client_address})
        return {"session": session, "channel": gone.channel, "disconnected": wanted.connection_id, "role": gone.role}

    def list_sessions(self, permit: OperatorPermit) -> Json:
        """Return all sessions with their channels, by name."""
        return self.survey(permit).list_sessions()

    def show_session(self, session: str, permit: OperatorPermit) -> Json | None:
        """Return one session with its worst-off listeners; None if the operator can see no such session."""
        return self.survey(permit, session).show_session(session)

    def survey(self, permit: OperatorPermit, session: str | None = None) -> Survey:
        """Return what the operator may see of one session, or of all."""
        sessions = self._hub.directory.sessions if session is None else [session]
        channels = [
            channel for each in sessions if permit.covers_session(each) for channel in self._channels(each, permit)
        ]
        now = self._clock()
        ranked = sorted(channels, key=lambda each: (each.broadcaster is None, -each.listener_count))
        chosen = sorted(ranked[:MAX_CHANNELS], key=lambda channel: (channel.address.session, channel.address.channel))
        worst = [] if session is None else nlargest(MAX_LISTENERS, _ranked(channels, now))
        return Survey(
            [Shown(each.address, each.is_home, _describe_channel(each, now)) for each in chosen],
            [(channel.address, channel.listener_count) for channel in ranked[MAX_CHANNELS:]],
            sum(channel.listener_count for channel in channels),
            [_describe_listener(each, now) for each in worst],
        )

    def end(self, session: str, name: str | None, permit: OperatorPermit) -> list[str]:
        """End a session, or one of its channels, with `Broadcasting.stop`. Return the names of the ended channels."""
        ending = [
            channel
            for channel in self._channels(session, permit)
            if name in (None, channel.address.channel) and channel.is_home
        ]
        self._hub.broadcasting.stop(ending)
        return [channel.address.channel for channel in ending]

    def disconnect(self, session: str, connection_id: str, permit: OperatorPermit) -> Disconnected | None:
        """Disconnect a broadcaster or a listener; None if the operator can see no such connection."""
        for channel in self._channels(session, permit):
            broadcaster = channel.broadcaster
            if broadcaster is not None and broadcaster.connection_id == connection_id:
                self._hub.broadcasting.disconnect(broadcaster)
                return Disconnected(Role.BROADCASTER, channel.address.channel, broadcaster.port.client_address)
            for listener in channel.listeners:
                if listener.connection_id == connection_id:
                    listener.port.close(*DISCONNECTED)
                    return Disconnected(Role.LISTENER, channel.address.channel, listener.port.client_address)
        return None

    def _channels(self, session: str, permit: OperatorPermit) -> Iterator[Channel]:
        """Return the channels of a session that the operator may see."""
        return (channel for channel in self._hub.directory.channels_of(session) if permit.covers(channel.address))


_Ranked = tuple[float, int, int, Listener, Group, Stream, Channel]
"""A listener and how badly it does (greater is worse): lag in seconds, lost flicks, and a unique number."""


def _ranked(channels: Iterable[Channel], now: float) -> Iterator[_Ranked]:
    """Yield all listeners, each as one tuple that compares directly: there may be ten thousand."""
    # The numbers fall, so among equals the first is the greatest and `nlargest` need not insert later ones.
    numbers = count(0, -1)
    return (
        (lag_seconds, listener.buffer.dropped_flicks, next(numbers), listener, group, stream, channel)
        for channel in channels
        for stream in channel.streams.values()
        for group in stream.groups.values()
        for lag_seconds, listener in group.lags(now)
    )


def _describe_channel(channel: Channel, now: float) -> Json:
    broadcaster, tally = channel.broadcaster, channel.tally
    # Listeners will still hear the waiting audio of a broadcaster that left.
    ingest = None if broadcaster is None and channel.departure is None else channel.ingest
    return {
        **asdict(channel.entry),
        "silence": channel.timeline.silence,
        "pace": channel.pace.value,
        "format": messages.describe_format(channel.audio_format),
        "listeners": channel.listener_count,
        "codec_listeners": {codec.value: stream.listener_count for codec, stream in channel.streams.items()},
        "broadcaster": None
        if broadcaster is None
        else {"connection_id": broadcaster.connection_id, "client_address": broadcaster.port.client_address},
        "lead_ms": None if ingest is None else round(ingest.lead_seconds(now) * 1000),
        "queued_ms": None if ingest is None else round(ingest.queued_seconds() * 1000),
        "arrival_rate": None if broadcaster is None else broadcaster.arrival_rate,
        "released_frames": tally.released_frames,
        "delivered_frames": tally.delivered_frames,
        "dropped_frames": tally.dropped_frames,
    }


def _describe_listener(ranked: _Ranked, now: float) -> Json:
    lag_seconds, _, _, listener, group, stream, channel = ranked
    counters = group.counters(listener)
    blocked_seconds = 0.0 if listener.blocked_since is None else max(0.0, now - listener.blocked_since)
    return {
        "connection_id": listener.connection_id,
        "client_address": listener.port.client_address,
        "channel": channel.address.channel,
        "codec": stream.codec.value,
        "framing": listener.framing.name,
        "lag_ms": round(lag_seconds * 1000),
        "delivered_seconds": round(counters.taken.seconds, 2),
        "dropped_seconds": round(counters.dropped.seconds, 2),
        "blocked_seconds": round(blocked_seconds, 2),
        "report": None if listener.report is None else asdict(listener.report),
    }
