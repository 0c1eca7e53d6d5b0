"""The hub: who broadcasts and who listens to which channel; `publish` is the only way in for audio.

Invariants: a channel has at most one broadcaster; a listener's account begins at the place it joined and has no
hole; a listener that left gets nothing more. Everything but `run` is synchronous, so between two awaits of a
caller the hub is consistent. What does not happen at a message (grace, stalls, idle channels, log summaries)
happens in `run`, every `HOUSEKEEPING_SECONDS`.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Callable

from relay.core import messages
from relay.core.amounts import AudioAmount
from relay.core.audio_buffer_manager import AudioBufferManager
from relay.core.channel import Channel
from relay.core.overflow import OverflowEpisodes, OverflowReport
from relay.core.requests import Delivery
from relay.core.wire import MAX_FRAME_SECONDS, split_audio
from relay.runtime.drain import Drain
from relay.runtime.listener import Framing, Listener, ListenerPort, Note
from relay.runtime.live_channel import Group, LiveChannel
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import Clock, wire_milliseconds
from relay.vocabulary.errors import ChannelBusyError, CloseCode
from relay.vocabulary.names import ChannelAddress
from relay.vocabulary.settings import BroadcastSettings, ListenerSettings

HOUSEKEEPING_SECONDS = 0.5
"""How late a grace or a stall limit may be noticed."""

MIN_BOUND_MS = 200
"""The least bound on the age of audio that a listener may ask for; below it every hiccup of a network is a loss."""

MAX_COALESCE_MS = 200
"""The most that a listener may have its frames wait for each other; less than one write may carry."""

_AS_THE_RELAY_WANTS = Delivery()

_ENDED = (CloseCode.SESSION_ENDED, "The session ended.")

logger = logging.getLogger(__name__)


class Hub:
    """All channels, their broadcasters and their listeners.

    Attributes:
        manager: Owns the listeners' buffers.
        ignored_messages: Control messages of types that this relay does not know.
    """

    def __init__(
        self,
        manager: AudioBufferManager,
        drain: Drain,
        *,
        clock: Clock,
        serialize: Callable[[bytes], bytes],
        broadcast: BroadcastSettings,
        listener: ListenerSettings,
    ) -> None:
        """Make a hub without channels.

        Args:
            manager: Owns the listeners' buffers.
            drain: Empties them; its `run` and the hub's are tasks of the caller.
            clock: Gives seconds.
            serialize: Makes the complete WebSocket message of a binary payload.
            broadcast: How long a lost broadcaster is waited for.
            listener: How long a stalled listener is kept, and how frames are joined.
        """
        self.manager = manager
        self._drain = drain
        self._clock = clock
        self._serialize = serialize
        self._grace_seconds = broadcast.grace_seconds
        self._stall_limit_seconds = listener.stall_limit_seconds
        self._coalesce_ms = listener.coalesce_ms
        self._channels: dict[ChannelAddress, LiveChannel] = {}
        self._memberships: dict[Listener, tuple[LiveChannel, int]] = {}
        self._blocked: dict[Listener, None] = {}
        self._overflows = OverflowEpisodes()
        self.ignored_messages = 0

    @property
    def clock_ms(self) -> int:
        """The relay's clock as the wire writes it."""
        return wire_milliseconds(self._clock())

    def check_free(self, address: ChannelAddress) -> None:
        """Make sure that a channel could be claimed now.

        Raises:
            ChannelBusyError: The channel has a broadcaster.
        """
        live = self._channels.get(address)
        if live is not None and live.source is not None:
            raise ChannelBusyError(f"The channel {address} has a broadcaster already.")

    def claim(self, address: ChannelAddress, audio_format: AudioFormat, connection_id: str) -> LiveChannel:
        """Make a connection the broadcaster of a channel; the listeners are told.

        Raises:
            ChannelBusyError: The channel has a broadcaster.
        """
        self.check_free(address)
        live = self._open(address)
        before = live.channel.place
        if live.channel.go_live(audio_format):
            place = live.channel.place
            text = messages.format_message(audio_format, place.epoch)
            live.tell(Note(before, text, audio_format, place))
        live.source = connection_id
        live.tell_state()
        self._wake_now(live)
        self._log(live, "broadcaster joined", connection=connection_id, rate=audio_format.rate)
        return live

    def publish(self, live: LiveChannel, message: bytes) -> None:
        """Release a broadcaster's message to all listeners of its channel, as one frame or more.

        Raises:
            PolicyError: The message is not whole samples; nothing of it is released.
        """
        audio_format = live.channel.audio_format
        if audio_format is None:
            return
        now = self._clock()
        for audio in split_audio(message, audio_format):
            frame = live.channel.release(audio, now)
            for group in live.groups.values():
                overflowed, dropped = self.manager.fan_out(frame, group.buffers.values(), live.address.session)
                if overflowed:
                    self._note_overflow(live, overflowed, dropped, now)
        for group in live.groups.values():
            self._wake_in_time(group)

    def end(self, live: LiveChannel) -> None:
        """End a channel as its broadcaster asked: listeners get what they are owed, then are closed with 1000."""
        live.source = None
        live.channel.end()
        self._channels.pop(live.address, None)
        live.tell_state(close=_ENDED)
        self._wake_now(live)
        self._log(live, "session ended", frames=live.channel.place.position)

    def release(self, live: LiveChannel, connection_id: str) -> None:
        """Note that a broadcaster's connection is gone; after `end` this changes nothing."""
        if live.source != connection_id:
            return
        live.source = None
        live.channel.lose_source(self._clock())
        live.tell_state()
        self._wake_now(live)
        self._log(live, "broadcaster lost", connection=connection_id)

    def join(
        self,
        address: ChannelAddress,
        connection_id: str,
        port: ListenerPort,
        framing: Framing,
        delivery: Delivery = _AS_THE_RELAY_WANTS,
    ) -> Listener:
        """Make a connection a listener of a channel, from now on, and greet it."""
        live = self._open(address)
        channel = live.channel
        bound_seconds, coalesce_ms = self._settle(delivery)
        buffer = self.manager.open_buffer(
            connection_id,
            session_id=address.session,
            audio_format=channel.audio_format,
            # A frame that comes when the bound is just full must not push out what could still be written in time.
            max_buffer_seconds=min(bound_seconds + MAX_FRAME_SECONDS, self.manager.max_buffer_seconds),
        )
        listener = Listener(
            connection_id, port, framing, buffer=buffer, place=channel.place, bound_seconds=bound_seconds
        )
        if framing is Framing.RELAY_V1:
            hello = messages.listener_hello(
                connection_id=connection_id,
                address=address,
                state=channel.state,
                audio_format=channel.audio_format,
                place=channel.place,
                clock_ms=self.clock_ms,
                buffer_ms=round(bound_seconds * 1000),
                coalesce_ms=coalesce_ms,
            )
            port.send_text(hello)
        live.add(listener, coalesce_ms)
        self._memberships[listener] = (live, coalesce_ms)
        self._log(live, "listener joined", logging.DEBUG, connection=connection_id)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener; done twice, it changes nothing."""
        membership = self._memberships.pop(listener, None)
        if membership is None:
            return
        live, coalesce_ms = membership
        listener.blocked_since = math.inf
        counters = listener.buffer.counters
        self.manager.clear_buffer(listener.connection_id)
        self._blocked.pop(listener, None)
        live.remove(listener, coalesce_ms)
        self._log(
            live,
            "listener left",
            logging.DEBUG,
            connection=listener.connection_id,
            delivered_seconds=round(counters.taken.seconds, 2),
            dropped_seconds=round(counters.dropped.seconds, 2),
        )

    def block(self, listener: Listener) -> None:
        """Note that a listener's socket takes no more data for now; nothing when it left."""
        if listener not in self._memberships:
            return
        listener.blocked_since = self._clock()
        self._blocked[listener] = None

    def unblock(self, listener: Listener) -> None:
        """Note that a listener's socket takes data again; nothing when it left."""
        if listener not in self._memberships:
            return
        listener.blocked_since = None
        self._blocked.pop(listener, None)
        self._drain.wake({listener: None})

    def emit_utilization(self, *, per_session: bool) -> None:
        """Sample how full the buffers are, for the metrics."""
        self.manager.emit_utilization_metrics()
        if per_session:
            for session in {live.address.session for live in self._channels.values() if live.groups}:
                self.manager.emit_utilization_metrics(session)

    async def run(self) -> None:
        """Do for ever what only time brings about."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.keep_house()

    def keep_house(self) -> None:
        """Cut stalled listeners off, end graces, forget idle channels, and sum up overflows in the log."""
        now = self._clock()
        self._cut_off_stalled(now)
        for live in list(self._channels.values()):
            if live.channel.give_up_source(now, self._grace_seconds):
                live.tell_state()
                self._wake_now(live)
                self._log(live, "broadcaster did not return")
            if live.idle:
                del self._channels[live.address]
        for report in self._overflows.due(now):
            self._log_overflow(report)

    def _settle(self, delivery: Delivery) -> tuple[float, int]:
        """Give the bound in seconds and the coalescing in milliseconds that a listener gets."""
        most_ms = round(self.manager.max_buffer_seconds * 1000)
        bound_ms = most_ms if delivery.buffer_ms is None else delivery.buffer_ms
        coalesce_ms = self._coalesce_ms if delivery.coalesce_ms is None else delivery.coalesce_ms
        return min(max(bound_ms, MIN_BOUND_MS), most_ms) / 1000, min(coalesce_ms, MAX_COALESCE_MS)

    def _wake_in_time(self, group: Group) -> None:
        """Have a group served now, or when its interval is over."""
        if not group.coalesce_seconds:
            self._drain.wake(group.buffers)
        elif not group.is_due:
            group.is_due = True
            asyncio.get_running_loop().call_later(group.coalesce_seconds, self._wake_due, group)

    def _wake_due(self, group: Group) -> None:
        group.is_due = False
        self._drain.wake(group.buffers)

    def _wake_now(self, live: LiveChannel) -> None:
        for group in live.groups.values():
            self._drain.wake(group.buffers)

    def _open(self, address: ChannelAddress) -> LiveChannel:
        live = self._channels.get(address)
        if live is None:
            live = LiveChannel(address, Channel(secrets.randbits(16), self._serialize))
            self._channels[address] = live
        return live

    def _cut_off_stalled(self, now: float) -> None:
        limit = self._stall_limit_seconds
        if limit is None:
            return
        for listener in list(self._blocked):
            if listener.blocked_since is not None and now - listener.blocked_since >= limit:
                del self._blocked[listener]
                logger.warning(
                    "stalled listener cut off",
                    extra={"connection": listener.connection_id, "stall_limit_seconds": limit},
                )
                listener.port.abort()

    def _note_overflow(self, live: LiveChannel, overflowed: int, dropped: AudioAmount, now: float) -> None:
        report = self._overflows.note(
            live.address.session,
            dropped_frames=dropped.chunks,
            dropped_seconds=dropped.seconds,
            overflowing_listeners=overflowed,
            listeners=live.listener_count,
            now=now,
        )
        if report is not None:
            self._log_overflow(report)

    @staticmethod
    def _log_overflow(report: OverflowReport) -> None:
        logger.warning(report.message, extra=report.fields())

    @staticmethod
    def _log(live: LiveChannel, event: str, level: int = logging.INFO, **fields: object) -> None:
        logger.log(
            level,
            event,
            extra={
                "session": live.address.session,
                "channel": live.address.channel,
                "listeners": live.listener_count,
                **fields,
            },
        )
