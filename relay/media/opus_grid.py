"""The grid of an Opus rendition: which Opus frame holds which time of the PCM it is made from.

Frame number k holds the PCM from k frame lengths after the epoch's start to k + 1. Its number is its seq. What comes
out of a decoder for it begins earlier, by the encoder's look-ahead. The frame's media time is that of its first decoded
sample, so a moment has the same media time in PCM and in Opus.

Everything follows from the PCM's place in its epoch. Processes that encode the same channel, from any moment on,
therefore number alike.
"""

from dataclasses import dataclass

from relay.vocabulary.opus_packet import CLOCK_RATE

LOOK_AHEAD = 312
"""Ticks of 48 kHz by which libopus delays speech: 6.5 ms."""


@dataclass(frozen=True, slots=True)
class OpusGrid:
    """The grid for PCM of one rate.

    Attributes:
        rate: The sample rate of the PCM, in Hz.
        frame_ms: The length of an Opus frame, in milliseconds.
    """

    rate: int
    frame_ms: int = 20

    @property
    def frame_ticks(self) -> int:
        """The length of a frame in ticks of 48 kHz."""
        return self.frame_ms * CLOCK_RATE // 1000

    def first_from(self, sample: int) -> int:
        """Return the first frame that begins at a sample of the epoch or after it."""
        return -(-sample * 1000 // (self.rate * self.frame_ms))

    def last_before(self, sample: int) -> int:
        """Return the frame with which everything before a sample of the epoch can be heard."""
        ticks_by_rate = sample * CLOCK_RATE + LOOK_AHEAD * self.rate
        return -(-ticks_by_rate // (self.frame_ticks * self.rate)) - 1

    def first_sample(self, number: int) -> int:
        """Return the sample of the epoch at which a frame begins; the one before it if that is between two."""
        return number * self.frame_ms * self.rate // 1000

    def media_time(self, number: int) -> int:
        """Return the media time of a frame in ticks of 48 kHz. That of the epoch's first frame is negative."""
        return number * self.frame_ticks - LOOK_AHEAD

    def holding(self, media_time: int) -> int:
        """Return the frame that holds a media time, in ticks of 48 kHz."""
        return (media_time + LOOK_AHEAD) // self.frame_ticks
