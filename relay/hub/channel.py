"""A channel with the connections that use it.

Invariants: a listener is in exactly one group of one channel, from its joining to its leaving; taps and observers never
stop a frame on its way.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from relay.audio.amounts import AudioAmount
from relay.audio.arrival_rate import ArrivalRate
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.history import History, NumbersRecord
from relay.audio.ingest import Ingest, IngestRecord, Timed
from relay.audio.timeline import Farewell, Timeline, TimelineRecord
from relay.hub.batch import Framing
from relay.hub.group import Group
from relay.hub.listener import Listener, Note
from relay.hub.port import Port, Send
from relay.hub.tap import TAP_SECONDS, Tap
from relay.metrics.vitals import Tally
from relay.protocol import messages
from relay.protocol.requests import Offer
from relay.vocabulary.audio import AudioFormat, Frame, Pace, Place
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.labels import Label
from relay.vocabulary.names import ChannelAddress

ENDED: Final = (CloseCode.SESSION_ENDED, CloseCode.SESSION_ENDED.reason)
"""How the listeners of a channel that ended are closed."""

DISCONNECTED: Final = (CloseCode.DISCONNECTED, CloseCode.DISCONNECTED.reason)
"""How somebody is closed whom the operator sends away."""

STATS_SECONDS = 5.0
"""How often a broadcaster is told its figures when they do not change; a change is told at the next housekeeping."""

MAX_KNOWN_CONNECTIONS = 16
"""Of how many broadcasters' connections a channel knows how much was taken; few cuts need more tries to connect."""

logger = logging.getLogger(__name__)


class Broadcaster:
    """A connection that publishes to a channel, or did until another took over.

    Attributes:
        connection_id: Names it in logs.
        channel: Its channel.
        port: Its socket.
        start: Where its first frame goes, in the numbers that its greeting names.
        accepted_before: How much was taken of the connection that it resumes, in ticks; None when that is not known.
        is_held: Whether it was told to stop sending.
        stats_told: The last `stats` it was sent, and when; None before the first.
        arrival: Watches how fast its audio comes; None when it may come as it likes, in pace `speech`.
    """

    __slots__ = (
        "accepted_before",
        "arrival",
        "channel",
        "connection_id",
        "is_held",
        "port",
        "start",
        "stats_told",
    )

    def __init__(self, connection_id: str, channel: "Channel", port: Port, arrival: ArrivalRate | None = None) -> None:
        """Make the broadcaster of a channel."""
        self.connection_id = connection_id
        self.channel = channel
        self.port = port
        self.start = channel.place
        self.accepted_before: int | None = None
        self.is_held = False
        self.stats_told: tuple[str, float] | None = None
        self.arrival = arrival

    @property
    def address(self) -> ChannelAddress:
        """Of its channel."""
        return self.channel.address

    @property
    def is_present(self) -> bool:
        """Whether the channel is still its own."""
        return self.channel.broadcaster is self

    @property
    def arrival_rate(self) -> float | None:
        """How many times as fast as real time its audio comes, as the wire writes it; None while that is right."""
        return None if self.arrival is None or self.arrival.ratio is None else round(self.arrival.ratio, 2)

    def tell_stats(self, now: float) -> None:
        """Tell it its figures when they changed, or were told long ago; `now` is in seconds of the relay's clock."""
        channel, ingest = self.channel, self.channel.ingest
        if ingest is None:
            return
        text = messages.Audience(
            listeners=channel.listener_count,
            dropped_frames=channel.tally.dropped_frames,
            lead_ms=round(ingest.lead_seconds(now) * 1000),
            queued_ms=round(ingest.queued_seconds() * 1000),
            accepted=channel.accepted[self.connection_id],
            arrival_rate=self.arrival_rate,
        ).text()
        told = self.stats_told
        if told is None or told[0] != text or now - told[1] >= STATS_SECONDS:
            self.stats_told = (text, now)
            self.port.send_text(text)


