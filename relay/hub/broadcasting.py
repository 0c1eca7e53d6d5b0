"""The broadcasters' side of the hub: who publishes to which channel, and when their audio is released.

Invariants: A channel has at most one broadcaster. Audio enters only through `publish`, and only from that broadcaster.
Accepted audio is released in order, even after its broadcaster left. A broadcaster that is too far ahead has to wait;
none of its audio is dropped.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from relay.audio.arrival_rate import ArrivalRate, looks_like
from relay.audio.ingest import CATCH_UP_SECONDS, IngestLimits, Timed, ingest_for, restore_ingest
from relay.audio.timeline import Farewell
from relay.hub.channel import DISCONNECTED, ENDED, Broadcaster, Channel, Departure
from relay.hub.channel_record import ChannelRecord
from relay.hub.directory import Directory
from relay.hub.drain import Drain
from relay.hub.listener import Note
from relay.hub.port import Port
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

EARLY_SECONDS = 5.0
"""How much audio a channel that ends early releases at once. A tap holds twice as much."""

_TAKEN_OVER: Final = (CloseCode.TAKEN_OVER, CloseCode.TAKEN_OVER.reason)
_STOPPED: Final = (CloseCode.SESSION_ENDED, "The operator ended the session.")


class Broadcasting:
    """Claims on channels, and the path of audio from a broadcaster into its channel.

    Args:
        directory: The channels.
        drain: Woken when listeners have data to receive.
        clock: Returns seconds.
        limits: How far ahead of real time a broadcaster may be.
        grace_seconds: How long a channel waits for a broadcaster whose connection was lost.
        fit_queues: Called when the pace of a channel changed, because the size of its listeners' queues depends on it.
        kept: Limits on what is kept of channels whose broadcasters left.
    """

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
        self._directory = directory
        self._drain = drain
        self._clock = clock
        self._limits = limits
        self._grace_seconds = grace_seconds
        self._fit_queues = fit_queues
        self._kept = kept
        self._timers: dict[Channel, asyncio.TimerHandle] = {}

    def check_free(self, address: ChannelAddress, offer: Offer) -> None:
        """Check that a channel could be claimed now.

        Raises:
            ChannelBusyError: The channel has a broadcaster, and the offer does not ask to take over.
        """
        channel = self._directory.find(address)
        if channel is not None and channel.broadcaster is not None and not offer.takeover:
            raise ChannelBusyError(f"The channel {address} already has a broadcaster; replace it with takeover=1.")

    def claim(self, address: ChannelAddress, offer: Offer, connection_id: str, port: Port) -> Broadcaster:
        """Make a connection the broadcaster of a channel, and inform the listeners.

        Raises:
            ChannelBusyError: The channel has a broadcaster, and the offer does not ask to take over.
        """
        self.check_free(address, offer)
        channel = self._directory.open(address)
        replaced, listed_before = channel.broadcaster, channel.entry if channel.is_listed else None
        owed_seconds = CATCH_UP_SECONDS if offer.takeover else 0.0
        arrival = ArrivalRate(owed_seconds) if offer.pace is Pace.LIVE else None
        broadcaster = Broadcaster(connection_id, channel, port, arrival)
        channel.adopt(broadcaster)
        self._directory.adopt(channel)
        if replaced is not None:
            replaced.port.close(*_TAKEN_OVER)
        self._prepare(channel, offer)
        broadcaster.start = channel.place
        if offer.resume is not None:
            broadcaster.accepted_before = channel.accepted.get(offer.resume)
        channel.describe(offer, self._directory.declared(address))
        self._directory.name_session(address.session, offer.session_name)
        self._wake(channel)
        if channel.entry != listed_before:
            self._directory.note_change(channel.address.session)
        event = "broadcaster joined" if replaced is None else "broadcaster replaced"
        channel.log(event, connection=connection_id, rate=offer.audio_format.rate, pace=offer.pace.value)
        return broadcaster

    def publish(self, broadcaster: Broadcaster, message: bytes) -> float:
        """Accept a broadcaster's message as one or more frames. Messages of a replaced broadcaster are ignored.

        Returns:
            How many seconds to stop reading from the broadcaster; 0 to continue.

        Raises:
            AudioFaultError: The message is not a whole number of samples; none of it is accepted.
        """
        channel = broadcaster.channel
        ingest, audio_format = channel.ingest, channel.audio_format
        if not broadcaster.is_present or ingest is None or audio_format is None:
            return 0.0
        now, pieces = self._clock(), split_audio(message, audio_format)
        if not pieces:
            return ingest.must_wait(now)
        ticks = sum(piece.ticks for piece in pieces)
        channel.accepted[broadcaster.connection_id] += ticks
        released = ingest.offer(pieces, now)
        if channel.held_log is not None:
            channel.held_log.keep([*released, *ingest.latest(len(pieces))][-len(pieces) :])
        self._release(channel, released)
        is_ahead = ingest.should_pause(now)
        arrival, seconds = broadcaster.arrival, ticks / audio_format.clock_rate
        if arrival is not None and arrival.note(seconds, now, is_held=is_ahead):
            _log_arrival_rate(channel, broadcaster.arrival_rate, audio_format)
        if not broadcaster.is_held and is_ahead:
            broadcaster.is_held = True
            broadcaster.port.send_text(messages.Backpressure(on=True).text())
        return ingest.must_wait(now)

    def wait_seconds(self, broadcaster: Broadcaster) -> float:
        """Return how many seconds to stop reading from a broadcaster; 0 for one that was replaced."""
        ingest = broadcaster.channel.ingest
        return 0.0 if ingest is None or not broadcaster.is_present else ingest.must_wait(self._clock())

    def clear(self, broadcaster: Broadcaster) -> None:
        """Drop the audio that listeners were not sent yet, and make players drop what they have not played."""
        channel = broadcaster.channel
        if not broadcaster.is_present or channel.ingest is None:
            return
        dropped = channel.clear_waiting(self._clock())
        channel.timeline.clear()
        channel.tell(Note(channel.place, messages.Clear().text(), clears=True))
        self._set_timer(channel)
        self._wake(channel)
        self._relieve(broadcaster)
        channel.log("audio cleared", unreleased_seconds=round(dropped.seconds, 2))

    def mute(self, broadcaster: Broadcaster, *, on: bool) -> None:
        """Inform listeners that a broadcaster begins or stops sending silence on purpose."""
        channel = broadcaster.channel
        if broadcaster.is_present and channel.timeline.mute(on=on):
            channel.tell_state()
            self._wake(channel)

    def pause(self, broadcaster: Broadcaster) -> None:
        """Release a broadcaster that announced its return. Listeners learn this and may wait without a time limit."""
        self._depart(broadcaster, Farewell.PAUSE)

    def end(self, broadcaster: Broadcaster) -> None:
        """End a channel at its broadcaster's request: listeners receive the remaining audio, then close code 1000."""
        self._depart(broadcaster, Farewell.END)

    def release(self, broadcaster: Broadcaster) -> None:
        """Handle a lost connection. After a farewell or a take-over, nothing changes."""
        self._depart(broadcaster, Farewell.NONE)

    def stop(self, channels: Sequence[Channel]) -> None:
        """End channels of one session at the operator's request, in any state.

        Unreleased audio is dropped. Listeners receive what was released, then close code 1000. Broadcasters are closed
        with 1000 immediately.
        """
        for channel in channels:
            self._throw_away_unreleased(channel)
            self._set_timer(channel)
            broadcaster, channel.broadcaster, channel.departure = channel.broadcaster, None, None
            if broadcaster is not None:
                broadcaster.port.close(*_STOPPED)
            self._end(channel)

    def disconnect(self, broadcaster: Broadcaster) -> None:
        """Disconnect a broadcaster at the operator's request. Its channel waits for it as after a lost connection."""
        broadcaster.port.close(*DISCONNECTED)
        self._depart(broadcaster, Farewell.NONE)

    def look_after(self, channel: Channel, now: float) -> None:
        """Send a channel's broadcaster its figures, and stop waiting for a lost one when its grace period is over."""
        if not channel.is_home:
            return
        if channel.timeline.give_up_broadcaster(now, self._grace_seconds):
            self._tell_state(channel)
            channel.log("broadcaster did not return")
        if channel.broadcaster is not None:
            self._relieve(channel.broadcaster)
            channel.broadcaster.tell_stats(now)

    def tell_lists(self) -> None:
        """Send the list of channels to the listeners of each session whose list changed.

        The lists are not sent at each change, because a slow listener would soon exceed its limit of waiting messages.
        """
        for session in self._directory.take_changes():
            channels = messages.Channels(self._directory.listed(session), self._directory.session_name(session))
            text = channels.text()
            for channel in self._directory.channels_of(session):
                channel.tell(Note(channel.place, text))
                self._wake(channel)

    def close(self) -> None:
        """Cancel all pending releases."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _prepare(self, channel: Channel, offer: Offer) -> None:
        """Apply a new offer's state, format and pace. Keep the previous broadcaster's audio if it still fits."""
        told_before = channel.state_text
        ingest = channel.ingest
        is_changed = ingest is None or ingest.pace is not offer.pace
        if ingest is None or is_changed or channel.audio_format != offer.audio_format:
            self._throw_away_unreleased(channel)
            channel.ingest = ingest_for(offer.pace, self._limits, channel.timeline.over_at)
            if ingest is not None:
                channel.ingest.follow(ingest, self._clock())
            self._set_timer(channel)
        if channel.ingest is not None and offer.takeover:
            channel.ingest.note_return(self._clock())
        channel.go_live(offer.audio_format)
        if is_changed:
            self._fit_queues(channel)
        if channel.state_text != told_before:
            channel.tell_state()

    def _throw_away_unreleased(self, channel: Channel) -> None:
        if (lost := channel.clear_waiting(self._clock())).chunks:
            channel.log("unreleased audio was discarded", seconds=round(lost.seconds, 2))

    def distribute(self, channel: Channel, frames: Iterable[Frame]) -> None:
        """Hand numbered frames, in order, to all readers of a channel, and wake its listeners."""
        for frame in frames:
            channel.distribute(frame)
        for stream in channel.streams.values():
            if stream.feed is None:
                for group in stream.groups.values():
                    self._drain.wake_in_time(group)

    def _release(self, channel: Channel, frames: list[Timed]) -> None:
        if frames:
            self.distribute(channel, map(channel.release, frames))
        self._set_timer(channel)

    def _set_timer(self, channel: Channel) -> None:
        at = None if channel.ingest is None else channel.ingest.next_release()
        timer = self._timers.pop(channel, None)
        if timer is not None:
            timer.cancel()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timers[channel] = asyncio.get_running_loop().call_later(delay, self.release_due, channel)

    def release_due(self, channel: Channel) -> None:
        """Release the audio that is due. After the last audio of a broadcaster that left, complete its departure."""
        if channel.ingest is None:
            return
        self._release(channel, channel.ingest.release(self._clock()))
        if channel.departure is not None and channel.ingest.next_release() is None:
            departure, channel.departure = channel.departure, None
            self._finish(channel, departure)

    def end_early(self) -> bool:
        """Release the next audio of channels whose broadcasters ended them before its time, and end them behind it.

        Each call releases `EARLY_SECONDS` of a channel, so that its readers have their turn in between. Listeners and
        feeds get room for it, so nobody loses any of it.

        Returns:
            Whether audio still waits. Then call it again, in another turn of the event loop.
        """
        for channel in self._awaiting_end():
            ingest = channel.ingest
            if ingest is not None and (at := ingest.next_release()) is not None:
                early = ingest.release(at + EARLY_SECONDS)
                channel.make_room(sum(timed.piece.seconds for timed in early))
                self._release(channel, early)
            self.release_due(channel)
        return bool(self._awaiting_end())

    def end_now(self) -> None:
        """End channels whose broadcasters ended them. Discard the audio that waits for its release or in a feed."""
        for channel in self._awaiting_end():
            self._throw_away_unreleased(channel)
            self.release_due(channel)
        for channel in self._directory.ending:
            channel.drop_history()

    def _awaiting_end(self) -> list[Channel]:
        """Return the channels whose broadcasters ended them, and whose last audio waits for its release."""
        return [each for each in self._directory if each.departure and each.departure.farewell is Farewell.END]

    def _depart(self, broadcaster: Broadcaster, farewell: Farewell) -> None:
        channel = broadcaster.channel
        if not broadcaster.is_present:
            return
        channel.broadcaster = None
        departure = Departure(farewell, self._clock())
        if farewell is not Farewell.END:
            event = "broadcaster paused" if farewell is Farewell.PAUSE else "channel waits for its broadcaster"
            channel.log(event, connection=broadcaster.connection_id)
        self._finish_in_time(channel, departure)
        if channel.departure is not None and channel.held_log is not None:
            channel.held_log.note_departure()

    def restore(self, record: ChannelRecord, waiting: Iterable[Timed] = ()) -> Channel:
        """Continue a channel that another process exported.

        The channel waits for its broadcaster as after a lost connection.

        Args:
            record: The exported state of the channel.
            waiting: The audio that waited for its release, from `Channel.waiting`. Without it, that audio is lost.

        Raises:
            RelayError: The channel is in use here.
        """
        channel = self.open(record)
        self.continue_here(channel, record, waiting)
        self.note_absence(channel)
        return channel

    def open(self, record: ChannelRecord, past: Sequence[Frame] = ()) -> Channel:
        """Create a channel from what another process exported, with its latest frames up to that place.

        Raises:
            RelayError: The channel is in use here.
        """
        if self._directory.find(record.address) is not None:
            raise RelayError(f"The channel {record.address} cannot be restored, because it is in use here.")
        channel = self._directory.open(record.address)
        self._restore(channel, record, past)
        self._directory.name_session(record.session, record.session_name)
        self._directory.note_change(record.session)
        return channel

    def open_ended(self, record: ChannelRecord, past: Sequence[Frame]) -> Channel:
        """Create a channel that another process ended, for listeners that come back for its last audio."""
        channel = self._directory.open_ended(record.address)
        self._restore(channel, record, past)
        channel.idle_since = self._clock()
        return channel

    def _restore(self, channel: Channel, record: ChannelRecord, past: Sequence[Frame]) -> None:
        channel.restore(record, past)
        if record.ingest is not None:
            channel.ingest = ingest_for(Pace(record.ingest.pace), self._limits, channel.timeline.over_at)

    def continue_here(self, channel: Channel, record: ChannelRecord, waiting: Iterable[Timed]) -> None:
        """Schedule and release a channel's audio from now on, where another process did so before."""
        channel.accepted = dict(record.accepted)
        channel.departure = None
        if record.farewell is not None:
            channel.departure = Departure(Farewell(record.farewell), record.departed_at)
        channel.ingest = None
        if record.ingest is not None:
            channel.ingest = restore_ingest(record.ingest, self._limits, waiting, self._clock())
        self._set_timer(channel)

    def note_absence(self, channel: Channel) -> None:
        """Let a channel that another process had before wait for its broadcaster, as after a lost connection."""
        if channel.state is ChannelState.LIVE and channel.broadcaster is None:
            departure, channel.departure = channel.departure, None
            self._finish_in_time(channel, departure or Departure(Farewell.NONE, self._clock()))

    def resign(self, channel: Channel) -> None:
        """Leave a channel to another process, which has its unreleased audio. Its broadcaster is closed."""
        broadcaster, channel.broadcaster, channel.departure = channel.broadcaster, None, None
        if broadcaster is not None:
            broadcaster.port.close(*_TAKEN_OVER)
        channel.held_log = None
        if channel.ingest is not None:
            channel.ingest = ingest_for(channel.pace, self._limits, channel.timeline.over_at)
        self._set_timer(channel)
        self._directory.adopt(channel)

    def follow(self, channel: Channel, note: Note) -> None:
        """Apply a note of a channel whose audio another process releases, and pass it on."""
        timeline = channel.timeline
        if note.close is not None:
            self._end(channel)
            return
        if note.clears:
            timeline.clear()
        if note.audio_format is not None and note.new_place is not None:
            timeline.follow_format(note.audio_format, note.new_place)
        if note.pace is not None and (channel.ingest is None or note.pace is not channel.pace):
            channel.ingest = ingest_for(note.pace, self._limits)
            self._fit_queues(channel)
        if note.state is not None:
            timeline.follow(note.state, note.silence)
            self._directory.note_change(channel.address.session)
        channel.tell(note)
        self._wake(channel)

    def _finish_in_time(self, channel: Channel, departure: Departure) -> None:
        """Complete a departure once the last audio of the broadcaster is released."""
        if channel.ingest is not None and channel.ingest.next_release() is not None:
            channel.departure = departure
        else:
            self._finish(channel, departure)
        self._directory.abandon(channel)
        self._bound_abandoned(channel.address.session)

    def _bound_abandoned(self, session: str) -> None:
        """Apply the limits on what is kept of broadcasters that left, per session and in total.

        Over the total limit, the session that keeps the most loses, so no session can displace what others keep.
        """
        for items, size, of in (
            (Limit.ABANDONED_PER_SESSION, Limit.ABANDONED_BYTES_PER_SESSION, session),
            (Limit.ABANDONED, Limit.ABANDONED_BYTES, None),
        ):
            while limit := self._over(items, size, self._directory.abandoned(of)):
                victims = self._directory.abandoned(of or _largest_session(self._directory.abandoned(), limit))
                self._give_up(next(channel for channel in victims if limit is items or channel.kept_bytes), limit)

    def _over(self, items: Limit, size: Limit, abandoned: Sequence[Channel]) -> Limit | None:
        """Return the limit that these channels exceed, or None."""
        most, most_bytes = self._kept.most(items), self._kept.most(size)
        if most is not None and len(abandoned) > most:
            return items
        if most_bytes is not None and sum(channel.kept_bytes for channel in abandoned) > most_bytes:
            return size
        return None

    def _give_up(self, channel: Channel, limit: Limit) -> None:
        """Drop the audio that a channel without a broadcaster keeps. Forget the channel if there are too many."""
        self._kept.applied(limit)
        event = "audio of a departed broadcaster was discarded"
        channel.log(event, logging.DEBUG, kept_bytes=channel.kept_bytes, limit=limit)
        channel.clear_waiting(self._clock())
        channel.drop_history()
        self._set_timer(channel)
        if channel.departure is not None:
            departure, channel.departure = channel.departure, None
            self._finish(channel, departure)
        if limit in (Limit.ABANDONED_PER_SESSION, Limit.ABANDONED):
            self._directory.give_up(channel)

    def _finish(self, channel: Channel, departure: Departure) -> None:
        if departure.farewell is Farewell.END:
            self._end(channel)
            return
        if departure.farewell is Farewell.PAUSE:
            channel.timeline.pause()
        else:
            channel.timeline.lose_broadcaster(departure.at)
        self._tell_state(channel)

    def _end(self, channel: Channel) -> None:
        """Remove a channel, and close its listeners after their remaining audio."""
        channel.timeline.end()
        channel.idle_since = self._clock()
        released_frames = channel.tally.released_frames
        self._directory.retire(channel)
        channel.tell_state(ENDED)
        self._wake(channel)
        channel.log("session ended", frames=released_frames)

    def _tell_state(self, channel: Channel) -> None:
        channel.tell_state()
        self._wake(channel)
        self._directory.note_change(channel.address.session)

    def _relieve(self, broadcaster: Broadcaster) -> None:
        """Send backpressure "off" to a held broadcaster that is no longer too far ahead."""
        ingest = broadcaster.channel.ingest
        if broadcaster.is_held and ingest is not None and not ingest.is_far_ahead(self._clock()):
            broadcaster.is_held = False
            broadcaster.port.send_text(messages.Backpressure(on=False).text())

    def _wake(self, channel: Channel) -> None:
        for group in channel.groups:
            self._drain.wake(group)


def _log_arrival_rate(channel: Channel, rate: float | None, announced: AudioFormat) -> None:
    """Log that audio arrives faster or slower than announced, or that it arrives in real time again."""
    if rate is None:
        channel.log("audio arrives in real time again")
        return
    fields = {"arrival_rate": rate, "announced": str(announced), "looks_like": looks_like(announced, rate) or None}
    channel.log("audio does not arrive in real time", logging.WARNING, **fields)


def _largest_session(abandoned: Sequence[Channel], limit: Limit) -> str:
    """Return the session with the largest share of a limit, counted in channels or bytes."""
    kept = Counter[str]()
    for channel in abandoned:
        kept[channel.address.session] += 1 if limit is Limit.ABANDONED else channel.kept_bytes
    return max(kept, key=lambda session: kept[session])
