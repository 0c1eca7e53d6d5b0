"""Exact amounts of audio, for counters.

Invariant: Amounts are integers (flicks instead of float seconds), so additions and comparisons never round.
"""

from dataclasses import dataclass

from relay.vocabulary.audio import FLICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class AudioAmount:
    """An amount of audio.

    Attributes:
        chunks: Number of chunks. A chunk that was cut counts once, with its newest part.
        bytes: Bytes of coded audio.
        flicks: Duration in flicks.
    """

    chunks: int = 0
    bytes: int = 0
    flicks: int = 0

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.flicks / FLICKS_PER_SECOND

    def __add__(self, other: "AudioAmount") -> "AudioAmount":
        return AudioAmount(self.chunks + other.chunks, self.bytes + other.bytes, self.flicks + other.flicks)

    def __sub__(self, other: "AudioAmount") -> "AudioAmount":
        return AudioAmount(self.chunks - other.chunks, self.bytes - other.bytes, self.flicks - other.flicks)


@dataclass(frozen=True, slots=True)
class BufferCounters:
    """What became of the audio that a buffer accepted: `accepted = taken + dropped + held`.

    Attributes:
        taken: Removed from the buffer to be written to the listener.
        dropped: Lost: pushed out by newer audio, cut off, or too old when it could be written.
        held: In the buffer.
        overflows: How many times audio was pushed out or cut off because there was no room.
    """

    taken: AudioAmount = AudioAmount()
    dropped: AudioAmount = AudioAmount()
    held: AudioAmount = AudioAmount()
    overflows: int = 0

    @property
    def accepted(self) -> AudioAmount:
        """All audio that the buffer accepted."""
        return self.taken + self.dropped + self.held
