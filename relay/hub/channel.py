"""A channel: its broadcaster, the numbering of its audio, and the streams that its listeners receive.

Invariants: From joining to leaving, a listener is in exactly one stream of one channel. Taps and observers never block
a frame.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from relay.audio.amounts import AudioAmount
from relay.audio.arrival_rate import ArrivalRate
from relay.audio.ingest import Ingest, Timed
from relay.audio.timeline import Farewell, Timeline
from relay.hub.channel_record import ChannelRecord
from relay.hub.group import Group
from relay.hub.listener import Listener, Note
from relay.hub.port import Port
from relay.hub.rendition import Kind
from relay.hub.stream import Stream
from relay.hub.streams import Streams
from relay.hub.tap import TAP_SECONDS, Reader, Tap
from relay.hub.transcoding import Transcoding
from relay.metrics.vitals import Tally
from relay.protocol import messages
from relay.protocol.requests import Offer
from relay.vocabulary.audio import AudioFormat, Frame, Pace, Place
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.labels import Label
from relay.vocabulary.names import ChannelAddress

ENDED: Final = (CloseCode.SESSION_ENDED, CloseCode.SESSION_ENDED.reason)
"""Close code and reason for the listeners of a channel that ended."""

DISCONNECTED: Final = (CloseCode.DISCONNECTED, CloseCode.DISCONNECTED.reason)
"""Close code and reason for a client that the operator disconnects."""

STATS_SECONDS = 5.0
"""How often a broadcaster receives unchanged figures. Changed figures are sent at the next housekeeping."""

MAX_KNOWN_CONNECTIONS = 16
"""For how many past broadcaster connections a channel remembers the accepted audio. A broadcaster rarely needs more
attempts to reconnect."""

logger = logging.getLogger(__name__)


class Broadcaster:
    """A connection that publishes to a channel, or did until another took over.

    Attributes:
        connection_id: Its name in logs.
        channel: Its channel.
        port: Its socket.
        start: The place of its first frame, as its greeting names it.
        accepted_before: Ticks accepted from the connection that it resumes; None when unknown.
        is_held: Whether it was asked to stop sending.
        stats_told: The last `stats` message sent to it, and when; None before the first.
        arrival: Measures how fast its audio arrives; None in pace `speech`, where any speed is right.
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
        """The address of its channel."""
        return self.channel.address

    @property
    def is_present(self) -> bool:
        """Whether it is still the broadcaster of its channel."""
        return self.channel.broadcaster is self

    @property
    def arrival_rate(self) -> float | None:
        """Speed of the arriving audio relative to real time, rounded as on the wire; None while it is normal."""
        return None if self.arrival is None or self.arrival.ratio is None else round(self.arrival.ratio, 2)

    def tell_stats(self, now: float) -> None:
        """Send its figures if they changed or are `STATS_SECONDS` old. `now` is in seconds of the relay's clock."""
        channel, ingest = self.channel, self.channel.ingest
        if ingest is None:
            return
        text = messages.Audience(
            listeners=channel.listener_count + channel.listeners_elsewhere,
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


class HeldLog(Protocol):
    """Keeps what a broadcaster of pace `speech` has sent, until it is released."""

    def keep(self, pieces: Sequence[Timed]) -> None:
        """Keep accepted audio."""
        ...

    def discard(self) -> None:
        """Forget everything: nobody will hear it."""
        ...

    def note_departure(self) -> None:
        """Keep how the broadcaster left, too, because what waits is its last audio."""
        ...


@dataclass(frozen=True, slots=True)
class Departure:
    """A broadcaster's departure while its last audio still waits for its release.

    Attributes:
        farewell: How the broadcaster left.
        at: When it left, in seconds of the relay's clock.
    """

    farewell: Farewell
    at: float


class Channel:
    """A channel and the connections that use it.

    Args:
        make_stream: Creates a stream of this channel.
        transcoding: Makes the streams whose codec is not the source's.

    Attributes:
        address: Its session and name.
        timeline: The state and the numbering of what its broadcaster sends.
        streams: What its listeners receive.
        broadcaster: The connection that publishes to it; None while there is none.
        ingest: Holds audio between the broadcaster and the channel; None before the first broadcaster. It stays, with
            its waiting audio, when a broadcaster leaves.
        departure: How the broadcaster left, while its last audio waits for its release.
        label: The name that people see.
        is_listed: Whether the list of channels shows it: it was declared, or had a broadcaster.
        accepted: Ticks accepted from each of the latest broadcasters, by connection id.
        idle_since: When its last user left; None while it has users.
        tally: Counts of its frames. After it was forgotten, the common counts of all forgotten channels.
        is_home: Whether its audio is numbered here. Otherwise another node of the cluster sends its frames. That node
            also decides when a grace period is over and when the channel is forgotten.
        readers: Its other readers, such as taps.
        listeners_elsewhere: How many listeners it has on other nodes of a cluster, as its home knows.
        held_log: Keeps the audio that waits for its release in the cluster's memory; None without a cluster.
        observers: Called with True when the first subscriber (a listener, or a tap that is not passive) arrives, and
            with False when the last one left.
    """

    def __init__(
        self,
        address: ChannelAddress,
        timeline: Timeline,
        label: Label,
        *,
        make_stream: Callable[[Kind, Place, Tally], Stream],
        transcoding: Transcoding,
        is_listed: bool,
    ) -> None:
        self.address = address
        self.timeline = timeline
        self.broadcaster: Broadcaster | None = None
        self.ingest: Ingest | None = None
        self.departure: Departure | None = None
        self.label = label
        self.is_listed = is_listed
        self.accepted: dict[str, int] = {}
        self.idle_since: float | None = None
        self.tally = Tally()
        self.streams = Streams(timeline, self.tally, make_stream, transcoding)
        self.is_home = True
        self.listeners_elsewhere = 0
        self.readers: dict[Reader, None] = {}
        self.held_log: HeldLog | None = None
        self.observers: list[Callable[[bool], None]] = []

    @property
    def state(self) -> ChannelState:
        """Its state."""
        return self.timeline.state

    @property
    def place(self) -> Place:
        """The place of the next frame."""
        return self.timeline.place

    @property
    def audio_format(self) -> AudioFormat | None:
        """The format of the current epoch; None before the first broadcaster."""
        return self.timeline.audio_format

    @property
    def pace(self) -> Pace:
        """The pace of its current or last broadcaster."""
        return Pace.LIVE if self.ingest is None else self.ingest.pace

    @property
    def had_broadcaster(self) -> bool:
        """Whether it ever had a broadcaster."""
        return self.ingest is not None

    @property
    def kept_bytes(self) -> int:
        """Bytes of audio that it holds itself: unreleased audio, its history, and that of streams with other frames."""
        return (
            self.timeline.history.held_bytes
            + self.streams.made_bytes
            + (0 if self.ingest is None else self.ingest.queued_bytes())
        )

    @property
    def listener_count(self) -> int:
        """The number of its listeners."""
        return self.streams.listener_count

    @property
    def listeners(self) -> Iterator[Listener]:
        """All its listeners."""
        return (listener for group in self.groups for listener in group)

    @property
    def groups(self) -> Iterator[Group]:
        """The groups of its listeners, in all streams."""
        return self.streams.groups

    @property
    def has_subscribers(self) -> bool:
        """Whether a listener, or a tap that is not passive, wants its audio."""
        return any(stream.groups for stream in self.streams.values()) or any(
            not each.is_passive for each in self.readers
        )

    @property
    def is_idle(self) -> bool:
        """Whether it is waiting and has neither a broadcaster nor subscribers, here or at its home."""
        is_waiting = self.is_home and self.timeline.state is ChannelState.WAITING
        return is_waiting and self.broadcaster is None and not self.has_subscribers

    @property
    def entry(self) -> messages.ChannelEntry:
        """Its entry in the session's list of channels."""
        label = self.label
        return messages.ChannelEntry(self.address.channel, label.name or "", label.lang, self.timeline.state)

    def adopt(self, broadcaster: Broadcaster) -> None:
        """Make a connection the broadcaster, with no audio accepted yet."""
        self.broadcaster = broadcaster
        self.idle_since = self.departure = None
        self.accepted[broadcaster.connection_id] = 0
        if len(self.accepted) > MAX_KNOWN_CONNECTIONS:
            del self.accepted[next(iter(self.accepted))]

    def describe(self, offer: Offer, declared: Label) -> None:
        """Apply the label that a broadcaster offers. The operator's declaration takes precedence."""
        self.is_listed = True
        said = offer.label
        self.label = Label(declared.name or said.name, declared.lang or said.lang)

    def go_live(self, audio_format: AudioFormat) -> None:
        """Record that a broadcaster that sends `audio_format` arrived or took over. Tell listeners if that is new."""
        before = self.place
        if self.timeline.go_live(audio_format):
            self._tell_epoch(before, audio_format)

    def renumber(self) -> None:
        """Begin another epoch in the same format, because another process may have used the next numbers."""
        before, audio_format = self.place, self.audio_format
        if audio_format is not None:
            self.timeline.begin_epoch(audio_format)
            self._tell_epoch(before, audio_format)

    def _tell_epoch(self, before: Place, audio_format: AudioFormat) -> None:
        text = messages.FormatChange(audio_format, self.place.epoch).text()
        self.tell(Note(before, text, audio_format, self.place))

    def release(self, timed: Timed) -> Frame:
        """Number the next frame. `distribute` hands it on."""
        return self.timeline.release(timed.piece, timed.due)

    @property
    def waiting(self) -> tuple[Timed, ...]:
        """The accepted audio that waits for its release, oldest first."""
        return () if self.ingest is None else self.ingest.waiting

    def export(self, session_name: str | None) -> ChannelRecord:
        """Return its state as plain values, without audio and connections."""
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

    def restore(self, record: ChannelRecord, past: Sequence[Frame] = ()) -> None:
        """Continue an exported channel. Call it on a new channel before that is used.

        `past` are the latest frames of its present epoch, up to its place.
        """
        self.timeline.restore(record.timeline)
        self.timeline.load(past)
        if self.audio_format is not None:
            stream = self.streams.open(self.audio_format.codec)
            for frame in past:
                stream.history.add(frame)
            stream.state = self.state
            self.streams.begin(stream, self.state_note)
        self.describe_as(record)

    def describe_as(self, record: ChannelRecord) -> bool:
        """Take over what a record says of the channel for the list. Return whether that is a change."""
        before = self.entry, self.is_listed
        self.label = Label(record.name, record.lang)
        self.is_listed = record.is_listed
        return (self.entry, self.is_listed) != before

    def distribute(self, frame: Frame) -> None:
        """Hand a numbered frame, which starts at `place`, to the history, the streams and the taps."""
        self.timeline.keep(frame)
        if self.is_home:  # another node counts its own frames
            self.tally.released_frames += 1
        for stream in self.streams.values():
            stream.put(frame)
        if self.readers:
            self._put_into_readers(frame)

    def skip(self, place: Place) -> None:
        """Go on at a later place of the same epoch. The frames up to it are lost; a gap tells each listener."""
        self.timeline.history.know_hole(self.timeline.place, place)
        self.timeline.place = place
        for stream in self.streams.values():
            if stream.feed is None:
                stream.leave_hole(place)

    def make_room(self, seconds: float) -> None:
        """Let listeners' queues and feeds hold so much more audio, because it is released before its time."""
        for listener in self.listeners:
            buffer = listener.buffer
            buffer.rebound(buffer.max_buffer_seconds + seconds, buffer.audio_format)
        for stream in self.streams.values():
            if stream.feed is not None:
                stream.feed.make_room(seconds)

    def clear_waiting(self, now: float) -> AudioAmount:
        """Discard the audio that waits for its release, and return its amount."""
        if self.held_log is not None:
            self.held_log.discard()
        return AudioAmount() if self.ingest is None else self.ingest.clear(now)

    def drop_history(self) -> None:
        """Drop the recent audio. Its numbers stay known."""
        self.timeline.history.clear()
        for stream in self.streams.values():
            stream.drop_history()

    def open_tap(self, name: str, max_seconds: float = TAP_SECONDS, *, is_passive: bool = False) -> Tap:
        """Open a tap that reads this channel from now on, beside its listeners.

        Args:
            name: The tap's purpose, for the log.
            max_seconds: How far the reader may fall behind.
            is_passive: Whether the tap neither keeps the channel nor counts as a subscriber.
        """
        had_subscribers = self.has_subscribers
        tap = Tap(
            name,
            self.timeline.place,
            self.timeline.audio_format,
            max_seconds,
            self.dismiss,
            is_passive=is_passive,
        )
        self.readers[tap] = None
        self._tell_observers(had_subscribers)
        return tap

    def dismiss_readers(self) -> None:
        """Hand nothing more to any reader. What waits in a tap can still be read."""
        for reader in tuple(self.readers):
            self.dismiss(reader)

    def _put_into_readers(self, item: Frame | Note) -> None:
        for reader in tuple(self.readers):
            if not reader.put(item):
                self.dismiss(reader)
                self.tally.lost_taps += 1
                self.log("a tap was closed because its reader was too slow", logging.WARNING, tap=reader.name)

    def dismiss(self, reader: Reader) -> None:
        """Hand nothing more to a reader."""
        had_subscribers = self.has_subscribers
        del self.readers[reader]
        reader.finish()
        self._tell_observers(had_subscribers)

    def _tell_observers(self, had_subscribers: bool) -> None:
        """Call the observers when the first subscriber arrived or the last one left. Log their exceptions."""
        has_subscribers = self.has_subscribers
        if has_subscribers == had_subscribers:
            return
        for observer in tuple(self.observers):
            try:
                observer(has_subscribers)
            except Exception:
                logger.exception("an observer of a channel failed", extra=self._names)

    def count_in(self, tally: Tally) -> None:
        """Add the counts of its frames to another tally, and use that one from now on."""
        tally += self.tally
        self.tally = tally
        self.streams.count_in(tally)

    def tell(self, note: Note) -> None:
        """Send a note to all listeners and taps, after the frames so far."""
        if note.audio_format is not None:
            self.streams.change_codec(note.audio_format.codec)
        for stream in self.streams.values():
            stream.put(note)
        if note.audio_format is not None and note.audio_format.codec not in self.streams:
            self.streams.begin(self.streams.open(note.audio_format.codec), self.state_note)
        if self.readers:
            self._put_into_readers(note)
        if note.close is not None:
            self.dismiss_readers()

    @property
    def state_text(self) -> str:
        """The message that describes the state."""
        return messages.StateChange(self.timeline.state, self.pace, self.timeline.silence).text()

    def tell_state(self, close: tuple[CloseCode, str] | None = None) -> None:
        """Send the state to all listeners. With `close`, their connections end after it."""
        self.tell(self._state_note(close))

    @property
    def state_note(self) -> Note:
        """The note that describes the present state. If the channel ended, connections end after it."""
        return self._state_note(ENDED if self.state is ChannelState.ENDED else None)

    def _state_note(self, close: tuple[CloseCode, str] | None = None) -> Note:
        timeline = self.timeline
        return Note(
            timeline.place,
            self.state_text,
            state=timeline.state,
            silence=timeline.silence,
            close=close,
            pace=self.pace,
        )

    def add(self, stream: Stream, listener: Listener, coalesce_ms: int) -> Group:
        """Add a listener to a stream, and return its group."""
        had_subscribers = self.has_subscribers
        group = stream.add(listener, coalesce_ms)
        self._tell_observers(had_subscribers)
        return group

    def remove(self, stream: Stream, listener: Listener, group: Group) -> None:
        """Remove a listener from its stream."""
        had_subscribers = self.has_subscribers
        stream.remove(listener, group)
        self._tell_observers(had_subscribers)

    def log(self, event: str, level: int = logging.INFO, **fields: object) -> None:
        """Log an event of the channel, with its names and the number of listeners.

        Its broadcaster may cause it as often as it likes, so the log has only some of many. At `debug` it has all.
        """
        if logger.isEnabledFor(level):
            is_ordinary = level > logging.DEBUG
            told = {**self._names, "listeners": self.listener_count, "is_ordinary": is_ordinary, **fields}
            logger.log(level, event, extra=told)

    @property
    def _names(self) -> dict[str, str]:
        return {"session": self.address.session, "channel": self.address.channel}
