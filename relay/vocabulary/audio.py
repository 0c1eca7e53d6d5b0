"""Audio formats, chunks and frames.

Invariants: durations are whole numbers of flicks, so sums are exact in every supported format. A chunk never changes,
so any number of listeners can share it.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from relay.vocabulary import opus_packet

FLICKS_PER_SECOND = 705_600_000
"""The unit of durations. A flick divides a sample of every supported rate; see github.com/facebookarchive/Flicks."""

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Supported sample rates in Hz."""

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""Sample rates in Hz to which an Opus packet can be decoded (RFC 6716, section 2)."""

CHANNEL_COUNTS = (1, 2)
"""Mono and stereo."""

BYTES_PER_SAMPLE = 2
"""Bytes of one 16-bit sample of one channel."""

OPUS_BYTES_PER_SECOND = 8_000
"""Bytes of one second of a usual Opus stream, 64 kb/s. Speech needs less, and nothing that is heard needs much more."""

MAX_OPUS_BYTES_PER_SECOND = 64_000
"""The most bytes of one second of Opus: a frame of 20 ms has at most 1275 bytes (RFC 6716, section 3.4), and a little
is left for the heads of packets."""

FRAMES_PER_SECOND = 400
"""A buffer that is bounded in seconds holds at most this many frames for each second. The figure is for frames of
2.5 ms, the shortest that codecs produce. Without this bound, a buffer could fill with one-sample frames, each of
which costs some hundred bytes and a step of every loop over the buffer."""


def frames_within(seconds: float) -> int:
    """Return the maximum number of frames in a buffer that is bounded to `seconds` of audio."""
    return math.ceil(seconds * FRAMES_PER_SECOND)


class Codec(StrEnum):
    """How the bytes of a channel's audio are encoded."""

    PCM_S16LE = "pcm_s16le"
    """Signed 16-bit little-endian samples, with interleaved channels."""

    OPUS = "opus"
    """Opus packets (RFC 6716), one in each frame."""

    @property
    def rates(self) -> tuple[int, ...]:
        """Sample rates in Hz that a format with this codec may have."""
        return SAMPLE_RATES if self is Codec.PCM_S16LE else OPUS_RATES

    @property
    def default_rate(self) -> int:
        """The sample rate of a broadcaster that names only its codec."""
        return 16_000 if self is Codec.PCM_S16LE else opus_packet.CLOCK_RATE


