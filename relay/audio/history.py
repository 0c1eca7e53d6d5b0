"""The recently released audio of a channel, for listeners that return or that request audio from before they joined.

Invariants: Frames are held in the order of their release. Cleared and outdated audio is not held. A number is known or
unknown, never guessed.

Bound: `seconds` of audio, as many frames as such audio has at most (`frames_within`), the numbers of the frames held
and of at least `MAX_STRETCHES` stretches, and those of `MAX_EPOCHS` epochs. Drops: the oldest; a listener that requests
it receives one gap message.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from relay.protocol.wire import WORD_MASK, serial_difference
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Codec, Frame, Place, frames_within

MAX_STRETCHES = 256
"""Remembered changes of frame length, besides those of the frames held. They give the duration of older frames."""

MAX_EXPORTED_STRETCHES = 4 * MAX_STRETCHES
"""The most stretches in a record: 10 s of 10 ms frames that all differ, as 60 kB of JSON."""

MAX_EPOCHS = 32
"""Remembered changes of format."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A run of consecutive numbers.

    Attributes:
        audio_format: The format of all its frames.
        before: The end of the previous epoch; in the first epoch its own start.
        start: The place of its first frame.
    """

    audio_format: AudioFormat
    before: Place
    start: Place


@dataclass(frozen=True, slots=True)
class Known:
    """A place that the history knows, and its epoch."""

    place: Place
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Consecutive frames of one length. The place of the first gives the places of all.

    Attributes:
        epoch: Their epoch.
        start: The place of the first.
        ticks: The duration of each, in the format's clock rate.
    """

    epoch: Epoch
    start: Place
    ticks: int

    def place(self, count: int) -> Place:
        """Return the place after its first `count` frames."""
        start = self.start
        return Place(start.position + count, start.epoch, start.seq + count, start.media_time + count * self.ticks)


@dataclass(frozen=True, slots=True)
class NumbersRecord:
    """The numbers that a history knows, as plain values.

    Attributes:
        epochs: For each epoch: codec, rate, channels, and the places `before` and `start` of `Epoch`.
        stretches: For each stretch: the index of its epoch, the place of its first frame, and the ticks of a frame.
    """

    epochs: tuple[tuple[str, int, int, tuple[int, ...], tuple[int, ...]], ...] = ()
    stretches: tuple[tuple[int, tuple[int, ...], int], ...] = ()


