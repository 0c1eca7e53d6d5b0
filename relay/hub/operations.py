"""What operators see and do: list sessions, channels and connections, end sessions, and disconnect clients.

Invariants: An operator limited to some channels learns nothing about the others, not even whether there are any.
Queries change nothing. The size of an answer is bounded, whatever the number of channels and listeners. The figures
come from the counters.
"""

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
from relay.protocol.requests import Role
from relay.vocabulary.clock import Clock

MAX_CHANNELS = 250
"""The most channels in one answer, 225 KB at most. Channels with a broadcaster come first, then those with the most
listeners."""

MAX_LISTENERS = 100
"""The most listeners in one answer: those furthest behind, then those that lost the most."""

Json = dict[str, Any]


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


class Operations:
    """The operator's side of a hub. `clock` is the hub's."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock

    def list_sessions(self, permit: OperatorPermit) -> Json:
        """Return all sessions with their channels, by name."""
        directory = self._hub.directory
        sessions = [session for session in directory.sessions if permit.covers_session(session)]
        channels = [channel for session in sessions for channel in self._channels(session, permit)]
        shown, not_listed = self._describe_all(channels)
        of_sessions: dict[str, list[Json]] = {}
        for session, described in shown:
            of_sessions.setdefault(session, []).append(described)
        return {
            "sessions": [{"id": session, "channels": listed} for session, listed in of_sessions.items()],
            "not_listed": not_listed,
        }

    def show_session(self, session: str, permit: OperatorPermit) -> Json | None:
        """Return one session with its worst-off listeners; None if the operator can see no such session."""
        channels = list(self._channels(session, permit))
        if not channels:
            return None
        shown, not_listed = self._describe_all(channels)
        now = self._clock()
        worst = nlargest(MAX_LISTENERS, _ranked(channels, now))
        return {
            "id": session,
            "channels": [described for _, described in shown],
            "not_listed": not_listed,
            "listeners": sum(channel.listener_count for channel in channels),
            "worst_listeners": [_describe_listener(each, now) for each in worst],
        }

    def end(self, session: str, name: str | None, permit: OperatorPermit) -> list[str]:
        """End a session, or one of its channels, with `Broadcasting.stop`. Return the names of the ended channels."""
        ending = [channel for channel in self._channels(session, permit) if name in (None, channel.address.channel)]
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

    def _describe_all(self, channels: list[Channel]) -> tuple[list[tuple[str, Json]], int]:
        """Return as many channels as an answer holds, by name, each with its session, and the number left out."""
        now = self._clock()
        chosen = nlargest(
            MAX_CHANNELS, channels, key=lambda channel: (channel.broadcaster is not None, channel.listener_count)
        )
        chosen.sort(key=lambda channel: (channel.address.session, channel.address.channel))
        shown = [(channel.address.session, _describe_channel(channel, now)) for channel in chosen]
        return shown, len(channels) - len(chosen)


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