class Pace(StrEnum):
    """How a broadcaster produces audio. Only the broadcaster knows whether its audio can come late or early."""

    LIVE = "live"
    """A microphone. Audio that arrives late is late, so the relay passes it on at once."""

    SPEECH = "speech"
    """Speech synthesis. Audio arrives early, and none of it may be skipped."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of a channel's audio.

    Attributes:
        codec: How the bytes are coded.
        rate: Samples a second of one channel, one of `codec.rates`. An Opus stream has none of its own; for Opus, this
            is the rate to which the relay decodes it for listeners of PCM.
        channels: 1 or 2.
    """

    codec: Codec = Codec.PCM_S16LE
    rate: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        """Check that the relay supports the format.

        Raises:
            ValueError: The relay does not support the rate or the number of channels. The text says what it supports.
        """
        if self.rate not in self.codec.rates:
            of_codec = "" if self.codec is Codec.PCM_S16LE else f" for {self.codec}"
            raise ValueError(f"rate must be one of {', '.join(map(str, self.codec.rates))}{of_codec}, not {self.rate}")
        if self.channels not in CHANNEL_COUNTS:
            raise ValueError(f"channels must be 1 or 2, not {self.channels}")

    def __str__(self) -> str:
        kind = "" if self.codec is Codec.PCM_S16LE else "Opus, "
        return f"{kind}{self.rate} Hz, {'mono' if self.channels == 1 else 'stereo'}"

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels, as PCM. WAV calls this block align."""
        return BYTES_PER_SAMPLE * self.channels

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second of audio: exact for PCM, usual for Opus."""
        return self.sample_bytes * self.rate if self.codec is Codec.PCM_S16LE else OPUS_BYTES_PER_SECOND

    @property
    def clock_rate(self) -> int:
        """Ticks per second of the media time on the wire. A tick of PCM is a sample; Opus counts 48 000 at any rate."""
        return self.rate if self.codec is Codec.PCM_S16LE else opus_packet.CLOCK_RATE

    def measure(self, audio: bytes) -> "Piece":
        """Return the audio with its duration, measured once on arrival; later code reads it from the piece.

        Raises:
            AudioFaultError: The codec is Opus, and the audio is not one well-formed packet.
        """
        ticks = len(audio) // self.sample_bytes if self.codec is Codec.PCM_S16LE else opus_packet.measure(audio)
        return Piece(audio, ticks, ticks * FLICKS_PER_SECOND // self.clock_rate)

    def silence(self, piece: "Piece") -> "Piece":
        """Return silence as long as `piece`."""
        if self.codec is Codec.PCM_S16LE:
            return piece._replace(audio=bytes(len(piece.audio)))
        return piece._replace(audio=opus_packet.silence(piece.ticks, self.channels))

    def bytes_within(self, seconds: float) -> int:
        """Return the most bytes that `seconds` of audio have. For PCM, they are exact, and rounded to whole samples."""
        if self.codec is Codec.PCM_S16LE:
            return int(seconds * self.rate) * self.sample_bytes
        return int(seconds * MAX_OPUS_BYTES_PER_SECOND)

    def flicks(self, byte_count: int) -> int:
        """Return the duration of `byte_count` bytes in flicks, rounded down. Only the bytes of PCM say it."""
        return byte_count * FLICKS_PER_SECOND // (self.sample_bytes * self.rate)


class Piece(NamedTuple):
    """The audio of one frame on its way to a channel. It carries its duration, which the bytes alone need not reveal.

    Attributes:
        audio: The encoded audio.
        ticks: Duration in ticks of the format's clock. Media time and `accepted` count ticks.
        flicks: Duration in flicks. Bounds and schedules count flicks, whatever the format.
    """

    audio: bytes
    ticks: int
    flicks: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.flicks / FLICKS_PER_SECOND


class Chunk(tuple[bytes, float]):  # noqa: SLOT001 - a subclass of tuple cannot have slots
    """Audio in a buffer: the pair `(audio, timestamp)`, with its duration as an attribute.

    It is a pair because the public contract of `AudioBufferManager` says so. The duration is a separate attribute
    because encoded bytes need not reveal it.

    Attributes:
        duration: Duration in flicks.
    """

    duration: int

    def __new__(cls, audio: bytes, timestamp: float, duration: int) -> Self:
        """Create the pair; `timestamp` is in seconds of the relay's clock, `duration` in flicks."""
        self = super().__new__(cls, (audio, timestamp))
        self.duration = duration
        return self

    @property
    def audio(self) -> bytes:
        """The encoded audio, without any header."""
        return self[0]

    @property
    def timestamp(self) -> float:
        """When the audio arrived or is due, in seconds of the relay's clock."""
        return self[1]


EPOCH_STRIDE = 1 << 40
"""The distance of the positions of two epochs: more than any epoch has frames."""


class Place(NamedTuple):
    """A place in a channel, between two frames.

    Attributes:
        position: Orders all places of a channel, and never wraps. It grows by one with each frame. A new epoch begins
            at the next multiple of `EPOCH_STRIDE`, so position and seq differ by the same number in every stream.
        epoch: The current run of sequence numbers, 16 bits.
        seq: The number of the next frame within the epoch. The wire carries 32 bits.
        media_time: Ticks of the format's clock that the epoch released before this place. The wire carries 32 bits.
    """

    position: int
    epoch: int
    seq: int
    media_time: int


class Frame(Chunk):
    """A chunk with its place in a channel, serialized once for all listeners.

    Its age counts from its timestamp, which is its due time. It is later only if the audio came late from another node.

    Attributes:
        start: The place before the frame; it has the frame's epoch, seq and media time.
        end: The place after the frame. The next frame's `start` is the same object, unless a new epoch begins.
        wire: The complete WebSocket message of `relay.v1`, header and audio, as a server writes it.
    """

    start: Place
    end: Place
    wire: bytes

    def __new__(cls, audio: bytes, timestamp: float, duration: int, *, start: Place, end: Place, wire: bytes) -> Self:
        """Create the frame; the arguments are the attributes."""
        self = super().__new__(cls, audio, timestamp, duration)
        self.start = start
        self.end = end
        self.wire = wire
        return self
