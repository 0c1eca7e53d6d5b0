"""A channel's life and numbering: which state it is in, and which place each frame gets.

Invariants: sequence numbers and media time are consecutive within an epoch and never move otherwise; due times never
decrease but at a `clear`, which empties the history; an illegal transition raises and changes nothing; nothing here
reads a clock.

Source: docs/protocol.md, "Numbering and time" and "Life of a channel".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from relay.audio.history import History, NumbersRecord
from relay.protocol.wire import Header
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame, Piece, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.clock import wire_milliseconds
from relay.vocabulary.errors import RelayError

_EPOCHS = 1 << 16


class Farewell(StrEnum):
    """What a broadcaster said when it went.

    Attributes:
        NONE: Nothing; it may return.
        PAUSE: It means to come back.
        END: The session is over.
    """

    NONE = ""
    PAUSE = "pause"
    END = "end"


_TRANSITIONS: dict[ChannelState, frozenset[ChannelState]] = {
    ChannelState.WAITING: frozenset({ChannelState.LIVE, ChannelState.ENDED}),
    # From live to live: another broadcaster took over. From live to waiting: the broadcaster paused.
    ChannelState.LIVE: frozenset(
        {ChannelState.LIVE, ChannelState.WAITING, ChannelState.SOURCE_LOST, ChannelState.ENDED}
    ),
    ChannelState.SOURCE_LOST: frozenset({ChannelState.LIVE, ChannelState.WAITING, ChannelState.ENDED}),
    ChannelState.ENDED: frozenset(),
}


class IllegalTransitionError(RelayError):
    """A change of state that the life of a channel does not have; a fault of ours."""


@dataclass(frozen=True, slots=True)
class TimelineRecord:
    """What a channel's state and numbering are, as plain values; times are in seconds of the relay's clock.

    Attributes:
        state: A `ChannelState`.
        silence: A `Silence`; None when there is none.
        place: Where the next frame goes: the members of a `Place`.
        over_at: When the last frame is over; None when nothing is to be heard any more.
        lost_at: When the broadcaster vanished, in state `source_lost`.
        numbers: Which frames it can still name.
    """

    state: str
    silence: str | None
    place: tuple[int, ...]
    over_at: float | None
    lost_at: float
    numbers: NumbersRecord


class Timeline:
    """The state, the format and the numbering of one channel.

    Attributes:
        state: Where it is in its life.
        silence: Why there is nothing to hear; None when there is, or when nobody said.
        audio_format: Of the present epoch; None before the first broadcaster.
        place: Where the next frame goes.
        over_at: When the last frame is over, in seconds of the relay's clock: before that the next one is not due.
        history: What it released lately.
    """

    def __init__(self, first_epoch: int, serialize: Callable[[bytes], bytes], history_seconds: float = 10.0) -> None:
        """Make a channel that waits for its first broadcaster.

        Args:
            first_epoch: Random, so that listeners notice a relay that lost its state.
            serialize: Makes the complete WebSocket message of a binary payload, as a server writes it.
            history_seconds: How much audio is kept for those who return.
        """
        self.state = ChannelState.WAITING
        self.silence: Silence | None = None
        self.audio_format: AudioFormat | None = None
        self.place = Place(0, first_epoch % _EPOCHS, 0, 0)
        self.over_at = -math.inf
        self.history = History(history_seconds)
        self._serialize = serialize
        self._lost_at = 0.0

    def go_live(self, audio_format: AudioFormat) -> bool:
        """Note that a broadcaster came or took over, sending `audio_format`.

        Returns:
            Whether the format is not what listeners know: then a new epoch began (at the first broadcaster the
            epoch stays, since it has no frames yet).

        Raises:
            IllegalTransitionError: The channel ended.
        """
        self._enter(ChannelState.LIVE)
        if audio_format == self.audio_format:
            return False
        before = self.place
        if self.audio_format is not None:
            self.place = Place(before.position, (before.epoch + 1) % _EPOCHS, 0, 0)
        self.audio_format = audio_format
        self.history.begin_epoch(audio_format, before, self.place)
        return True

    def mute(self, *, on: bool) -> bool:
        """Note that the broadcaster sends silence on purpose, or no longer does.

        Returns:
            Whether that is new.

        Raises:
            IllegalTransitionError: There is no broadcaster.
        """
        if self.state is not ChannelState.LIVE:
            raise IllegalTransitionError(f"A channel that is {self.state} has nobody who could mute it.")
        before, self.silence = self.silence, Silence.MUTED if on else None
        return self.silence is not before

    def pause(self) -> None:
        """Note that the broadcaster left and means to come back.

        Raises:
            IllegalTransitionError: There is no broadcaster.
        """
        if self.state is not ChannelState.LIVE:
            raise IllegalTransitionError(f"A channel that is {self.state} has nobody who could pause it.")
        self._enter(ChannelState.WAITING)
        self.silence = Silence.PAUSED

    def lose_broadcaster(self, now: float) -> None:
        """Note at `now` (seconds) that the broadcaster vanished without an `end`.

        Raises:
            IllegalTransitionError: There is no broadcaster.
        """
        self._enter(ChannelState.SOURCE_LOST)
        self._lost_at = now

    def give_up_broadcaster(self, now: float, grace_seconds: float) -> bool:
        """Go back to waiting when the broadcaster has been lost for longer than the grace; tell whether it did."""
        if self.state is not ChannelState.SOURCE_LOST or now - self._lost_at < grace_seconds:
            return False
        self._enter(ChannelState.WAITING)
        return True

    def end(self) -> None:
        """Note that the session ended.

        Raises:
            IllegalTransitionError: It ended before.
        """
        self._enter(ChannelState.ENDED)

    def release(self, piece: Piece, due: float) -> Frame:
        """Number one frame of whole samples and serialize it, once for all listeners; `keep` is the next step.

        Args:
            piece: Audio in the channel's format.
            due: When it is due, in seconds of the relay's clock; not before the frame before it.

        Raises:
            IllegalTransitionError: The channel is not live, so it has no format to count by.
        """
        if self.state is not ChannelState.LIVE or self.audio_format is None:
            raise IllegalTransitionError(f"A channel that is {self.state} releases no audio.")
        start = self.place
        header = Header(start.epoch, start.seq, start.media_time, wire_milliseconds(due))
        self.place = Place(
            start.position + 1,
            start.epoch,
            start.seq + 1,
            start.media_time + piece.ticks,
        )
        return Frame(
            piece.audio,
            due,
            piece.flicks,
            start=start,
            end=self.place,
            wire=self._serialize(header.pack() + piece.audio),
        )

    def keep(self, frame: Frame) -> None:
        """Take a numbered frame into the history.

        `release` numbers frames where the channel has its home. A frame that was numbered elsewhere is kept without it,
        and then the channel's place moves here.
        """
        self.place = frame.end
        self.over_at = frame.timestamp + frame.duration / FLICKS_PER_SECOND
        self.history.add(frame)

    def export(self) -> TimelineRecord:
        """Give all but the audio as plain values."""
        return TimelineRecord(
            self.state.value,
            None if self.silence is None else self.silence.value,
            self.place,
            None if self.over_at == -math.inf else self.over_at,
            self._lost_at,
            self.history.export_numbers(),
        )

    def restore(self, record: TimelineRecord) -> None:
        """Go on where another one was when it was exported; to be called on a new one."""
        self.state = ChannelState(record.state)
        self.silence = None if record.silence is None else Silence(record.silence)
        self.place = Place(*record.place)
        self.over_at = -math.inf if record.over_at is None else record.over_at
        self._lost_at = record.lost_at
        self.history.restore_numbers(record.numbers)
        if self.history.epochs:
            self.audio_format = self.history.epochs[-1].audio_format

    def clear(self) -> None:
        """Note that listeners throw away what they have not played: the next frame is due when it comes."""
        self.over_at = -math.inf
        self.history.clear()

    def _enter(self, state: ChannelState) -> None:
        if state not in _TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"A channel that is {self.state} can not become {state}.")
        self.state, self.silence = state, None
