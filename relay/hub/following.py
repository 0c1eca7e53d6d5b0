"""Channels whose home is another node: their frames and notes come in here, numbered and timed already.

Invariants: A channel here has the numbers of its home, and moves only forward. Its frames chain as at home: each starts
at the place at which the one before it ended. Audio that was more than `LATE_SECONDS` older than the longest bound of a
listener when it came is written to nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.audio.ingest import Timed
from relay.audio.timeline import number
from relay.hub.broadcasting import Broadcasting
from relay.hub.channel import ENDED, Channel
from relay.hub.channel_record import ChannelRecord
from relay.hub.directory import Directory
from relay.hub.framing import Serialize
from relay.hub.listener import Note
from relay.protocol import messages
from relay.vocabulary.audio import AudioFormat, Codec, Frame, Pace, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.clock import Clock

LATE_SECONDS = 6.0
"""How much longer than the longest bound audio may take to a node without being lost. After an outage as long as the
bound, coming back takes that: NATS servers elect a leader within 5 s, and nodes look for them every 0.5 s."""

LATE_AGE = 0.9
"""How old audio counts that came late, as a share of the longest bound. The rest is the time to write it."""


@dataclass(frozen=True, slots=True)
class Past:
    """A frame that the home released earlier.

    Attributes:
        place: Its start.
        due: When it is due, in seconds of this relay's clock.
        audio: The encoded audio.
    """

    place: Place
    due: float
    audio: bytes


class Following:
    """The channels of a hub whose home is another node.

    Args:
        directory: The channels.
        broadcasting: Hands their frames on, and takes over when this node becomes the home.
        manager: Knows the longest bound of a listener.
        clock: Returns seconds.
        serialize: Makes the complete WebSocket message of a binary payload.
    """

    def __init__(
        self,
        directory: Directory,
        broadcasting: Broadcasting,
        manager: AudioBufferManager,
        *,
        clock: Clock,
        serialize: Serialize,
    ) -> None:
        self._directory = directory
        self._broadcasting = broadcasting
        self._manager = manager
        self._clock = clock
        self._serialize = serialize

    def open(self, record: ChannelRecord, past: Iterable[Past] = ()) -> Channel:
        """Follow a channel from what its home exported, and from the frames before that.

        A channel with this address that has no users here is replaced. One that has users stays beside a channel that
        ended.

        Raises:
            RelayError: The channel has users here, and did not end.
        """
        present = self._directory.find(record.address)
        if present is not None and not present.has_subscribers and present.broadcaster is None:
            self._directory.forget(present)
        has_ended = record.timeline.state == ChannelState.ENDED
        make = self._broadcasting.open_ended if has_ended else self._broadcasting.open
        channel = make(record, self._number_past(record, past))
        channel.is_home = False
        return channel

    def take(self, channel: Channel, place: Place, audio: bytes, due: float) -> bool:
        """Release a frame that the home numbered. Return False if the format of its epoch isn't known.

        A frame that the channel has already is ignored. One that doesn't follow leaves a hole, and a gap tells it.

        During an outage of the bus, a frame grows old on its way. Listeners with the longest bound get it nevertheless,
        so an outage as long as that loses nothing. The bound keeps slow listeners from falling behind, and none of them
        was slow. Listeners that asked for a smaller bound get only what is young enough for it.
        """
        present = channel.place
        if place.position < present.position:
            return True
        if place.epoch != present.epoch or channel.audio_format is None:
            return False
        if place.position > present.position:
            channel.skip(place)
        piece = channel.audio_format.measure(audio)
        last, ages_from = channel.timeline.last_due, None
        now, bound_seconds = self._clock(), self._manager.max_buffer_seconds
        if LATE_AGE * bound_seconds < now - due <= bound_seconds + LATE_SECONDS:
            ages_from = max(now - LATE_AGE * bound_seconds, last)
        else:
            # A difference of clocks that becomes smaller must not let due times decrease.
            due = max(due, last)
        self._broadcasting.distribute(
            channel, [number(piece, channel.place, due, self._serialize, ages_from=ages_from)]
        )
        return True

    def apply(self, channel: Channel, note: Note) -> None:
        """Apply a change that the home made, and pass it on."""
        if note.place.epoch == channel.place.epoch and note.place.position > channel.place.position:
            channel.skip(note.place)
        self._broadcasting.follow(channel, replace(note, place=channel.place))

    def catch_up(self, channel: Channel, record: ChannelRecord, past: Iterable[Past] = ()) -> None:
        """Bring a channel that lost entries, or had none, to the state of a record: its format, place, and state.

        `past` are frames before that place which its listeners are to hear.
        """
        channel.is_home = False
        timeline, place = record.timeline, Place(*record.timeline.place)
        if place.position > channel.place.position:
            if place.epoch != channel.place.epoch and timeline.numbers.epochs:
                codec, rate, channels, _, start = timeline.numbers.epochs[-1]
                audio_format, begin = AudioFormat(Codec(codec), rate, channels), Place(*start)
                text = messages.FormatChange(audio_format, begin.epoch).text()
                self._broadcasting.follow(channel, Note(channel.place, text, audio_format, begin))
            for each in past:
                if each.place.position < place.position:
                    self.take(channel, each.place, each.audio, each.due)
            if place.position > channel.place.position:
                channel.skip(place)
        state, silence = ChannelState(timeline.state), timeline.silence and Silence(timeline.silence)
        pace = channel.pace if record.ingest is None else Pace(record.ingest.pace)
        if (state, silence, pace) != (channel.state, channel.timeline.silence, channel.pace):
            text = messages.StateChange(state, pace, silence or None).text()
            close = ENDED if state is ChannelState.ENDED else None
            note = Note(channel.place, text, state=state, silence=silence or None, close=close, pace=pace)
            self._broadcasting.follow(channel, note)

    def resign(self, channel: Channel) -> None:
        """Stop to be the home of a channel. Its broadcaster is closed, and another node has its unreleased audio."""
        channel.is_home = False
        self._broadcasting.resign(channel)

    def become_home(
        self, channel: Channel, record: ChannelRecord, waiting: Iterable[Timed], *, is_disputed: bool
    ) -> None:
        """Become the home of a channel that this node follows up to its last frame.

        Args:
            channel: The channel.
            record: What its last home exported, in this relay's time.
            waiting: The accepted audio that waits for its release.
            is_disputed: Whether the last home may have released other audio under the numbers that come next. Then
                another epoch begins.
        """
        channel.is_home = True
        if is_disputed:
            channel.renumber()
        self._broadcasting.continue_here(channel, record, waiting)

    def _number_past(self, record: ChannelRecord, past: Iterable[Past]) -> list[Frame]:
        """Return the latest frames up to the record's place, without a hole, oldest first."""
        end = Place(*record.timeline.place)
        formats = {
            start[1]: AudioFormat(Codec(codec), rate, channels)
            for codec, rate, channels, _, start in record.timeline.numbers.epochs
        }
        frames: list[Frame] = []
        place = None
        for each in past:
            audio_format = formats.get(each.place.epoch)
            if audio_format is None or each.place.position >= end.position:
                continue
            start = place if place == each.place else each.place
            if start is not place:
                frames.clear()
            frame = number(audio_format.measure(each.audio), start, each.due, self._serialize)
            frames.append(frame)
            place = frame.end
        return frames if place == end else []