class History:
    """The latest frames of one channel, and the numbers of earlier ones.

    Args:
        seconds: How much audio it holds, in at most `frames_within` frames.

    Attributes:
        frames: The frames held, oldest first.
        epochs: The latest epochs, oldest first; the last is the present one.
    """

    def __init__(self, seconds: float) -> None:
        self.frames: deque[Frame] = deque()
        self.epochs: deque[Epoch] = deque(maxlen=MAX_EPOCHS)
        self._max_flicks = round(seconds * FLICKS_PER_SECOND)
        self._max_frames = frames_within(seconds)
        self._held_flicks = 0
        self._held_bytes = 0
        self._stretches: deque[_Stretch] = deque()
        self._end_position = -1

    def begin_epoch(self, audio_format: AudioFormat, before: Place, start: Place) -> None:
        """Begin a new numbering with the frames from `start` on. The previous numbers end at `before`."""
        self.epochs.append(Epoch(audio_format, before, start))

    def add(self, frame: Frame) -> None:
        """Add the next frame of the present epoch. Its numbers replace what was known from there on."""
        ticks = frame.end.media_time - frame.start.media_time
        epoch, stretches = self.epochs[-1], self._stretches
        is_next = frame.start.position == self._end_position
        if not is_next:
            while stretches and stretches[-1].start.position >= frame.start.position:
                stretches.pop()
        if not is_next or not stretches or stretches[-1].ticks != ticks or stretches[-1].epoch is not epoch:
            stretches.append(_Stretch(epoch, frame.start, ticks))
            if len(stretches) > MAX_STRETCHES:
                self._forget_stretches()
        self._end_position = frame.end.position
        self._hold(frame)

    def _forget_stretches(self) -> None:
        """Forget the oldest stretches of which it holds no frames."""
        stretches, oldest = self._stretches, self.frames[0].start.position if self.frames else 0
        while len(stretches) > MAX_STRETCHES and stretches[1].start.position <= oldest:
            stretches.popleft()

    def _hold(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._held_flicks += frame.duration
        self._held_bytes += len(frame.wire) + len(frame.audio)
        while self._held_flicks > self._max_flicks or len(self.frames) > self._max_frames:
            oldest = self.frames.popleft()
            self._held_flicks -= oldest.duration
            self._held_bytes -= len(oldest.wire) + len(oldest.audio)

    def clear(self) -> None:
        """Drop the audio. Its numbers stay known."""
        self.frames.clear()
        self._held_flicks = self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the frames held: their audio, and the same audio as it is written."""
        return self._held_bytes

    def since(self, position: int) -> list[Frame]:
        """Return the frames held from `position` on, oldest first."""
        return list(islice(self.frames, bisect_left(self.frames, position, key=_position), None))

    def since_due(self, oldest: float) -> list[Frame]:
        """Return the frames held that are due at `oldest` (seconds of the relay's clock) or later, oldest first."""
        # Due times decrease only at a `clear`, which empties the history.
        return list(islice(self.frames, bisect_left(self.frames, oldest, key=_due), None))

    def find(self, epoch: int, seq: int, end: Place) -> Known | None:
        """Return the place of the frame that a client names as `seq` of `epoch`.

        Args:
            epoch: As the wire writes it, 16 bits.
            seq: As the wire writes it, 32 bits. The number after the last frame of an epoch also has a place.
            end: The place of the channel's next frame.

        Returns:
            None if the frame belongs to another numbering, is not released yet, or is forgotten.
        """
        if self.epochs and (epoch, seq) == (end.epoch, end.seq & WORD_MASK):
            return Known(end, self.epochs[-1])
        for ended, following in pairwise(self.epochs):
            if (epoch, seq) == (following.before.epoch, following.before.seq & WORD_MASK):
                return Known(following.before, ended)
        for stretch, stretch_end in self._stretches_and_ends(end):
            if stretch.start.epoch == epoch:
                count = stretch_end.position - stretch.start.position
                last = stretch.start.seq + count
                behind = serial_difference(last, seq)
                if behind < 0:
                    return None
                if behind <= count:
                    known = stretch.epoch in self.epochs
                    return Known(stretch.place(count - behind), stretch.epoch) if known else None
        # If the first frames of an epoch are lost, no stretch begins with it.
        begins = (each for each in self.epochs if (epoch, seq) == (each.start.epoch, each.start.seq & WORD_MASK))
        return next((Known(each.start, each) for each in begins), None)

    def find_moment(self, epoch: int, seconds: float, end: Place) -> Known | None:
        """Return the place of the frame that holds a media time of an epoch, or of the first one after it.

        Args:
            epoch: As the wire writes it, 16 bits.
            seconds: The media time.
            end: The place of the next frame.

        Returns:
            None if the epoch is forgotten.
        """
        known = None
        for stretch, stretch_end in self._stretches_and_ends(end):
            if stretch.start.epoch != epoch:
                if known is not None:
                    break
                continue
            ticks = seconds * stretch.epoch.audio_format.clock_rate - stretch.start.media_time
            count = stretch_end.position - stretch.start.position
            known = Known(stretch.place(min(max(0, int(ticks // stretch.ticks)), count)), stretch.epoch)
            if ticks >= 0:
                break
        if known is None and self.epochs and end.epoch == epoch:
            return Known(end, self.epochs[-1])
        return known if known is None or known.epoch in self.epochs else None

    def _stretches_and_ends(self, end: Place) -> Iterator[tuple[_Stretch, Place]]:
        """Iterate over the stretches, latest first, each with the place after its last frame."""
        ends = {id(ended): following.before for ended, following in pairwise(self.epochs)}
        following: _Stretch | None = None
        for stretch in reversed(self._stretches):
            if following is not None and following.epoch is stretch.epoch:
                yield stretch, following.start
            else:
                yield stretch, ends.get(id(stretch.epoch), end)
            following = stretch

    def know(self, start: Place, end: Place, ticks: int) -> None:
        """Know the numbers of frames of the present epoch that it never held: `ticks` each, between two places."""
        if start.position != end.position:
            self._stretches.append(_Stretch(self.epochs[-1], start, ticks))
            self._end_position = end.position

    def know_hole(self, start: Place, end: Place) -> None:
        """Know the numbers of frames that are lost, between two places of the present epoch.

        Nobody knows how long each was. They count as long as the frames before them, or as equally long at the
        beginning of an epoch.
        """
        ticks = (end.media_time - start.media_time) // max(1, end.position - start.position)
        if ticks > 0 and self.epochs and start == self.epochs[-1].start:
            self.know(start, end, ticks)

    def stretches(self, end: Place) -> list[tuple[Epoch, Place, Place, int]]:
        """Return the known stretches of equal frames, oldest first: epoch, start, end, and ticks of a frame.

        `end` is the place of the next frame.
        """
        found = [(each.epoch, each.start, last, each.ticks) for each, last in self._stretches_and_ends(end)]
        return [each for each in reversed(found) if each[0] in self.epochs]

    def export_numbers(self) -> NumbersRecord:
        """Return the numbers as plain values, without the audio."""
        epochs = list(self.epochs)
        stretches = [each for each in self._stretches if each.epoch in epochs][-MAX_EXPORTED_STRETCHES:]
        return NumbersRecord(
            tuple(
                (
                    each.audio_format.codec.value,
                    each.audio_format.rate,
                    each.audio_format.channels,
                    each.before,
                    each.start,
                )
                for each in epochs
            ),
            tuple((epochs.index(each.epoch), each.start, each.ticks) for each in stretches),
        )

    def restore_numbers(self, record: NumbersRecord) -> None:
        """Add the numbers of a record. Call it before the first frame is added."""
        for codec, rate, channels, before, start in record.epochs:
            self.begin_epoch(AudioFormat(Codec(codec), rate, channels), Place(*before), Place(*start))
        self._stretches.extend(
            _Stretch(self.epochs[index], Place(*start), ticks) for index, start, ticks in record.stretches
        )

    def forget_epochs_after(self, epoch: Epoch) -> None:
        """Forget all epochs that followed one of `epochs`."""
        while self.epochs[-1] is not epoch:
            self.epochs.pop()
        while self._stretches and self._stretches[-1].epoch not in self.epochs:
            self._stretches.pop()

    def epochs_after(self, epoch: Epoch) -> list[Epoch]:
        """Return the epochs that followed one of `epochs`, oldest first."""
        epochs = list(self.epochs)
        return epochs[epochs.index(epoch) + 1 :]


def _position(frame: Frame) -> int:
    return frame.start.position


def _due(frame: Frame) -> float:
    return frame.timestamp
