"""The hub: all channels with their broadcasters and listeners.

Invariants: Everything except `run` is synchronous, so the hub is consistent between two awaits of a caller. Work that
no message triggers (grace periods, stalls, idle channels, log summaries) happens in `run`, every
`HOUSEKEEPING_SECONDS`.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from functools import partial

from relay.audio.amounts import AudioAmount
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.ingest import IngestLimits
from relay.audio.timeline import Timeline
from relay.hub.broadcasting import Broadcasting
from relay.hub.channel import Channel
from relay.hub.channel_record import ChannelRecord
from relay.hub.directory import Directory
from relay.hub.drain import Drain
from relay.hub.following import Following
from relay.hub.gate import Gate, OpenGate
from relay.hub.listening import Listening
from relay.hub.port import Send
from relay.hub.rendition import NoRenditions
from relay.hub.stream import Stream
from relay.hub.transcoding import Transcoding
from relay.limits.in_force import LimitsInForce
from relay.metrics.listener_reports import ListenerReports
from relay.metrics.overflow import OverflowEpisodes, OverflowReport
from relay.settings.settings import BroadcastSettings, LimitSettings, ListenerSettings
from relay.vocabulary.clock import Clock, wire_milliseconds
from relay.vocabulary.labels import Declaration, Label
from relay.vocabulary.names import ChannelAddress

HOUSEKEEPING_SECONDS = 0.5
"""The longest delay in noticing a grace period or stall limit, and the shortest between reports to a broadcaster."""

UNHEARD_SECONDS = 5.0
"""How long a channel that never had a broadcaster is kept after its last listener left: long enough to return after a
lost connection. The time is short because such a channel has no name and no numbers of its own, and anybody may open
one."""

logger = logging.getLogger(__name__)


def _draw_epoch(address: ChannelAddress) -> int:  # noqa: ARG001 - any channel's is random
    return secrets.randbits(16)


class Hub:
    """All channels, their broadcasters and their listeners.

    Args:
        drain: Empties the listeners' queues. The caller runs `drain.run` and `Hub.run` as tasks.
        clock: Returns seconds.
        clock_id: The id of that clock, which greetings contain.
        serialize: Makes the complete WebSocket message of a binary payload.
        send: Writes to the sinks of the listeners' ports.
        broadcast: How far ahead a broadcaster may be, and how long a channel waits for a lost one.
        listener: How long a stalled listener is kept, how frames are joined, and how much history is kept for those
            that resume.
        declared: The operator's labels for channels.
        limits: Limits on what is kept of channels whose broadcasters left; the defaults if omitted.
        draw_epoch: Returns the first epoch of a channel, 16 bits. By default it is random, so that listeners notice a
            relay that lost its state. Several relays that carry one channel must use the same epoch.
        transcoding: Makes the streams whose codec is not the source's. Without it, listeners get what is sent. The
            caller runs its tasks.

    Attributes:
        manager: Owns the listeners' queues.
        clock_id: The id of the clock.
        directory: The channels.
        broadcasting: The broadcasters' side.
        listening: The listeners' side.
        ignored_messages: Number of control messages with unknown types.
        overflows: What listeners lose, for the log.
        reports: What listeners report about their playback.
        transcoding: Makes the streams whose codec is not the source's.
        following: The channels whose home is another node of a cluster.
        gate: What a claim or a join has to wait for; open in a single process.
        on_open: Called with each new channel, to open taps on it or to observe its subscribers.
    """

    def __init__(
        self,
        manager: AudioBufferManager,
        drain: Drain,
        *,
        clock: Clock,
        clock_id: str,
        serialize: Callable[[bytes], bytes],
        send: Send,
        broadcast: BroadcastSettings,
        listener: ListenerSettings,
        declared: Iterable[Declaration] = (),
        limits: LimitsInForce | None = None,
        draw_epoch: Callable[[ChannelAddress], int] = _draw_epoch,
        transcoding: Transcoding | None = None,
    ) -> None:
        self.transcoding = transcoding or Transcoding(NoRenditions(), drain, clock)
        self.manager = manager
        self._clock = clock
        self.clock_id = clock_id
        self._serialize = serialize
        self._send = send
        self._history_seconds = listener.history_seconds
        self._forget_seconds = broadcast.forget_seconds
        self.overflows = OverflowEpisodes()
        self.ignored_messages = 0
        self.on_open: list[Callable[[Channel], None]] = []
        self._draw_epoch = draw_epoch
        self.reports = ListenerReports()
        self.directory = Directory(self._make, declared)
        self.listening = Listening(
            self.directory,
            drain,
            manager,
            clock=clock,
            clock_id=clock_id,
            settings=listener,
            renditions=self.transcoding.renditions,
            lead_seconds=broadcast.lead_seconds,
        )
        self.broadcasting = Broadcasting(
            self.directory,
            drain,
            clock=clock,
            limits=IngestLimits(broadcast.ahead_seconds, broadcast.lead_seconds, broadcast.queue_seconds),
            grace_seconds=broadcast.grace_seconds,
            fit_queues=self.listening.fit_queues,
            kept=limits or LimitsInForce(LimitSettings()),
        )
        self.following = Following(self.directory, self.broadcasting, manager, clock=clock, serialize=serialize)
        self.gate: Gate = OpenGate()

    @property
    def clock_ms(self) -> int:
        """The relay's clock in milliseconds, as the wire writes it."""
        return wire_milliseconds(self._clock())

    async def run(self) -> None:
        """Call `keep_house` every `HOUSEKEEPING_SECONDS`, forever."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.keep_house()

    def keep_house(self) -> None:
        """Disconnect stalled listeners, check each channel, send changed lists, and log overflows."""
        now = self._clock()
        self.listening.cut_off_stalled()
        self.directory.forget_ended(now - self._history_seconds)
        for channel in self.directory:
            self.broadcasting.look_after(channel, now)
            channel.streams.rest()
            channel.streams.drop_unheard(now, self._history_seconds)
            self._forget_idle(channel, now)
        self.broadcasting.tell_lists()
        for report in self.overflows.due(now):
            self._log_overflow(report)

    def export(self) -> list[ChannelRecord]:
        """Return the state of each channel in use. `Broadcasting.restore` continues from it."""
        return [channel.export(self.directory.session_name(channel.address.session)) for channel in self.directory]

    def _forget_idle(self, channel: Channel, now: float) -> None:
        if not channel.is_idle:
            channel.idle_since = None
        elif channel.idle_since is None:
            channel.idle_since = now
        elif now - channel.idle_since >= (self._forget_seconds if channel.had_broadcaster else UNHEARD_SECONDS):
            self.directory.forget(channel)

    def _make(self, address: ChannelAddress, label: Label, is_listed: bool) -> Channel:
        make_stream = partial(
            Stream,
            address=address,
            serialize=self._serialize,
            manager=self.manager,
            send=self._send,
            history_seconds=self._history_seconds,
            note_overflow=partial(self._note_overflow, address.session),
        )
        timeline = Timeline(self._draw_epoch(address), self._serialize, self._history_seconds)
        channel = Channel(
            address, timeline, label, make_stream=make_stream, transcoding=self.transcoding, is_listed=is_listed
        )
        for tell in self.on_open:
            try:
                tell(channel)
            except Exception:
                logger.exception(
                    "a callback for new channels failed", extra={"session": address.session, "channel": address.channel}
                )
        return channel

    def _note_overflow(self, session: str, overflowed: int, dropped: AudioAmount) -> None:
        report = self.overflows.note(
            session,
            dropped_frames=dropped.chunks,
            dropped_seconds=dropped.seconds,
            overflowing_listeners=overflowed,
            now=self._clock(),
        )
        if report is not None:
            self._log_overflow(report)

    def _log_overflow(self, report: OverflowReport) -> None:
        listeners = sum(channel.listener_count for channel in self.directory.channels_of(report.session))
        logger.warning(report.message, extra={**report.fields(), "listeners": listeners})
