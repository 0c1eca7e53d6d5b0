"""A channel's life and numbering: its state, and the place of each frame.

Invariants: Sequence numbers and media time are consecutive within an epoch and never move otherwise. Due times decrease
only at a `clear`, which empties the history. An illegal transition raises and changes nothing. Nothing here reads a
clock.

Source: docs/protocol.md, "Numbering and time" and "Life of a channel".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.audio.history import History, NumbersRecord
from relay.protocol.wire import Header
from relay.vocabulary.audio import EPOCH_STRIDE, FLICKS_PER_SECOND, AudioFormat, Frame, Piece, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.clock import wire_milliseconds
from relay.vocabulary.errors import RelayError

_EPOCHS = 1 << 16


class Farewell(StrEnum):
    """How a broadcaster announced that it leaves.

    Attributes:
        NONE: Not at all; it may return.
        PAUSE: It will return.
        END: The session is over.
    """

    NONE = ""
    PAUSE = "pause"
    END = "end"


_TRANSITIONS: dict[ChannelState, frozenset[ChannelState]] = {
    ChannelState.WAITING: frozenset({ChannelState.LIVE, ChannelState.ENDED}),
    # Live to live: another broadcaster took over. Live to waiting: the broadcaster paused.
    ChannelState.LIVE: frozenset(
        {ChannelState.LIVE, ChannelState.WAITING, ChannelState.SOURCE_LOST, ChannelState.ENDED}
    ),
    ChannelState.SOURCE_LOST: frozenset({ChannelState.LIVE, ChannelState.WAITING, ChannelState.ENDED}),
    ChannelState.ENDED: frozenset(),
}


class IllegalTransitionError(RelayError):
    """A state change that a channel does not allow; a bug in the relay."""


@dataclass(frozen=True, slots=True)
class TimelineRecord:
    """A channel's state and numbering, as plain values. Times are in seconds of the relay's clock.

    Attributes:
        state: A `ChannelState`.
        silence: A `Silence`, or None.
        place: The place of the next frame: the members of a `Place`.
        over_at: When the last frame is over; None if nothing remains to be heard.
        lost_at: When the broadcaster was lost, in state `source_lost`.
        numbers: The frames that it can still name.
    """

    state: str
    silence: str | None
    place: tuple[int, ...]
    over_at: float | None
    lost_at: float
    numbers: NumbersRecord


def number(
    piece: Piece, start: Place, due: float, serialize: Callable[[bytes], bytes], *, ages_from: float | None = None
) -> Frame:
    """Return the frame of a piece of audio that starts at a place.

    Args:
        piece: The audio.
        start: The place.
        due: When it is due, in seconds of the relay's clock.
        serialize: Makes the complete WebSocket message of a binary payload.
        ages_from: From when on its age counts, if not from its due time.
    """
    header = Header(start.epoch, start.seq, start.media_time, wire_milliseconds(due))
    end = Place(start.position + 1, start.epoch, start.seq + 1, start.media_time + piece.ticks)
    wire = serialize(header.pack() + piece.audio)
    timestamp = due if ages_from is None else ages_from
    return Frame(piece.audio, timestamp, piece.flicks, start=start, end=end, wire=wire)


class Timeline:
    """The state, the format and the numbering of one channel, which begins by waiting for a broadcaster.

    Args:
        first_epoch: Random, so that listeners notice a relay that lost its state.
        serialize: Makes the complete WebSocket message of a binary payload, as a server writes it.
        history_seconds: How much audio is kept for listeners that return.

    Attributes:
        state: Its state.
        silence: Why there is nothing to hear; None if there is, or if unknown.
        audio_format: The format of the present epoch; None before the first broadcaster.
        place: The place of the next frame.
        over_at: When the last frame is over, in seconds of the relay's clock. The next one is not due earlier.
        last_due: From when on the age of the last frame counts, which is when it is due; minus infinity before the
            first, and after a `clear`.
        history: The recently released audio.
    """

    def __init__(self, first_epoch: int, serialize: Callable[[bytes], bytes], history_seconds: float = 10.0) -> None:
        self.state = ChannelState.WAITING
        self.silence: Silence | None = None
        self.audio_format: AudioFormat | None = None
        self.place = Place(0, first_epoch % _EPOCHS, 0, 0)
        self.over_at = self.last_due = -math.inf
        self.history = History(history_seconds)
        self._serialize = serialize
        self._lost_at = 0.0

    def go_live(self, audio_format: AudioFormat) -> bool:
        """Record that a broadcaster that sends `audio_format` arrived or took over.

        Returns:
            Whether the format is new to listeners. Then a new epoch began, except at the first broadcaster, where the
            epoch has no frames yet.

        Raises:
            IllegalTransitionError: The channel ended.
        """
        self._enter(ChannelState.LIVE)
        if audio_format == self.audio_format:
            return False
        self.begin_epoch(audio_format)
        return True

    def begin_epoch(self, audio_format: AudioFormat) -> None:
        """Number what follows in another epoch. The first format of a channel has the epoch in which it waited."""
        before = self.place
        if self.audio_format is not None:
            first = (before.position // EPOCH_STRIDE + 1) * EPOCH_STRIDE
            self.place = Place(first, (before.epoch + 1) % _EPOCHS, 0, 0)
        self.audio_format = audio_format
        self.history.begin_epoch(audio_format, before, self.place)

    def mute(self, *, on: bool) -> bool:
        """Record that the broadcaster begins or stops sending silence on purpose.

        Returns:
            Whether this is a change.

        Raises:
            IllegalTransitionError: There is no broadcaster.
        """
        if self.state is not ChannelState.LIVE:
            raise IllegalTransitionError(f"A channel in state {self.state} has no broadcaster that could mute it.")
        before, self.silence = self.silence, Silence.MUTED if on else None
        return self.silence is not before

    def pause(self) -> None:
        """Record that the broadcaster left and announced its return.

        Raises:
            IllegalTransitionError: There is no broadcaster.
        """
        if self.state is not ChannelState.LIVE:
            raise IllegalTransitionError(f"A channel in state {self.state} has no broadcaster that could pause it.")
        self._enter(ChannelState.WAITING)
        self.silence = Silence.PAUSED

    def lose_broadcaster(self, now: float) -> None:
        """Record that the broadcaster was lost at `now` (seconds) without an `end`.

        Raises:
            IllegalTransitionError: There is no broadcaster.
        """
        self._enter(ChannelState.SOURCE_LOST)
        self._lost_at = now

    def give_up_broadcaster(self, now: float, grace_seconds: float) -> bool:
        """Return to waiting if the broadcaster was lost for longer than the grace period. Return whether it did."""
        if self.state is not ChannelState.SOURCE_LOST or now - self._lost_at < grace_seconds:
            return False
        self._enter(ChannelState.WAITING)
        return True

    def end(self) -> None:
        """Record that the session ended.

        Raises:
            IllegalTransitionError: It ended before.
        """
        self._enter(ChannelState.ENDED)

    def release(self, piece: Piece, due: float) -> Frame:
        """Number one frame of whole samples and serialize it, once for all listeners. `keep` is the next step.

        Args:
            piece: Audio in the channel's format.
            due: When it is due, in seconds of the relay's clock; not before the previous frame.

        Raises:
            IllegalTransitionError: The channel is not live, so it has no format to count by.
        """
        if self.state is not ChannelState.LIVE or self.audio_format is None:
            raise IllegalTransitionError(f"A channel in state {self.state} cannot release audio.")
        frame = number(piece, self.place, due, self._serialize)
        self.place = frame.end
        return frame

    def keep(self, frame: Frame) -> None:
        """Add a numbered frame to the history.

        `release` numbers frames in the relay that owns the channel. A frame numbered elsewhere is kept without
        `release`, and moves the channel's place here.
        """
        self.place = frame.end
        self.last_due = frame.timestamp
        self.over_at = frame.timestamp + frame.duration / FLICKS_PER_SECOND
        self.history.add(frame)

    def export(self) -> TimelineRecord:
        """Return its state and numbering as plain values, without the audio."""
        return TimelineRecord(
            self.state.value,
            None if self.silence is None else self.silence.value,
            self.place,
            None if self.over_at == -math.inf else self.over_at,
            self._lost_at,
            self.history.export_numbers(),
        )

    def restore(self, record: TimelineRecord) -> None:
        """Continue an exported timeline. Call it on a new timeline."""
        self.state = ChannelState(record.state)
        self.silence = None if record.silence is None else Silence(record.silence)
        self.place = Place(*record.place)
        self.over_at = -math.inf if record.over_at is None else record.over_at
        self._lost_at = record.lost_at
        self.history.restore_numbers(record.numbers)
        if self.history.epochs:
            self.audio_format = self.history.epochs[-1].audio_format

    def load(self, past: Sequence[Frame]) -> None:
        """Hold the latest frames of a restored timeline, up to its place. They are of its present epoch."""
        for frame in past:
            self.history.add(frame)
            self.place = frame.end

    def follow(self, state: ChannelState, silence: Silence | None) -> None:
        """Take over a state that the channel's home decided."""
        self.state, self.silence = state, silence

    def follow_format(self, audio_format: AudioFormat, place: Place) -> None:
        """Take over a format with which the channel's home began a new epoch at `place`."""
        self.history.begin_epoch(audio_format, self.place, place)
        self.audio_format, self.place = audio_format, place

    def clear(self) -> None:
        """Record that listeners drop what they have not played: the next frame is due when it arrives."""
        self.over_at = self.last_due = -math.inf
        self.history.clear()

    def _enter(self, state: ChannelState) -> None:
        if state not in _TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"A channel in state {self.state} cannot change to {state}.")
        self.state, self.silence = state, None
