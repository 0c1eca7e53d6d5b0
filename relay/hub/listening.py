"""The listeners' side of the hub: joining, resuming, switching, leaving, and blocked sockets.

Invariants: A listener's account begins at the place in its greeting and has no hole. A listener that left or switched
receives nothing more from its old channel.
"""

import logging
import math
from dataclasses import dataclass, replace

from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.history import Epoch, Known
from relay.hub.channel import ENDED, Channel
from relay.hub.directory import Directory
from relay.hub.drain import Drain
from relay.hub.framing import Framing, RelayFraming
from relay.hub.group import Group
from relay.hub.listener import Listener, Note
from relay.hub.port import ListenerPort
from relay.hub.rendition import Kind, Renditions
from relay.hub.stream import Stream
from relay.limits.names import Limit
from relay.protocol import messages
from relay.protocol.requests import Delivery, Resume
from relay.protocol.wire import MAX_FRAME_SECONDS, WORD_MASK, serial_difference
from relay.settings.settings import ListenerSettings
from relay.vocabulary.audio import AudioFormat, Codec, Frame, Pace, Place, frames_within
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.clock import Clock, wire_milliseconds
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

MIN_BOUND_MS = 200
"""The smallest bound on the age of audio that a listener may request. Below it, every network hiccup loses audio."""

MAX_PACKET_MS = 100
"""The most audio that a listener may request in one message. Above it, headers are less than a tenth of the audio."""

MAX_COALESCE_MS = 200
"""The longest coalescing interval that a listener may request. It is less than one write may carry."""

AHEAD_SECONDS = 2.0
"""A relay that died may have sent this much audio to its listeners that the other relays never got. Its broadcaster
sends it again."""

_AS_THE_RELAY_WANTS = Delivery()

