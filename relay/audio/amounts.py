"""Exact amounts of audio, for counters.

Invariant: amounts are integers (flicks, not float seconds), so adding and comparing them never rounds.
"""

from dataclasses import dataclass

from relay.vocabulary.audio import FLICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class AudioAmount:
    """So much audio.

    Attributes:
        chunks: How many chunks; a chunk that was cut counts where its newest part is.
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
        """Give both together."""
        return AudioAmount(self.chunks + other.chunks, self.bytes + other.bytes, self.flicks + other.flicks)

    def __sub__(self, other: "AudioAmount") -> "AudioAmount":
        """Give what of this is beyond `other`."""
        return AudioAmount(self.chunks - other.chunks, self.bytes - other.bytes, self.flicks - other.flicks)


@dataclass(frozen=True, slots=True)
class BufferCounters:
    """What became of the audio that a buffer was given: `accepted = taken + dropped + held`.

    Attributes:
        taken: Taken out, to be written to the listener.
        dropped: Lost: pushed out by newer audio, cut off, or too old when it could be written.
        held: In the buffer.
        overflows: How many times audio was pushed out or cut off for want of room.
    """

    taken: AudioAmount = AudioAmount()
    dropped: AudioAmount = AudioAmount()
    held: AudioAmount = AudioAmount()
    overflows: int = 0

    @property
    def accepted(self) -> AudioAmount:
        """All that the buffer was given."""
        return self.taken + self.dropped + self.held
