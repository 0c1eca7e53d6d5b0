"""The broadcasters' side of the hub: who publishes to which channel, and how their audio meets real time.

Invariants: a channel has at most one source; audio enters by `publish` alone, and only from the source; what was
accepted is released in order, also after its source went; a source that is too far ahead is told to wait, and
nothing of its audio is dropped.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from relay.audio.arrival_rate import ArrivalRate, looks_like
from relay.audio.ingest import CATCH_UP_SECONDS, IngestLimits, Timed, ingest_for, restore_ingest
from relay.audio.timeline import Farewell
from relay.hub.channel import DISCONNECTED, ENDED, Channel, ChannelRecord, Source, SourceDeparture, SourcePort
from relay.hub.directory import Directory
from relay.hub.drain import Drain
from relay.hub.group import Group
from relay.hub.listener import Note
from relay.limits.in_force import LimitsInForce
from relay.limits.names import Limit
from relay.protocol import messages
from relay.protocol.requests import Offer
from relay.protocol.wire import split_audio
from relay.vocabulary.audio import AudioFormat, Frame, Pace
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.clock import Clock
from relay.vocabulary.errors import ChannelBusyError, CloseCode, RelayError
from relay.vocabulary.names import ChannelAddress

COALESCE_SLACK_SECONDS = 0.002
"""What a coalescing interval is longer: it is mostly a multiple of a frame, and the frame that comes just at its end
is to go with it and not to begin the next one."""

_TAKEN_OVER: Final = (CloseCode.TAKEN_OVER, "Another broadcaster took over.")
_STOPPED: Final = (CloseCode.SESSION_ENDED, "The operator ended the session.")


class Broadcasting:
    """Claims on channels, and the way of audio from a source into its channel."""

    def __init__(
        self,
        directory: Directory,
        drain: Drain,
        *,
        clock: Clock,
        limits: IngestLimits,
        grace_seconds: float,
        fit_queues: Callable[[Channel], None],
        kept: LimitsInForce,
    ) -> None:
        """Make it.

        Args:
            directory: The channels.
            drain: Is woken when listeners have something to get.
            clock: Gives seconds.
            limits: How far ahead of real time a source may be.
            grace_seconds: How long a source that vanished is waited for.
            fit_queues: Is called when the pace of a channel changed, and with it what a listener's queue may hold.
            kept: What may be kept of channels whose broadcasters have gone.
        """
        self._directory = directory
        self._drain = drain
        self._clock = clock
        self._limits = limits
        self._grace_seconds = grace_seconds
        self._fit_queues = fit_queues
        self._kept = kept
        self._timers: dict[Channel, asyncio.TimerHandle] = {}

    def check_free(self, address: ChannelAddress, offer: Offer) -> None:
        """Make sure that a channel could be claimed now.

        Raises:
            ChannelBusyError: The channel has a broadcaster, and the offer is not to take over.
        """
        channel = self._directory.find(address)
        if channel is not None and channel.source is not None and not offer.takeover:
            raise ChannelBusyError(f"The channel {address} has a broadcaster already; takeover=1 replaces it.")

    def claim(self, address: ChannelAddress, offer: Offer, connection_id: str, port: SourcePort) -> Source:
        """Make a connection the broadcaster of a channel; the listeners are told.

        Raises:
            ChannelBusyError: The channel has a broadcaster, and the offer is not to take over.
        """
        self.check_free(address, offer)
        channel = self._directory.open(address)
        replaced, listed_before = channel.source, channel.entry if channel.is_listed else None
        owed_seconds = CATCH_UP_SECONDS if offer.takeover else 0.0
        source = Source(connection_id, channel, port, ArrivalRate(owed_seconds) if offer.pace is Pace.LIVE else None)
        channel.adopt(source)
        self._directory.adopt(channel)
        if replaced is not None:
            replaced.port.close(*_TAKEN_OVER)
        self._prepare(channel, offer)
        channel.describe(offer, self._directory.declared(address))
        self._directory.name_session(address.session, offer.session_name)
        self._wake(channel)
        if channel.entry != listed_before:
            self._directory.note_change(channel.address.session)
        event = "broadcaster joined" if replaced is None else "broadcaster taken over"
        channel.log(event, connection=connection_id, rate=offer.audio_format.rate, pace=offer.pace.value)
        return source

    def publish(self, source: Source, message: bytes) -> float:
        """Take a broadcaster's message, as one frame or more; from one who was replaced, nothing is taken.

        Returns:
            How many seconds nothing more should be read from it; 0 when it may go on.

        Raises:
            AudioFaultError: The message is not whole samples; nothing of it is taken.
        """
        channel = source.channel
        ingest, audio_format = channel.ingest, channel.audio_format
        if not source.is_present or ingest is None or audio_format is None:
            return 0.0
        now, pieces = self._clock(), split_audio(message, audio_format)
        ticks = sum(piece.ticks for piece in pieces)
        channel.accepted[source.connection_id] += ticks
        self._release(channel, ingest.offer(pieces, now))
        is_ahead = ingest.should_pause(now)
        arrival, seconds = source.arrival, ticks / audio_format.clock_rate
        if arrival is not None and arrival.note(seconds, now, is_held=is_ahead):
            _log_arrival_rate(channel, source.arrival_rate, audio_format)
        if not source.is_held and is_ahead:
            source.is_held = True
            source.port.send_text(messages.backpressure_message(on=True))
        return ingest.must_wait(now)

    def wait_seconds(self, source: Source) -> float:
        """Tell how many seconds nothing should be read from a broadcaster; 0 also for one who was replaced."""
        ingest = source.channel.ingest
        return 0.0 if ingest is None or not source.is_present else ingest.must_wait(self._clock())

    def clear(self, source: Source) -> None:
        """Throw away what listeners have not been sent, and have them throw away what they have not played."""
        channel = source.channel
        if not source.is_present or channel.ingest is None:
            return
        dropped = channel.ingest.clear(self._clock())
        channel.timeline.clear()
        channel.tell(Note(channel.place, messages.clear_message(), clears=True))
        self._set_timer(channel)
        self._wake(channel)
        self._relieve(source)
        channel.log("audio cleared", unreleased_seconds=round(dropped.seconds, 2))

    def mute(self, source: Source, *, on: bool) -> None:
        """Have listeners told that a broadcaster sends silence on purpose from now on, or that it no longer does."""
        channel = source.channel
        if source.is_present and channel.timeline.mute(on=on):
            channel.tell_state()
            self._wake(channel)

    def pause(self, source: Source) -> None:
        """Let a broadcaster go that means to come back; listeners are told so, and may wait for it however long."""
        self._depart(source, Farewell.PAUSE)

    def end(self, source: Source) -> None:
        """End a channel as its broadcaster asked: listeners get what they are owed, then are closed with 1000."""
        self._depart(source, Farewell.END)

    def release(self, source: Source) -> None:
        """Note that a broadcaster's connection is gone; after a farewell or a take-over this changes nothing."""
        self._depart(source, Farewell.NONE)

    def stop(self, channels: Sequence[Channel]) -> None:
        """End channels of one session, as the operator asked, in whatever state they are.

        What is not released yet is thrown away. Listeners get what was released, then are closed with 1000; so are the
        sources, at once.
        """
        for channel in channels:
            self._throw_away_unreleased(channel)
            self._set_timer(channel)
            source, channel.source, channel.departure = channel.source, None, None
            if source is not None:
                source.port.close(*_STOPPED)
            self._end(channel)

    def disconnect(self, source: Source) -> None:
        """Send a source away, as the operator asked; its channel waits for it as for any that vanished."""
        source.port.close(*DISCONNECTED)
        self._depart(source, Farewell.NONE)

    def look_after(self, channel: Channel, now: float) -> None:
        """Tell a channel's source how it does, or go on when the grace of one that vanished is over."""
        if channel.timeline.give_up_source(now, self._grace_seconds):
            self._tell_state(channel)
            channel.log("broadcaster did not return")
        if channel.source is not None:
            self._relieve(channel.source)
            channel.source.tell_stats(now)

    def tell_lists(self) -> None:
        """Tell the listeners of sessions whose list of channels changed what there is to choose from now.

        Not at each change: who is behind would soon have more to be told than it may.
        """
        for session in self._directory.take_changes():
            text = messages.channels_message(self._directory.list_text(session), self._directory.session_name(session))
            for channel in self._directory.channels_of(session):
                channel.tell(Note(channel.place, text))
                self._wake(channel)

    def close(self) -> None:
        """Release nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _prepare(self, channel: Channel, offer: Offer) -> None:
        """Bring state, format and pace to what a new source says; what waits of the old one stays if it can."""
        before, told_before = channel.place, channel.state_text
        ingest = channel.ingest
        is_changed = ingest is None or ingest.pace is not offer.pace
        if ingest is None or is_changed or channel.audio_format != offer.audio_format:
            self._throw_away_unreleased(channel)
            channel.ingest = ingest_for(offer.pace, self._limits, channel.timeline.over_at)
            self._set_timer(channel)
        if channel.ingest is not None and offer.takeover:
            channel.ingest.note_return(self._clock())
        if channel.timeline.go_live(offer.audio_format):
            text = messages.format_message(offer.audio_format, channel.place.epoch)
            channel.tell(Note(before, text, offer.audio_format, channel.place))
        if is_changed:
            self._fit_queues(channel)
        if channel.state_text != told_before:
            channel.tell_state()

    def _throw_away_unreleased(self, channel: Channel) -> None:
        if channel.ingest is not None and (lost := channel.ingest.clear(self._clock())).chunks:
            channel.log("unreleased audio thrown away", seconds=round(lost.seconds, 2))

    def distribute(self, channel: Channel, frames: Iterable[Frame]) -> None:
        """Hand numbered frames, in order, to everyone who reads a channel, and have its listeners served."""
        for frame in frames:
            channel.distribute(frame)
        for group in channel.groups.values():
            self._wake_in_time(group)

    def _release(self, channel: Channel, frames: list[Timed]) -> None:
        if frames:
            self.distribute(channel, map(channel.release, frames))
        self._set_timer(channel)

    def _set_timer(self, channel: Channel) -> None:
        """Have what waits released when its time comes."""
        at = None if channel.ingest is None else channel.ingest.next_release()
        timer = self._timers.pop(channel, None)
        if timer is not None:
            timer.cancel()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timers[channel] = asyncio.get_running_loop().call_later(delay, self.release_due, channel)

    def release_due(self, channel: Channel) -> None:
        """Release what has to be by now; when the last is released of a source that went, note that it went."""
        if channel.ingest is None:
            return
        self._release(channel, channel.ingest.release(self._clock()))
        if channel.departure is not None and channel.ingest.next_release() is None:
            departure, channel.departure = channel.departure, None
            self._finish(channel, departure)

    def _depart(self, source: Source, farewell: Farewell) -> None:
        channel = source.channel
        if not source.is_present:
            return
        channel.source = None
        departure = SourceDeparture(farewell, self._clock())
        if farewell is not Farewell.END:
            event = "broadcaster paused" if farewell is Farewell.PAUSE else "channel waits for its broadcaster"
            channel.log(event, connection=source.connection_id)
        self._finish_in_time(channel, departure)

    def restore(self, record: ChannelRecord, waiting: Iterable[Timed] = ()) -> Channel:
        """Go on with a channel where another process was when it was exported there.

        Its source counts as one that vanished, and may come back.

        Args:
            record: What the channel was.
            waiting: What waited to be released, `Channel.waiting`; what is not given is lost.

        Raises:
            RelayError: The channel is in use here.
        """
        if self._directory.find(record.address) is not None:
            raise RelayError(f"The channel {record.address} is in use, so it can't be restored.")
        channel = self._directory.open(record.address)
        channel.restore(record, None if record.ingest is None else restore_ingest(record.ingest, self._limits, waiting))
        self._directory.name_session(record.session, record.session_name)
        self._directory.note_change(record.session)
        self._set_timer(channel)
        if channel.state is ChannelState.LIVE:
            departure, channel.departure = channel.departure, None
            self._finish_in_time(channel, departure or SourceDeparture(Farewell.NONE, self._clock()))
        return channel

    def _finish_in_time(self, channel: Channel, departure: SourceDeparture) -> None:
        """Tell listeners that the source went when the last of its audio is released; the channel is kept so long."""
        if channel.ingest is not None and channel.ingest.next_release() is not None:
            channel.departure = departure
        else:
            self._finish(channel, departure)
        self._directory.abandon(channel)
        self._bound_abandoned(channel.address.session)

    def _bound_abandoned(self, session: str) -> None:
        """Give up what is kept of broadcasters that have gone, beyond what may be kept of the session and of all.

        Of all sessions, it is the one that keeps the most that loses: nobody drives out what others keep.
        """
        for items, size, of in (
            (Limit.ABANDONED_PER_SESSION, Limit.ABANDONED_BYTES_PER_SESSION, session),
            (Limit.ABANDONED, Limit.ABANDONED_BYTES, None),
        ):
            while limit := self._over(items, size, self._directory.abandoned(of)):
                victims = self._directory.abandoned(of or _largest_session(self._directory.abandoned(), limit))
                self._give_up(next(channel for channel in victims if limit is items or channel.kept_bytes), limit)

    def _over(self, items: Limit, size: Limit, abandoned: Sequence[Channel]) -> Limit | None:
        """Give the limit that these channels are over; None when they may be kept."""
        most, most_bytes = self._kept.most(items), self._kept.most(size)
        if most is not None and len(abandoned) > most:
            return items
        if most_bytes is not None and sum(channel.kept_bytes for channel in abandoned) > most_bytes:
            return size
        return None

    def _give_up(self, channel: Channel, limit: Limit) -> None:
        """Throw away what a channel without a broadcaster keeps; one that is one too many is forgotten."""
        self._kept.applied(limit)
        event = "audio of a broadcaster that has gone thrown away"
        channel.log(event, logging.DEBUG, kept_bytes=channel.kept_bytes, limit=limit)
        if channel.ingest is not None:
            channel.ingest.clear(self._clock())
        channel.history.clear()
        self._set_timer(channel)
        if channel.departure is not None:
            departure, channel.departure = channel.departure, None
            self._finish(channel, departure)
        if limit in (Limit.ABANDONED_PER_SESSION, Limit.ABANDONED):
            self._directory.give_up(channel)

    def _finish(self, channel: Channel, departure: SourceDeparture) -> None:
        """Tell listeners that the source went, after the last of its audio."""
        if departure.farewell is Farewell.END:
            self._end(channel)
            return
        if departure.farewell is Farewell.PAUSE:
            channel.timeline.pause()
        else:
            channel.timeline.lose_source(departure.at)
        self._tell_state(channel)

    def _end(self, channel: Channel) -> None:
        """Take a channel out and see its listeners off."""
        channel.timeline.end()
        channel.idle_since = self._clock()
        self._directory.retire(channel)
        channel.tell_state(ENDED)
        self._wake(channel)
        channel.log("session ended", frames=channel.place.position)

    def _tell_state(self, channel: Channel) -> None:
        channel.tell_state()
        self._wake(channel)
        self._directory.note_change(channel.address.session)

    def _relieve(self, source: Source) -> None:
        """Tell a source that was told to stop that it may go on, when it may."""
        ingest = source.channel.ingest
        if source.is_held and ingest is not None and not ingest.is_far_ahead(self._clock()):
            source.is_held = False
            source.port.send_text(messages.backpressure_message(on=False))

    def _wake_in_time(self, group: Group) -> None:
        """Have a group served now, or when its interval is over."""
        if not group.coalesce_seconds:
            self._drain.wake(group)
        elif not group.is_due:
            group.is_due = True
            delay = group.coalesce_seconds + COALESCE_SLACK_SECONDS
            asyncio.get_running_loop().call_later(delay, self._wake_due, group)

    def _wake_due(self, group: Group) -> None:
        group.is_due = False
        self._drain.wake(group)

    def _wake(self, channel: Channel) -> None:
        for group in channel.groups.values():
            self._drain.wake(group)


def _log_arrival_rate(channel: Channel, rate: float | None, announced: AudioFormat) -> None:
    """Log that a source's audio comes faster or slower than it was announced, or that it does no more."""
    if rate is None:
        channel.log("audio arrives in real time again")
        return
    fields = {"arrival_rate": rate, "announced": str(announced), "looks_like": looks_like(announced, rate) or None}
    channel.log("audio does not arrive in real time", logging.WARNING, **fields)


def _largest_session(abandoned: Sequence[Channel], limit: Limit) -> str:
    """Give the session that has the most of what a limit counts, channels or bytes."""
    kept = Counter[str]()
    for channel in abandoned:
        kept[channel.address.session] += 1 if limit is Limit.ABANDONED else channel.kept_bytes
    return max(kept, key=lambda session: kept[session])