PRE_ROLL_SECONDS = 0.08
"""A decoder of Opus that begins inside a stream is exact after this time (RFC 7845, section 4.6)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A media time of a channel.

    Attributes:
        epoch: 16 bits.
        seconds: The media time.
    """

    epoch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a listener's account begins.

    Attributes:
        place: The first frame in its account.
        audio_format: The format in the epoch of that place; None before the first broadcaster.
        frames: The past frames that it receives.
        later: Epochs that began after that place.
        is_resumed: Whether it continues an earlier connection.
    """

    place: Place
    audio_format: AudioFormat | None
    frames: list[Frame]
    later: list[Epoch]
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class _Membership:
    """What a listener is a member of, and how it came there.

    Attributes:
        channel: Its channel.
        stream: Its stream.
        group: Its group.
        delivery: What it asked for.
        start: Where it began.
        moment: The media time at which it began; None if it began elsewhere.
    """

    channel: Channel
    stream: Stream
    group: Group
    delivery: Delivery
    start: Place
    moment: Moment | None


class Listening:
    """The listeners of all channels.

    Args:
        directory: The channels.
        drain: Woken when a listener has data to receive.
        manager: Owns the listeners' queues.
        clock: Returns seconds.
        clock_id: The id of that clock, which greetings contain.
        settings: How long a stalled listener is kept, and how frames are joined.
        renditions: What the relay can make of a channel's audio.
        lead_seconds: How long before its due time audio in pace `speech` is released.

    Attributes:
        departures: How many listeners have left.
        late_seconds: How much more audio than the longest bound may come at once, because it was late on its way from
            another node; 0 in a single process.
    """

    def __init__(
        self,
        directory: Directory,
        drain: Drain,
        manager: AudioBufferManager,
        *,
        clock: Clock,
        clock_id: str,
        settings: ListenerSettings,
        renditions: Renditions,
        lead_seconds: float,
    ) -> None:
        self._directory = directory
        self._drain = drain
        self._manager = manager
        self._clock = clock
        self._clock_id = clock_id
        self._stall_limit_seconds = settings.stall_limit_seconds
        self._coalesce_ms = settings.coalesce_ms
        self._renditions = renditions
        self._lead_seconds = lead_seconds
        self.departures = 0
        self.late_seconds = 0.0
        self._memberships: dict[Listener, _Membership] = {}
        self._blocked: dict[Listener, None] = {}

    def __len__(self) -> int:
        return len(self._memberships)

    def join(
        self,
        address: ChannelAddress,
        connection_id: str,
        port: ListenerPort,
        framing: Framing,
        delivery: Delivery = _AS_THE_RELAY_WANTS,
        *,
        moment: Moment | None = None,
    ) -> Listener:
        """Add a connection as a listener of a channel, and greet it.

        It begins at `moment`, or where `delivery` says.

        Raises:
            BadRequestError: The relay can serve none of the codecs that the listener wants.
        """
        bound_seconds, coalesce_ms = self._settle(delivery)
        channel, stream, start = self._begin(address, delivery, bound_seconds, moment)
        framing = _fit_framing(framing, stream.codec, delivery, bound_seconds)
        buffer = self._manager.open_buffer(
            connection_id,
            session_id=address.session,
            audio_format=start.audio_format,
            max_buffer_seconds=self._queue_seconds(bound_seconds, channel.pace),
            is_bounded_in_chunks=True,
        )
        listener = Listener(connection_id, port, framing, buffer=buffer, place=start.place, bound_seconds=bound_seconds)
        if framing.has_texts:
            hello = messages.Hello(
                connection_id,
                stream.state,
                start.audio_format,
                start.place.epoch,
                start.place.seq & WORD_MASK,
                channel=address.channel,
                channels=self._directory.listed(address.session),
                pace=channel.pace,
                clock_ms=wire_milliseconds(self._clock()),
                clock_id=self._clock_id,
                buffer_ms=round(bound_seconds * 1000),
                coalesce_ms=coalesce_ms,
                packet_ms=_packet_ms(framing),
                resumed=start.is_resumed,
                silence=stream.silence,
                session=address.session,
                session_name=self._directory.session_name(address.session),
            )
            port.send_text(hello.text())
        self._give_past(listener, start, channel, stream)
        if stream.state is ChannelState.ENDED:
            listener.add_note(Note(stream.place, channel.state_text, close=ENDED))
        group = channel.add(stream, listener, coalesce_ms)
        self._memberships[listener] = _Membership(channel, stream, group, delivery, start.place, moment)
        if listener.frames or listener.notes or start.place.position != stream.place.position:
            self._drain.wake_listener(listener, group)
        channel.log("listener joined", logging.DEBUG, connection=connection_id)
        return listener

    def awaits(self, address: ChannelAddress, resume: Resume) -> bool:
        """Whether a listener names a frame that a channel will have within `AHEAD_SECONDS` if its audio goes on."""
        channel = self._directory.find(address)
        if channel is None or channel.audio_format is None:
            return False
        stream = channel.streams.get(resume.codec)
        if stream is not None:
            place = stream.place
        elif (rendition := self._renditions.find(channel.audio_format, resume.codec)) is not None:
            place = rendition.place(channel.place)
        else:
            return False
        ahead = serial_difference((resume.after + 1) & WORD_MASK, place.seq & WORD_MASK)
        return resume.epoch == place.epoch and 0 < ahead <= frames_within(AHEAD_SECONDS)

    def switch(
        self, listener: Listener, channel: str | None = None, codecs: tuple[Codec, ...] | None = None
    ) -> Listener:
        """Move a listener to another channel of its session, to another codec, or both, and greet it again.

        In another channel, it begins at the live position. In the same one, it begins with the frame that holds the
        media time that it has reached, or with one that a decoder of Opus needs to be exact by then.

        Args:
            listener: The listener.
            channel: The channel; None for the present one.
            codecs: The codecs that it plays now, best first; None for the same as before.

        Returns:
            The new listener; the old one receives nothing more. If the listener left meanwhile, the old one.

        Raises:
            BadRequestError: There is no such channel, or none of the codecs can be served; nothing changed.
        """
        membership = self._memberships.get(listener)
        if membership is None:
            return listener
        before = membership.channel
        address = before.address if channel is None else ChannelAddress(before.address.session, channel)
        target = self._directory.find(address)
        if not self._directory.knows(address):
            raise BadRequestError(f"This session has no channel {channel!a}; the present channel continues.")
        wanted = membership.delivery
        delivery = replace(wanted, burst_ms=0, resume=None, codecs=wanted.codecs if codecs is None else codecs)
        codec = self._choose(target, delivery)
        blocked_since, report = listener.blocked_since, listener.report
        self.leave(listener)
        moment = None
        if target is before and membership.stream.audio_format is not None:
            pre_roll_seconds = PRE_ROLL_SECONDS if codec is Codec.OPUS else 0.0
            moment = Moment(listener.place.epoch, listener.media_seconds - pre_roll_seconds)
            if membership.moment is not None and listener.place.position == membership.start.position:
                # It got nothing since it changed its codec before. Its frame began earlier than its media time.
                moment = membership.moment
        moved = self.join(address, listener.connection_id, listener.port, listener.framing, delivery, moment=moment)
        moved.report = report
        if blocked_since is not None:
            self.block(moved)
            moved.blocked_since = blocked_since
        return moved

    def change_delivery(self, listener: Listener, wanted: messages.DeliveryChange) -> messages.DeliveryChange:
        """Join a listener's frames in another way from now on, and return what is granted. No frame is lost."""
        membership = self._memberships.get(listener)
        if membership is None:
            return wanted
        stream, delivery = membership.stream, membership.delivery
        if wanted.coalesce_ms is not None:
            delivery = replace(delivery, coalesce_ms=wanted.coalesce_ms)
        if wanted.packet_ms is not None:
            delivery = replace(delivery, packet_ms=wanted.packet_ms)
        bound_seconds, coalesce_ms = self._settle(delivery)
        stream.remove(listener, membership.group)
        framing = listener.framing = _fit_framing(listener.framing, stream.codec, delivery, bound_seconds)
        group = stream.add(listener, coalesce_ms)
        self._memberships[listener] = replace(membership, group=group, delivery=delivery)
        self._drain.wake_listener(listener, group)
        return messages.DeliveryChange(coalesce_ms, _packet_ms(framing))

    def leave(self, listener: Listener) -> None:
        """Remove a listener. A second call changes nothing."""
        membership = self._memberships.pop(listener, None)
        if membership is None:
            return
        self.departures += 1
        channel = membership.channel
        channel.remove(membership.stream, listener, membership.group)
        listener.blocked_since = math.inf
        self._blocked.pop(listener, None)
        counters = listener.buffer.counters
        self._manager.clear_buffer(listener.connection_id)
        channel.log(
            "listener left",
            logging.DEBUG,
            connection=listener.connection_id,
            delivered_seconds=round(counters.taken.seconds, 2),
            dropped_seconds=round(counters.dropped.seconds, 2),
        )

    def block(self, listener: Listener) -> None:
        """Record that a listener's socket is full. If the listener left, do nothing."""
        membership = self._memberships.get(listener)
        if membership is None:
            return
        if listener.blocked_since is None:
            listener.blocked_since = self._clock()
        self._blocked[listener] = None
        membership.group.let_lag(listener)

    def unblock(self, listener: Listener) -> None:
        """Record that a listener's socket takes data again. If the listener left, do nothing."""
        membership = self._memberships.get(listener)
        if membership is None:
            return
        listener.blocked_since = None
        self._blocked.pop(listener, None)
        self._drain.wake_listener(listener, membership.group)

    def fit_queues(self, channel: Channel) -> None:
        """Fit the queues of a channel's listeners to its pace: early audio waits there beside late audio."""
        for listener in channel.listeners:
            seconds = self._queue_seconds(listener.bound_seconds, channel.pace)
            dropped = listener.buffer.rebound(seconds, listener.buffer.audio_format)
            if dropped is not None:
                channel.tally.dropped_frames += dropped.chunks

    def cut_off_stalled(self) -> None:
        """Disconnect listeners whose sockets took no data for the stall limit."""
        limit, now = self._stall_limit_seconds, self._clock()
        if limit is None:
            return
        for listener in list(self._blocked):
            if listener.blocked_since is not None and now - listener.blocked_since >= limit:
                del self._blocked[listener]
                listener.port.abort(f"The client read nothing for {limit:g} s.", Limit.SILENCE)

    def _begin(
        self, address: ChannelAddress, delivery: Delivery, bound_seconds: float, moment: Moment | None
    ) -> tuple[Channel, Stream, _Start]:
        """Find the channel and the stream to join, and the place. Start the stream if nobody has it yet.

        A listener that was away when the channel ended gets the ended one.
        """
        ended = self._directory.ended(address)
        if ended is not None and delivery.resume is not None:
            stream = ended.streams.open(self._choose(ended, delivery))
            if _find_resumed(stream, delivery.resume) is not None:
                return ended, stream, self._start(ended, stream, delivery, bound_seconds, None)
        codec = self._choose(self._directory.find(address), delivery)
        channel = self._directory.open(address)
        channel.idle_since = None
        stream = channel.streams.open(codec)
        return channel, stream, self._start(channel, stream, delivery, bound_seconds, moment)

    def _choose(self, channel: Channel | None, delivery: Delivery) -> Kind:
        """Return the container, or the first of the wanted codecs that can be served.

        Assume that a broadcaster yet to come sends PCM.

        Raises:
            BadRequestError: None of them can be served.
        """
        if delivery.container is not None:
            return delivery.container
        source = None if channel is None else channel.audio_format
        serves = [codec for codec in Codec if self._renditions.find(source or AudioFormat(), codec) is not None]
        wanted = delivery.codecs or (Codec.PCM_S16LE,)
        codec = next((codec for codec in wanted if codec in serves), None)
        if codec is None:
            raise BadRequestError(f"The relay serves this channel as {', '.join(serves)}, not as {', '.join(wanted)}.")
        return codec

    def _settle(self, delivery: Delivery) -> tuple[float, int]:
        """Return a listener's bound in seconds and its coalescing interval in milliseconds."""
        most_ms = round(self._manager.max_buffer_seconds * 1000)
        bound_ms = most_ms if delivery.buffer_ms is None else min(max(delivery.buffer_ms, MIN_BOUND_MS), most_ms)
        coalesce_ms = self._coalesce_ms if delivery.coalesce_ms is None else delivery.coalesce_ms
        # Audio that waits as long as the bound is too old when it is written.
        return bound_ms / 1000, min(coalesce_ms, MAX_COALESCE_MS, bound_ms // 2)

    def _queue_seconds(self, bound_seconds: float, pace: Pace) -> float:
        """Return the capacity of a listener's queue: the bound plus one frame, up to the maximum, and early audio."""
        # A frame that arrives while a smaller bound is full must not push out audio that is still in time.
        most = self._manager.max_buffer_seconds
        late = most + self.late_seconds if bound_seconds >= most else min(bound_seconds + MAX_FRAME_SECONDS, most)
        return late + (self._lead_seconds if pace is Pace.SPEECH else 0.0)

    def _start(
        self, channel: Channel, stream: Stream, delivery: Delivery, bound_seconds: float, moment: Moment | None
    ) -> _Start:
        """Find where a listener begins: at a moment, after the frame that it names, a little in the past, or now."""
        resumed = None if delivery.resume is None else _find_resumed(stream, delivery.resume)
        if isinstance(stream.codec, Container):
            return self._start_programme(channel, stream, stream.codec, delivery, bound_seconds)
        known = resumed
        if moment is not None:
            known = stream.history.find_moment(moment.epoch, moment.seconds, stream.place)
        elif known is None and delivery.burst_ms:
            oldest = self._clock() - min(delivery.burst_ms / 1000, bound_seconds)
            known = channel.streams.find_due(stream, oldest)
        if channel.streams.get(stream.codec) is not stream:
            channel.streams.begin(stream, channel.state_note, known)
        if known is None:
            return _Start(stream.place, stream.audio_format, [], [])
        frames = stream.history.since(known.place.position)
        later = stream.history.epochs_after(known.epoch)
        return _Start(known.place, known.epoch.audio_format, frames, later, is_resumed=resumed is not None)

    def _start_programme(
        self, channel: Channel, stream: Stream, container: Container, delivery: Delivery, bound_seconds: float
    ) -> _Start:
        """Find where a listener begins in a programme. Begin the programme if nobody listens to it yet."""
        oldest = self._clock() - min(delivery.burst_ms / 1000, bound_seconds) if delivery.burst_ms else math.inf
        if channel.streams.get(container) is not stream:
            channel.streams.begin_programme(stream, container, oldest)
            return _Start(stream.place, stream.audio_format, [], [])
        frames = stream.history.since_due(oldest)
        return _Start(frames[0].start if frames else stream.place, stream.audio_format, frames, [])

    def _give_past(self, listener: Listener, start: _Start, channel: Channel, stream: Stream) -> None:
        """Queue past frames within a listener's bound. A gap message reports the others."""
        oldest = self._clock() - listener.bound_seconds
        frames = [frame for frame in start.frames if frame.timestamp >= oldest]
        later = list(start.later)
        for frame in frames:
            while later and later[0].start.position <= frame.start.position:
                self._add_epoch(listener, later.pop(0))
            _, dropped = self._manager.fan_out(frame, (listener.buffer,), channel.address.session)
            channel.tally.dropped_frames += dropped.chunks
        for epoch in later:
            self._add_epoch(listener, epoch)
        listener.note_missed(frames[0].start if frames else stream.place)

    @staticmethod
    def _add_epoch(listener: Listener, epoch: Epoch) -> None:
        text = messages.FormatChange(epoch.audio_format, epoch.start.epoch).text()
        listener.add_note(Note(epoch.before, text, epoch.audio_format, epoch.start))


def _find_resumed(stream: Stream, resume: Resume) -> Known | None:
    """Return the place after the frame that a listener names; None if the stream does not know it."""
    if resume.codec is not stream.codec:
        return None
    return stream.history.find(resume.epoch, (resume.after + 1) & WORD_MASK, stream.place)


def _fit_framing(framing: Framing, codec: Kind, delivery: Delivery, bound_seconds: float) -> Framing:
    """Return a framing with as much audio in a message as a listener wants and may have."""
    if not isinstance(framing, RelayFraming):
        return framing
    is_packed = codec is Codec.OPUS
    return RelayFraming(min(delivery.packet_ms, MAX_PACKET_MS, round(bound_seconds * 500)) if is_packed else 0)


def _packet_ms(framing: Framing) -> int:
    return framing.packet_ms if isinstance(framing, RelayFraming) else 0
