"""The interfaces of audio sources and of what they read."""

from collections.abc import Iterator
from typing import Protocol

from relay.vocabulary.audio import AudioFormat


class AudioSource(Protocol):
    """Audio that can be read in blocks.

    Attributes:
        name: For a person. It includes the detected format if the user named none.
        audio_format: The format of the blocks.
        duration_seconds: As a file declares it; None if unknown.
        damaged_packets: How many undecodable pieces were skipped so far.
        remark: A sentence about an oddity that did not stop the audio, or None.
    """

    name: str
    audio_format: AudioFormat
    duration_seconds: float | None
    damaged_packets: int
    remark: str | None

    def blocks(self) -> Iterator[bytes]:
        """Read from the beginning: a file any number of times, a pipe once. Reading blocks the thread.

        Raises:
            UserError: The audio cannot be read to its end. Everything before the fault was returned.
        """


class Readable(Protocol):
    """A source of bytes: an open file or a pipe."""

    def read(self, most_bytes: int, /) -> bytes:
        """Read available data, at most `most_bytes`, and wait for the first byte; return nothing at the end."""
