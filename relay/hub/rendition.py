"""Renditions: how the audio of a channel becomes audio of another codec.

A channel has one source format. Each codec that listeners get is a rendition of it, which is made once for all of them.
Where its frames begin follows from the source's places alone, so every process that carries the same channel numbers
them alike.

Source: docs/protocol.md, "Renditions".
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from relay.vocabulary.audio import AudioFormat, Codec, Frame, Place


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame that a transcoder made.

    Attributes:
        audio: Its coded audio.
        seq: Its number in the epoch.
        media_time: The media time of its first sample, in ticks of the clock of what the transcoder makes.
        ticks: Its duration, in the same ticks.
        due: When it is due, in seconds of the relay's clock.
    """

    audio: bytes
    seq: int
    media_time: int
    ticks: int
    due: float


class Transcoder(Protocol):
    """Turns consecutive frames of one epoch into frames of another codec. It may work in a thread, one at a time."""

    def take(self, frame: Frame) -> list[Encoded]:
        """Return the frames that are complete with this one."""
        ...

    def finish(self) -> list[Encoded]:
        """Return the rest, padded with silence, because the audio stops. It may go on afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class Rendition:
    """How a stream is made of audio in one format.

    Attributes:
        source: The format of the audio that it is made of.
        audio_format: The format of the result.
        frame_ticks: The duration of each frame, if frames stand on a grid that begins with the epoch; in ticks of the
            result's clock. None if each frame is made of one frame of the source.
        delay_ticks: How much earlier than its place on the grid the media time of a frame is.
        warm_up_frames: How many frames before the first one an encoder gets, so that the first one sounds right.
        make: Creates a transcoder. None if the source's frames are passed on as they are.
    """

    source: AudioFormat
    audio_format: AudioFormat
    frame_ticks: int | None = None
    delay_ticks: int = 0
    warm_up_frames: int = 0
    make: Callable[[], Transcoder] | None = None

    def place(self, source: Place) -> Place:
        """Return the place of the first frame that begins at a place of the source or after it."""
        if self.make is None:
            return source
        ticks = source.media_time * self.audio_format.clock_rate
        if self.frame_ticks is None:
            return source._replace(media_time=ticks // self.source.clock_rate)
        seq = -(-ticks // (self.source.clock_rate * self.frame_ticks))
        first = source.position - source.seq
        return Place(first + seq, source.epoch, seq, seq * self.frame_ticks - self.delay_ticks)

    def stretches(
        self, start: Place, end: Place, source: Iterable[tuple[Place, Place, int]]
    ) -> Iterator[tuple[Place, Place, int]]:
        """Yield stretches of equal frames of an epoch: start, end, and ticks of a frame.

        Args:
            start: The first place of the epoch in this rendition.
            end: Its last place.
            source: The stretches of the source, in its places and ticks.
        """
        if self.frame_ticks is not None:
            yield start, end, self.frame_ticks
            return
        clock_rate, source_rate = self.audio_format.clock_rate, self.source.clock_rate
        for first, last, ticks in source:
            yield self.place(first), self.place(last), ticks * clock_rate // source_rate


class Renditions(Protocol):
    """The renditions that this relay can make."""

    def find(self, source: AudioFormat, wanted: Codec) -> Rendition | None:
        """Return how audio of a format becomes audio of a codec. None if the relay cannot do it."""
        ...


class NoRenditions:
    """The renditions of a relay that passes audio on as it is."""

    def find(self, source: AudioFormat, wanted: Codec) -> Rendition | None:
        """Return the source's own audio, or None."""
        return as_it_is(source) if wanted is source.codec else None


def as_it_is(source: AudioFormat) -> Rendition:
    """Return the rendition that passes the source's frames on."""
    return Rendition(source, source)
