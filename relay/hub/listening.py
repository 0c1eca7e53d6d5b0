"""The listeners' side of the hub: joining, resuming, switching, leaving, and sockets that are full.

Invariants: a listener's account begins at the place that its greeting names and has no hole; a listener that left, or
moved to another channel, gets nothing more of the old one.
"""

import logging
import math
from dataclasses import dataclass

from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.history import Epoch
from relay.hub.batch import Framing
from relay.hub.channel import Channel
from relay.hub.directory import Directory
from relay.hub.drain import Drain
from relay.hub.group import Group
from relay.hub.listener import Listener, Note
from relay.hub.port import ListenerPort
from relay.limits.names import Limit
from relay.protocol import messages
from relay.protocol.requests import Delivery, Resume
from relay.protocol.wire import MAX_FRAME_SECONDS, WORD_MASK
from relay.settings.settings import ListenerSettings
from relay.vocabulary.audio import AudioFormat, Frame, Pace, Place
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.clock import Clock, wire_milliseconds
from relay.vocabulary.errors import BadRequestError
from relay.vocabulary.names import ChannelAddress

MIN_BOUND_MS = 200
"""The least bound on the age of audio that a listener may ask for; below it every hiccup of a network is a loss."""

MAX_COALESCE_MS = 200
"""The most that a listener may have its frames wait for each other; less than one write may carry."""

