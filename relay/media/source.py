"""What a source of audio is, and what is read to make one."""

from collections.abc import Iterator
from typing import Protocol

from relay.vocabulary.audio import AudioFormat


class AudioSource(Protocol):
    """Audio that can be read in blocks.

    Attributes:
        name: For a person; it says what the audio was taken for when nobody said it.
        audio_format: Of the blocks.
        duration_seconds: As a file declares it; None when nobody knows.
        damaged_packets: How many pieces could not be decoded and were left out so far.
        remark: A sentence about what was odd and did not stop the audio; None when nothing was.
    """

    name: str
    audio_format: AudioFormat
    duration_seconds: float | None
    damaged_packets: int
    remark: str | None

    def blocks(self) -> Iterator[bytes]:
        """Read from the beginning; a file as often as one likes, a pipe once. Reading blocks.

        Raises:
            UserError: It can not be read to its end; what came before was given.
        """
        ...


class Readable(Protocol):
    """What bytes come from: a file that is open, or a pipe."""

    def read(self, most_bytes: int, /) -> bytes:
        """Read what is there, at most `most_bytes`, waiting for the first of them; nothing at the end."""
        ...
