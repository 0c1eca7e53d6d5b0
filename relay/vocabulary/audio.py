"""What audio is made of: formats, chunks and frames.

Invariants: durations are whole numbers of flicks, so sums of them are exact in every supported format; a chunk
never changes after it is made, so any number of listeners can share it.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

FLICKS_PER_SECOND = 705_600_000
"""The unit of durations. A flick divides a sample of every supported rate, see github.com/facebookarchive/Flicks."""

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates in Hz that a channel may have."""

CHANNEL_COUNTS = (1, 2)
"""Mono and stereo."""

BYTES_PER_SAMPLE = 2
"""Bytes of one 16-bit sample of one channel."""

FRAMES_PER_SECOND = 400
"""What is bounded in seconds of audio holds so many frames for each of them: frames of 2.5 ms, the shortest that codecs
make. A frame may be one sample, and each costs some hundred bytes and a look of whoever goes through them."""


def frames_within(seconds: float) -> int:
    """Give how many frames may be held where `seconds` of audio may be."""
    return math.ceil(seconds * FRAMES_PER_SECOND)


class Codec(StrEnum):
    """How the bytes of a channel's audio are coded."""

    PCM_S16LE = "pcm_s16le"
    """Signed 16-bit little-endian samples, the channels interleaved."""


class Pace(StrEnum):
    """What a broadcaster produces: lateness and lead are different things, and only it knows which it has."""

    LIVE = "live"
    """A microphone: audio that comes late is late, and is passed on at once."""

    SPEECH = "speech"
    """Synthesis: audio that comes early is early, and must not be skipped."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of a channel's audio.

    Attributes:
        codec: How the bytes are coded.
        rate: Samples a second of one channel, one of `SAMPLE_RATES`.
        channels: 1 or 2.
    """

    codec: Codec = Codec.PCM_S16LE
    rate: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        """Refuse what no part of the relay can carry.

        Raises:
            ValueError: The rate or the number of channels is not supported; the text says what is.
        """
        if self.rate not in SAMPLE_RATES:
            raise ValueError(f"rate must be one of {', '.join(map(str, SAMPLE_RATES))}, not {self.rate}")
        if self.channels not in CHANNEL_COUNTS:
            raise ValueError(f"channels must be 1 or 2, not {self.channels}")

    def __str__(self) -> str:
        """Name it in a few words."""
        return f"{self.rate} Hz, {'mono' if self.channels == 1 else 'stereo'}"

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels (WAV calls it block align)."""
        return BYTES_PER_SAMPLE * self.channels

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second of audio."""
        return self.sample_bytes * self.rate

    @property
    def clock_rate(self) -> int:
        """Ticks a second of the media time on the wire; for PCM a tick is a sample."""
        return self.rate

    def measure(self, audio: bytes) -> "Piece":
        """Measure coded audio, once, where it comes in: everything after this takes the duration from the piece."""
        ticks = len(audio) // self.sample_bytes
        return Piece(audio, ticks, ticks * FLICKS_PER_SECOND // self.clock_rate)

    def silence(self, piece: "Piece") -> "Piece":
        """Give silence that lasts as long as a piece."""
        return piece._replace(audio=bytes(len(piece.audio)))

    def bytes_within(self, seconds: float) -> int:
        """Give the most bytes that audio of this duration has, in whole samples."""
        return int(seconds * self.rate) * self.sample_bytes

    def flicks(self, byte_count: int) -> int:
        """Give the duration of plain audio, in flicks; it is rounded down when the bytes are not whole samples."""
        return byte_count * FLICKS_PER_SECOND // self.bytes_per_second


class Piece(NamedTuple):
    """Audio of one frame on its way to a channel, with its duration, which the bytes need not tell.

    Attributes:
        audio: The coded audio.
        ticks: How long it lasts, in ticks of its format's clock: media time and `accepted` count these.
        flicks: The same in flicks, which bounds and schedules count, whatever the format.
    """

    audio: bytes
    ticks: int
    flicks: int

    @property
    def seconds(self) -> float:
        """How long it lasts, in seconds."""
        return self.flicks / FLICKS_PER_SECOND


class Chunk(tuple[bytes, float]):  # noqa: SLOT001 - a tuple can have no slots of its own beside its length
    """Audio in a buffer: the pair `(audio, timestamp)`, which also knows how long it lasts.

    It is a tuple of two, because that is what the buffers of `AudioBufferManager` hold by contract; the
    duration is an attribute beside it, since a codec's bytes need not say anything about time.

    Attributes:
        duration: How long it lasts, in flicks.
    """

    duration: int

    def __new__(cls, audio: bytes, timestamp: float, duration: int) -> Self:
        """Make the pair; `timestamp` is in seconds of the relay's clock, `duration` in flicks."""
        self = super().__new__(cls, (audio, timestamp))
        self.duration = duration
        return self

    @property
    def audio(self) -> bytes:
        """The coded audio, without any header."""
        return self[0]

    @property
    def timestamp(self) -> float:
        """When the audio came or is due, in seconds of the relay's clock."""
        return self[1]


class Place(NamedTuple):
    """A place in a channel, between two frames.

    Attributes:
        position: How many frames the channel released before it, over all epochs; it never wraps.
        epoch: The run of sequence numbers, 16 bits.
        seq: The number of the frame that follows, within the epoch; the wire writes 32 bits of it.
        media_time: Ticks of the format's clock released in the epoch before it; the wire writes 32 bits of it.
    """

    position: int
    epoch: int
    seq: int
    media_time: int


class Frame(Chunk):
    """A chunk with its place in a channel, serialized once for all listeners. Its timestamp is its due time.

    Attributes:
        start: The place before it: its epoch, its seq, its media time.
        end: The place after it; the next frame's `start` is this same object, unless a new epoch begins.
        wire: The complete WebSocket message of `relay.v1`, header and audio, as a server writes it.
    """

    start: Place
    end: Place
    wire: bytes

    def __new__(cls, audio: bytes, timestamp: float, duration: int, *, start: Place, end: Place, wire: bytes) -> Self:
        """Make the frame; the arguments are the attributes."""
        self = super().__new__(cls, audio, timestamp, duration)
        self.start = start
        self.end = end
        self.wire = wire
        return self
