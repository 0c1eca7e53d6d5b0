"""The hub: who broadcasts and who listens to which channel; `publish` is the only way in for audio.

Invariants: a channel has at most one broadcaster; a listener's account begins at the place it joined and has no
hole; a listener that left gets nothing more. Everything but `run` is synchronous, so between two awaits of a
caller the hub is consistent. What does not happen at a message (grace, stalls, idle channels, log summaries)
happens in `run`, every `HOUSEKEEPING_SECONDS`.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable

from relay.core import messages
from relay.core.amounts import AudioAmount
from relay.core.audio_buffer_manager import AudioBufferManager
from relay.core.channel import Channel, ChannelState
from relay.core.overflow import OverflowEpisodes, OverflowReport
from relay.core.wire import split_audio
from relay.runtime.drain import Drain
from relay.runtime.listener import Framing, Listener, ListenerPort, Note
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import Clock, wire_milliseconds
from relay.vocabulary.errors import ChannelBusyError, CloseCode
from relay.vocabulary.names import ChannelAddress
from relay.vocabulary.settings import BroadcastSettings, ListenerSettings

HOUSEKEEPING_SECONDS = 0.5
"""How late a grace or a stall limit may be noticed."""

_ENDED = (CloseCode.SESSION_ENDED, "The session ended.")

logger = logging.getLogger(__name__)


class LiveChannel:
    """A channel with the connections that use it.

    Attributes:
        address: Its session and name.
        channel: Its state and numbering.
        listeners: Who receives it.
        source: The connection id of who publishes to it; None while nobody does.
    """

    def __init__(self, address: ChannelAddress, channel: Channel) -> None:
        """Make a channel that nobody uses yet."""
        self.address = address
        self.channel = channel
        self.listeners: dict[Listener, None] = {}
        self.source: str | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if it were forgotten."""
        return not self.listeners and self.channel.state in (ChannelState.WAITING, ChannelState.ENDED)

    def tell(self, note: Note) -> None:
        """Have all listeners told something, each after the frames so far."""
        for listener in self.listeners:
            listener.add_note(note)

    def tell_state(self, close: tuple[CloseCode, str] | None = None) -> None:
        """Have all listeners told the state; with `close`, that is the last they hear."""
        self.tell(Note(self.channel.place, messages.state_message(self.channel.state), close=close))


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
            listener: How long a stalled listener is kept.
        """
        self.manager = manager
        self._drain = drain
        self._clock = clock
        self._serialize = serialize
        self._grace_seconds = broadcast.grace_seconds
        self._stall_limit_seconds = listener.stall_limit_seconds
        self._channels: dict[ChannelAddress, LiveChannel] = {}
        self._memberships: dict[Listener, LiveChannel] = {}
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
        self._drain.wake(live.listeners)
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
        buffers = [listener.buffer for listener in live.listeners]
        for audio in split_audio(message, audio_format):
            frame = live.channel.release(audio, now)
            overflowed, dropped = self.manager.fan_out(frame, buffers, live.address.session)
            if overflowed:
                self._note_overflow(live, overflowed, dropped, now)
        self._drain.wake(live.listeners)

    def end(self, live: LiveChannel) -> None:
        """End a channel as its broadcaster asked: listeners get what they are owed, then are closed with 1000."""
        live.source = None
        live.channel.end()
        self._channels.pop(live.address, None)
        live.tell_state(close=_ENDED)
        self._drain.wake(live.listeners)
        self._log(live, "session ended", frames=live.channel.place.position)

    def release(self, live: LiveChannel, connection_id: str) -> None:
        """Note that a broadcaster's connection is gone; after `end` this changes nothing."""
        if live.source != connection_id:
            return
        live.source = None
        live.channel.lose_source(self._clock())
        live.tell_state()
        self._drain.wake(live.listeners)
        self._log(live, "broadcaster lost", connection=connection_id)

    def join(self, address: ChannelAddress, connection_id: str, port: ListenerPort, framing: Framing) -> Listener:
        """Make a connection a listener of a channel, from now on, and greet it."""
        live = self._open(address)
        channel = live.channel
        buffer = self.manager.open_buffer(connection_id, session_id=address.session, audio_format=channel.audio_format)
        listener = Listener(connection_id, port, framing, buffer, channel.place)
        if framing is Framing.RELAY_V1:
            hello = messages.listener_hello(
                connection_id=connection_id,
                address=address,
                state=channel.state,
                audio_format=channel.audio_format,
                place=channel.place,
                clock_ms=self.clock_ms,
                buffer_seconds=buffer.max_buffer_seconds,
            )
            port.send_text(hello)
        live.listeners[listener] = None
        self._memberships[listener] = live
        self._log(live, "listener joined", logging.DEBUG, connection=connection_id)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener; done twice, it changes nothing."""
        live = self._memberships.pop(listener, None)
        if live is None:
            return
        counters = listener.buffer.counters
        self.manager.clear_buffer(listener.connection_id)
        self._drain.forget(listener)
        self._blocked.pop(listener, None)
        live.listeners.pop(listener, None)
        self._log(
            live,
            "listener left",
            logging.DEBUG,
            connection=listener.connection_id,
            delivered_seconds=round(counters.taken.seconds, 2),
            dropped_seconds=round(counters.dropped.seconds, 2),
        )

    def block(self, listener: Listener) -> None:
        """Note that a listener's socket takes no more data for now."""
        listener.blocked_since = self._clock()
        self._blocked[listener] = None

    def unblock(self, listener: Listener) -> None:
        """Note that a listener's socket takes data again."""
        listener.blocked_since = None
        self._blocked.pop(listener, None)
        if listener in self._memberships:
            self._drain.wake((listener,))

    def emit_utilization(self, *, per_session: bool) -> None:
        """Sample how full the buffers are, for the metrics."""
        self.manager.emit_utilization_metrics()
        if per_session:
            for session in {live.address.session for live in self._channels.values() if live.listeners}:
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
                self._drain.wake(live.listeners)
                self._log(live, "broadcaster did not return")
            if live.idle:
                del self._channels[live.address]
        for report in self._overflows.due(now):
            self._log_overflow(report)

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
            listeners=len(live.listeners),
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
                "listeners": len(live.listeners),
                **fields,
            },
        )