@dataclass(frozen=True, slots=True)
class Departure:
    """How a broadcaster went whose last audio is still waiting to be released.

    Attributes:
        farewell: What it said.
        at: When, in seconds of the relay's clock.
    """

    farewell: Farewell
    at: float


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """What a channel is, without its audio and its connections, as plain values that can be written as JSON.

    A process that restores it goes on with the same numbers, so listeners and the broadcaster resume there. Audio that
    waits to be released is not part of it; `Channel.waiting` gives that. Times are in seconds of the relay's clock. On
    a machine with another clock they have to be shifted first.

    Attributes:
        session: Its session.
        channel: Its name.
        name: What people call it; None when nobody said.
        lang: BCP 47 tag; None when nobody said.
        session_name: What a broadcaster called the session; None when none did.
        is_listed: Whether it is shown to people.
        timeline: Its state and numbering.
        ingest: How its audio stood against real time, with its pace; None before the first broadcaster.
        accepted: How much audio was taken from each of the latest broadcasters, in ticks, by their connections' ids.
        farewell: What the broadcaster said that went while its audio waited; None when none did.
        departed_at: When it went.
    """

    session: str
    channel: str
    name: str | None
    lang: str | None
    session_name: str | None
    is_listed: bool
    timeline: TimelineRecord
    ingest: IngestRecord | None
    accepted: Mapping[str, int] = field(default_factory=dict)
    farewell: str | None = None
    departed_at: float = 0.0

    @property
    def address(self) -> ChannelAddress:
        """Which channel it is."""
        return ChannelAddress(self.session, self.channel)

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        members = json.loads(text)
        timeline, ingest = members.pop("timeline"), members.pop("ingest")
        numbers = NumbersRecord(**{name: _frozen(value) for name, value in timeline.pop("numbers").items()})
        return cls(
            timeline=TimelineRecord(**{name: _frozen(value) for name, value in timeline.items()}, numbers=numbers),
            ingest=None if ingest is None else IngestRecord(**ingest),
            **members,
        )


