"""Renditions: how the audio of a channel becomes audio of another codec.

A channel has one source format. Each codec that listeners get is a rendition of it, which is made once for all of them.
Where its frames begin follows from the source's places alone, so every process that carries the same channel numbers
them alike. To offer another codec, make `Renditions` find it.

Source: docs/protocol.md, "Renditions".
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from relay.media.opus_grid import OpusGrid
from relay.media.transcoding import OpusEncoding, Transcoder, make_transcoder
from relay.vocabulary.audio import AudioFormat, Codec, Place
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import UserError

Kind = Codec | Container
"""What the listeners of a stream get: messages in a codec, or a programme in a container, which is no rendition."""

WARM_UP_FRAMES = 4
"""How many frames before its first one a transcoder gets, if there are any. Opus needs 80 ms to sound right
(RFC 7845, section 4.6)."""


class Grid(Protocol):
    """Frames of one length that begin with an epoch, whatever the length of the source's frames."""

    @property
    def frame_ticks(self) -> int:
        """The duration of a frame, in ticks of the rendition's clock."""
        ...

    def first_from(self, sample: int) -> int:
        """Return the first frame that begins at a sample of the source or after it."""
        ...

    def last_before(self, sample: int) -> int:
        """Return the last frame that is needed to hear everything before a sample of the source."""
        ...

    def media_time(self, number: int) -> int:
        """Return the media time of a frame, in ticks of the rendition's clock."""
        ...


@dataclass(frozen=True, slots=True)
class Rendition:
    """How a stream is made of audio in one format.

    Attributes:
        source: The format of the audio that it is made of.
        audio_format: The format of the result.
        make: Creates a transcoder. None if the source's frames are passed on as they are.
        grid: The grid of its frames. None if each is made of one frame of the source.
        warm_up_frames: How many frames before its first one its transcoder gets.
    """

    source: AudioFormat
    audio_format: AudioFormat
    make: Callable[[], Transcoder] | None = None
    grid: Grid | None = None
    warm_up_frames: int = 0

    def place(self, source: Place) -> Place:
        """Return the place of the first frame that begins at a place of the source or after it."""
        return source if self.make is None else self._place(source, None)

    def end(self, source: Place) -> Place:
        """Return the place after the last frame, if the source's audio stops at a place."""
        if self.grid is None or not source.media_time:
            return self.place(source)
        return self._place(source, self.grid.last_before(source.media_time) + 1)

    def _place(self, source: Place, seq: int | None) -> Place:
        if self.grid is None:
            media_time = source.media_time * self.audio_format.clock_rate // self.source.clock_rate
            return source._replace(media_time=media_time)
        if seq is None:
            seq = self.grid.first_from(source.media_time)
        return Place(source.position - source.seq + seq, source.epoch, seq, self.grid.media_time(seq))

    def stretches(
        self, start: Place, end: Place, source: Iterable[tuple[Place, Place, int]]
    ) -> Iterator[tuple[Place, Place, int]]:
        """Yield stretches of equal frames of an epoch: start, end, and ticks of a frame.

        Args:
            start: The first place of the epoch in this rendition.
            end: Its last place.
            source: The stretches of the source, in its places and ticks.
        """
        if self.grid is not None:
            yield start, end, self.grid.frame_ticks
            return
        clock_rate, source_rate = self.audio_format.clock_rate, self.source.clock_rate
        for first, last, ticks in source:
            yield self.place(first), self.place(last), ticks * clock_rate // source_rate


class Renditions(Protocol):
    """The renditions that this relay can make."""

    def find(self, source: AudioFormat, wanted: Kind) -> Rendition | None:
        """Return how audio of a format becomes audio of a codec. None if the relay cannot do it."""
        ...


class NoRenditions:
    """The renditions of a relay that passes audio on as it is."""

    def find(self, source: AudioFormat, wanted: Kind) -> Rendition | None:
        """Return the source's own audio, or None."""
        return as_it_is(source) if wanted is source.codec else None


class OpusRenditions:
    """Opus of PCM, and PCM of Opus, as far as the libraries on this machine allow.

    Args:
        encoding: How PCM is encoded. None to make no Opus.
    """

    def __init__(self, encoding: OpusEncoding | None) -> None:
        self._encoding = encoding
        self._found: dict[tuple[AudioFormat, Kind], Rendition | None] = {}

    def find(self, source: AudioFormat, wanted: Kind) -> Rendition | None:
        """Return the rendition. None if Opus is not offered, or a library is missing."""
        key = (source, wanted)
        if key not in self._found:
            try:
                self._found[key] = self.make(source, wanted) if isinstance(wanted, Codec) else None
            except UserError:
                self._found[key] = None
        return self._found[key]

    def make(self, source: AudioFormat, wanted: Codec) -> Rendition | None:
        """Return the rendition. None if Opus is not offered.

        Raises:
            UserError: A library is missing. The text says how to get it.
        """
        if wanted is source.codec:
            return as_it_is(source)
        if wanted is Codec.PCM_S16LE:
            make = partial(make_transcoder, source, wanted, OpusEncoding())
            return Rendition(source, make().audio_format, make, warm_up_frames=WARM_UP_FRAMES)
        if self._encoding is None:
            return None
        make = partial(make_transcoder, source, wanted, self._encoding)
        grid = OpusGrid(source.rate, self._encoding.frame_ms)
        return Rendition(source, make().audio_format, make, grid, WARM_UP_FRAMES)


def as_it_is(source: AudioFormat) -> Rendition:
    """Return the rendition that passes the source's frames on."""
    return Rendition(source, source)