_AS_THE_RELAY_WANTS = Delivery()


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a listener's account begins.

    Attributes:
        place: The first frame that it accounts for.
        audio_format: Of the epoch of that place; None while no broadcaster has said.
        frames: What it gets of the past.
        later: Epochs that began since.
        is_resumed: Whether it goes on where an earlier connection ended.
    """

    place: Place
    audio_format: AudioFormat | None
    frames: list[Frame]
    later: list[Epoch]
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class _Membership:
    """Where a listener is, and how it wants its audio."""

    channel: Channel
    group: Group
    delivery: Delivery


class Listening:
    """The listeners of all channels.

    Attributes:
        departures: How many have left so far.
    """

    def __init__(
        self,
        directory: Directory,
        drain: Drain,
        manager: AudioBufferManager,
        *,
        clock: Clock,
        settings: ListenerSettings,
        lead_seconds: float,
    ) -> None:
        """Make it.

        Args:
            directory: The channels.
            drain: Is woken when a listener has something to get.
            manager: Owns the listeners' queues.
            clock: Gives seconds.
            settings: How long a stalled listener is kept, and how frames are joined.
            lead_seconds: How long before it is due audio of pace speech is released.
        """
        self._directory = directory
        self._drain = drain
        self._manager = manager
        self._clock = clock
        self._stall_limit_seconds = settings.stall_limit_seconds
        self._coalesce_ms = settings.coalesce_ms
        self._lead_seconds = lead_seconds
        self.departures = 0
        self._memberships: dict[Listener, _Membership] = {}
        self._blocked: dict[Listener, None] = {}

    def __len__(self) -> int:
        """Give how many listeners there are."""
        return len(self._memberships)

    def join(
        self,
        address: ChannelAddress,
        connection_id: str,
        port: ListenerPort,
        framing: Framing,
        delivery: Delivery = _AS_THE_RELAY_WANTS,
    ) -> Listener:
        """Make a connection a listener of a channel and greet it; where it begins is as `delivery` says."""
        channel = self._find(address, delivery.resume)
        bound_seconds, coalesce_ms = self._settle(delivery)
        start = self._start(channel, delivery, bound_seconds)
        buffer = self._manager.open_buffer(
            connection_id,
            session_id=address.session,
            audio_format=start.audio_format,
            max_buffer_seconds=self._queue_seconds(bound_seconds, channel.pace),
            is_bounded_in_chunks=True,
        )
        listener = Listener(connection_id, port, framing, buffer=buffer, place=start.place, bound_seconds=bound_seconds)
        if framing is Framing.RELAY_V1:
            hello = messages.Hello(
                connection_id,
                channel.state,
                start.audio_format,
                start.place.epoch,
                start.place.seq & WORD_MASK,
                channel=address.channel,
                channels=self._directory.listed(address.session),
                pace=channel.pace,
                clock_ms=wire_milliseconds(self._clock()),
                buffer_ms=round(bound_seconds * 1000),
                coalesce_ms=coalesce_ms,
                resumed=start.is_resumed,
                silence=channel.timeline.silence,
                session=address.session,
                session_name=self._directory.session_name(address.session),
            )
            port.send_text(hello.text())
        self._give_past(listener, start, channel)
        if channel.state is ChannelState.ENDED:
            listener.add_note(channel.end_note)
        group = channel.add(listener, coalesce_ms)
        self._memberships[listener] = _Membership(channel, group, delivery)
        if listener.frames or listener.notes or start.place.position != channel.place.position:
            self._drain.wake_listener(listener, group)
        channel.log("listener joined", logging.DEBUG, connection=connection_id)
        return listener

    def switch(self, listener: Listener, channel: str) -> Listener:
        """Move a listener to another channel of its session, live; it is greeted anew.

        Returns:
            Its new self; the old one gets nothing more. The same one when it left meanwhile.

        Raises:
            BadRequestError: There is no such channel; nothing changed.
        """
        membership = self._memberships.get(listener)
        if membership is None:
            return listener
        address = ChannelAddress(membership.channel.address.session, channel)
        if not self._directory.knows(address):
            raise BadRequestError(f"There is no channel {channel!a} in this session; it goes on with the present one.")
        blocked_since, report = listener.blocked_since, listener.report
        self.leave(listener)
        wanted = membership.delivery
        delivery = Delivery(buffer_ms=wanted.buffer_ms, coalesce_ms=wanted.coalesce_ms)
        moved = self.join(address, listener.connection_id, listener.port, listener.framing, delivery)
        moved.report = report
        if blocked_since is not None:
            self.block(moved)
            moved.blocked_since = blocked_since
        return moved

    def leave(self, listener: Listener) -> None:
        """Forget a listener; done twice, it changes nothing."""
        membership = self._memberships.pop(listener, None)
        if membership is None:
            return
        self.departures += 1
        channel = membership.channel
        channel.remove(listener, membership.group)
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
        """Note that a listener's socket takes no more data for now; nothing when it left."""
        membership = self._memberships.get(listener)
        if membership is None:
            return
        if listener.blocked_since is None:
            listener.blocked_since = self._clock()
        self._blocked[listener] = None
        membership.group.let_lag(listener)

    def unblock(self, listener: Listener) -> None:
        """Note that a listener's socket takes data again; nothing when it left."""
        membership = self._memberships.get(listener)
        if membership is None:
            return
        listener.blocked_since = None
        self._blocked.pop(listener, None)
        self._drain.wake_listener(listener, membership.group)

    def fit_queues(self, channel: Channel) -> None:
        """Fit the bounds of the queues to the pace of a channel: what is early may wait beside what is late."""
        for listener in channel.listeners:
            seconds = self._queue_seconds(listener.bound_seconds, channel.pace)
            dropped = listener.buffer.rebound(seconds, listener.buffer.audio_format)
            if dropped is not None:
                channel.tally.dropped_frames += dropped.chunks

    def cut_off_stalled(self) -> None:
        """Abort the connections of listeners that have not been writable for the stall limit."""
        limit, now = self._stall_limit_seconds, self._clock()
        if limit is None:
            return
        for listener in list(self._blocked):
            if listener.blocked_since is not None and now - listener.blocked_since >= limit:
                del self._blocked[listener]
                listener.port.abort(f"Its socket took nothing for {limit:g} s.", Limit.SILENCE)

    def _find(self, address: ChannelAddress, resume: Resume | None) -> Channel:
        """Give the channel to join: for who was away when it ended, the one that ended."""
        ended = self._directory.ended(address)
        if ended is not None and resume is not None and self._resume(ended, resume) is not None:
            return ended
        channel = self._directory.open(address)
        channel.idle_since = None
        return channel

    def _settle(self, delivery: Delivery) -> tuple[float, int]:
        """Give the bound in seconds and the coalescing in milliseconds that a listener gets."""
        most_ms = round(self._manager.max_buffer_seconds * 1000)
        bound_ms = most_ms if delivery.buffer_ms is None else min(max(delivery.buffer_ms, MIN_BOUND_MS), most_ms)
        coalesce_ms = self._coalesce_ms if delivery.coalesce_ms is None else delivery.coalesce_ms
        # What waits for as long as the bound is too old when it is written.
        return bound_ms / 1000, min(coalesce_ms, MAX_COALESCE_MS, bound_ms // 2)

    def _queue_seconds(self, bound_seconds: float, pace: Pace) -> float:
        """Give how much audio a listener's queue may hold: the bound, a frame up to the maximum, and what is early."""
        # A frame that comes when a lesser bound is just full must not push out what could still be written in time.
        late = min(bound_seconds + MAX_FRAME_SECONDS, self._manager.max_buffer_seconds)
        return late + (self._lead_seconds if pace is Pace.SPEECH else 0.0)

    def _start(self, channel: Channel, delivery: Delivery, bound_seconds: float) -> _Start:
        """Find where a listener begins: behind the frame that it names, a little in the past, or now."""
        if delivery.resume is not None and (resumed := self._resume(channel, delivery.resume)) is not None:
            return resumed
        place, frames = channel.place, list[Frame]()
        if delivery.burst_ms:
            oldest = self._clock() - min(delivery.burst_ms / 1000, bound_seconds)
            frames = [frame for frame in channel.history.since_due(oldest) if frame.start.epoch == place.epoch]
            place = frames[0].start if frames else place
        return _Start(place, channel.audio_format, frames, [])

    @staticmethod
    def _resume(channel: Channel, resume: Resume) -> _Start | None:
        history = channel.history
        known = history.find(resume.epoch, (resume.after + 1) & WORD_MASK, channel.place)
        if known is None:
            return None
        frames = history.since(known.place.position)
        later = history.epochs_after(known.epoch)
        return _Start(known.place, known.epoch.audio_format, frames, later, is_resumed=True)

    def _give_past(self, listener: Listener, start: _Start, channel: Channel) -> None:
        """Queue what a listener gets of the past, within its bound; what it does not get is told by a gap."""
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
        if start.is_resumed:
            listener.note_missed(frames[0].start if frames else channel.place)

    @staticmethod
    def _add_epoch(listener: Listener, epoch: Epoch) -> None:
        text = messages.FormatChange(epoch.audio_format, epoch.start.epoch).text()
        listener.add_note(Note(epoch.before, text, epoch.audio_format, epoch.start))