def _frozen(value: Any) -> Any:  # noqa: ANN401 - whatever JSON held
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Channel:
    """A channel with the connections that use it.

    Attributes:
        address: Its session and name.
        timeline: Its state and numbering.
        groups: Who receives it, by framing and coalescing interval in milliseconds.
        broadcaster: Who publishes to it; None while nobody does.
        ingest: What stands between the broadcaster and the channel; None before the first broadcaster. It stays when a
            broadcaster goes, with what waits in it.
        departure: How the broadcaster went, while its last audio is waiting.
        label: What people call it.
        is_listed: Whether it is shown to people: it was declared, or had a broadcaster.
        accepted: How much audio was taken from each of the latest broadcasters, in ticks, by their connections' ids.
        idle_since: Since when nobody uses it; None while somebody does.
        tally: What became of its frames; of all channels that were forgotten, when it is one of them.
        taps: Who else reads it.
        observers: Are called with True when the first subscriber comes (a listener, or a tap that is not passive), and
            with False when the last one has gone.
    """

    def __init__(
        self,
        address: ChannelAddress,
        timeline: Timeline,
        manager: AudioBufferManager,
        label: Label,
        *,
        send: Send,
        note_overflow: Callable[["Channel", int, AudioAmount], None],
        is_listed: bool,
    ) -> None:
        """Make a channel that nobody uses yet.

        Args:
            address: Its session and name.
            timeline: Its state and numbering.
            manager: Owns its listeners' queues.
            label: What people call it.
            send: Writes to its listeners' sinks.
            note_overflow: Is called with how many listeners' queues overflowed, and what they lost together.
            is_listed: Whether it is shown to people.
        """
        self.address = address
        self.timeline = timeline
        self.groups: dict[tuple[Framing, int], Group] = {}
        self.broadcaster: Broadcaster | None = None
        self.ingest: Ingest | None = None
        self.departure: Departure | None = None
        self.label = label
        self.is_listed = is_listed
        self.accepted: dict[str, int] = {}
        self.idle_since: float | None = None
        self.tally = Tally()
        self.taps: dict[Tap, None] = {}
        self.observers: list[Callable[[bool], None]] = []
        self._manager = manager
        self._send = send
        self._note_overflow = note_overflow

    @property
    def state(self) -> ChannelState:
        """Where it is in its life."""
        return self.timeline.state

    @property
    def place(self) -> Place:
        """Where its next frame goes."""
        return self.timeline.place

    @property
    def audio_format(self) -> AudioFormat | None:
        """Of its present epoch; None before the first broadcaster."""
        return self.timeline.audio_format

    @property
    def history(self) -> History:
        """What it released lately."""
        return self.timeline.history

    @property
    def pace(self) -> Pace:
        """What its broadcaster produces, or produced last."""
        return Pace.LIVE if self.ingest is None else self.ingest.pace

    @property
    def had_broadcaster(self) -> bool:
        """Whether anybody ever published to it."""
        return self.ingest is not None

    @property
    def kept_bytes(self) -> int:
        """Bytes of audio that it keeps by itself: what waits to be released, and its history."""
        return self.history.held_bytes + (0 if self.ingest is None else self.ingest.queued_bytes())

    @property
    def listener_count(self) -> int:
        """How many listeners it has."""
        return sum(map(len, self.groups.values()))

    @property
    def listeners(self) -> Iterator[Listener]:
        """All its listeners."""
        return (listener for group in self.groups.values() for listener in group)

    @property
    def has_subscribers(self) -> bool:
        """Whether its audio is wanted: by a listener, or through a tap that is not passive."""
        return bool(self.groups) or any(not tap.is_passive for tap in self.taps)

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it."""
        return not self.has_subscribers and self.broadcaster is None and self.timeline.state is ChannelState.WAITING

    @property
    def entry(self) -> messages.ChannelEntry:
        """How it stands in the list of its session."""
        label = self.label
        return messages.ChannelEntry(self.address.channel, label.name or "", label.lang, self.timeline.state)

    def adopt(self, broadcaster: Broadcaster) -> None:
        """Make a connection the broadcaster, of which nothing was taken yet."""
        self.broadcaster = broadcaster
        self.idle_since = self.departure = None
        self.accepted[broadcaster.connection_id] = 0
        if len(self.accepted) > MAX_KNOWN_CONNECTIONS:
            del self.accepted[next(iter(self.accepted))]

    def describe(self, offer: Offer, declared: Label) -> None:
        """Take what a broadcaster calls the channel; what the operator declared stands."""
        self.is_listed = True
        said = offer.label
        self.label = Label(declared.name or said.name, declared.lang or said.lang)

    def release(self, timed: Timed) -> Frame:
        """Number the next frame; `distribute` hands it on."""
        return self.timeline.release(timed.piece, timed.due)

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """The audio that was taken and waits to be released, oldest first."""
        return () if self.ingest is None else self.ingest.waiting

    def export(self, session_name: str | None) -> ChannelRecord:
        """Give all but audio and connections as plain values; a broadcaster that is there counts as one that was."""
        departure = self.departure
        return ChannelRecord(
            self.address.session,
            self.address.channel,
            self.label.name,
            self.label.lang,
            session_name,
            self.is_listed,
            self.timeline.export(),
            None if self.ingest is None else self.ingest.export(),
            dict(self.accepted),
            None if departure is None else departure.farewell.value,
            0.0 if departure is None else departure.at,
        )

    def restore(self, record: ChannelRecord, ingest: Ingest | None) -> None:
        """Go on where another one was when it was exported; to be called on a new one, before anybody uses it."""
        self.timeline.restore(record.timeline)
        self.ingest = ingest
        self.label = Label(record.name, record.lang)
        self.is_listed = record.is_listed
        self.accepted = dict(record.accepted)
        if record.farewell is not None:
            self.departure = Departure(Farewell(record.farewell), record.departed_at)

    def distribute(self, frame: Frame) -> None:
        """Hand a numbered frame to everyone: to the history, to the listeners by their next turns, to the taps.

        Args:
            frame: Begins where the frame before it ended: its `start` is `channel.place`.
        """
        self.timeline.keep(frame)
        self.tally.released_frames += 1
        for group in self.groups.values():
            overflowed, dropped = group.publish(frame, self.address.session)
            if overflowed:
                self._note_overflow(self, overflowed, dropped)
        if self.taps:
            self._put_into_taps(frame)

    def open_tap(self, name: str, max_seconds: float = TAP_SECONDS, *, is_passive: bool = False) -> Tap:
        """Read this channel from now on, beside its listeners.

        Args:
            name: Says in the log what the tap is for.
            max_seconds: How far the reader may fall behind.
            is_passive: Whether the tap neither keeps the channel nor counts as a subscriber.
        """
        had_subscribers = self.has_subscribers
        tap = Tap(
            name,
            self.timeline.place,
            self.timeline.audio_format,
            max_seconds,
            self._remove_tap,
            is_passive=is_passive,
        )
        self.taps[tap] = None
        self._tell_observers(had_subscribers)
        return tap

    def close_taps(self) -> None:
        """Put nothing more into any tap; their readers get what waits in them."""
        for tap in tuple(self.taps):
            self._remove_tap(tap)

    def _put_into_taps(self, item: Frame | Note) -> None:
        for tap in tuple(self.taps):
            if not tap.put(item):
                self._remove_tap(tap)
                self.tally.lost_taps += 1
                self.log("tap closed: its reader is too slow", logging.WARNING, tap=tap.name)

    def _remove_tap(self, tap: Tap) -> None:
        had_subscribers = self.has_subscribers
        del self.taps[tap]
        tap.finish()
        self._tell_observers(had_subscribers)

    def _tell_observers(self, had_subscribers: bool) -> None:
        """Tell the observers when the first subscriber came, or the last one left; their faults are their own."""
        has_subscribers = self.has_subscribers
        if has_subscribers == had_subscribers:
            return
        for observer in tuple(self.observers):
            try:
                observer(has_subscribers)
            except Exception:
                logger.exception("an observer of a channel failed", extra=self._names)

    def count_in(self, tally: Tally) -> None:
        """Add what became of its frames to another tally, and count what still becomes of them there."""
        tally += self.tally
        self.tally = tally
        for group in self.groups.values():
            group.count_in(tally)

    def tell(self, note: Note) -> None:
        """Have all listeners told something, each after the frames so far."""
        for group in self.groups.values():
            group.tell(note)
        if self.taps:
            self._put_into_taps(note)
        if note.close is not None:
            self.close_taps()

    @property
    def end_note(self) -> Note:
        """What is told last in a channel that ended."""
        return Note(self.timeline.place, self.state_text, close=ENDED)

    @property
    def state_text(self) -> str:
        """The message that tells the state."""
        return messages.StateChange(self.timeline.state, self.pace, self.timeline.silence).text()

    def tell_state(self, close: tuple[CloseCode, str] | None = None) -> None:
        """Have all listeners told the state; with `close`, that is the last they hear."""
        self.tell(Note(self.timeline.place, self.state_text, close=close))

    def add(self, listener: Listener, coalesce_ms: int) -> Group:
        """Take a listener in; gives its group."""
        had_subscribers = self.has_subscribers
        key = (listener.framing, coalesce_ms)
        group = self.groups.get(key)
        if group is None:
            group = Group(
                self._manager,
                self.tally,
                self.timeline.place,
                send=self._send,
                framing=listener.framing,
                coalesce_seconds=coalesce_ms / 1000,
            )
            self.groups[key] = group
        group.add(listener)
        self._tell_observers(had_subscribers)
        return group

    def remove(self, listener: Listener, group: Group) -> None:
        """Let a listener of one of its groups go."""
        group.remove(listener)
        if not group:
            self.groups = {key: kept for key, kept in self.groups.items() if kept is not group}
            self._tell_observers(had_subscribers=True)

    def log(self, event: str, level: int = logging.INFO, **fields: object) -> None:
        """Log what happened to the channel, with its names and how many listen."""
        if logger.isEnabledFor(level):
            logger.log(level, event, extra={**self._names, "listeners": self.listener_count, **fields})

    @property
    def _names(self) -> dict[str, str]:
        return {"session": self.address.session, "channel": self.address.channel}
