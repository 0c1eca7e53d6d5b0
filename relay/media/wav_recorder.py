"""Recording what a listener hears to WAV files.

Invariants: from the moment it is opened a new file is valid WAV, however the process ends; a file holds one format
and stays under the 4 GiB that WAV can declare, and the recording goes on in a next file beside it; only the named
file is ever overwritten, and not before there is audio to put in the place of what it holds.
"""

import contextlib
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from relay.vocabulary.audio import BYTES_PER_SAMPLE, AudioFormat
from relay.vocabulary.errors import UserError

_MAX_DATA_BYTES = 0xFFFF_FFFF - 36
"""What the RIFF header, whose 32-bit length counts 36 bytes of itself, can declare as audio."""


class WavRecorder:
    """Writes audio to a WAV file, and to more of them when one is not enough; a context manager.

    Attributes:
        path: The file that is being written.
    """

    def __init__(self, path: Path, *, max_data_bytes: int = _MAX_DATA_BYTES) -> None:
        """Open the file; what one that is there holds stays until the first audio.

        Args:
            path: Where to write; further files are named `NAME-2.wav` and so on, taking the first free number.
            max_data_bytes: Audio after which the next file begins.

        Raises:
            UserError: It can not be written.
        """
        self.path = path
        self._first_path = path
        self._max_data_bytes = max_data_bytes
        self._audio_format = AudioFormat()
        self._writer: wave.Wave_write | None = None
        with self._explained():
            # Opening a named pipe would wait for its other end, and a header can not be completed in one.
            is_there = path.exists()
            is_unusable = is_there and not path.is_file()
        if is_unusable:
            raise UserError(f"{path} is not a regular file; WAV can be written to nothing else.")
        self._open("r+b" if is_there else "xb")

    def __enter__(self) -> Self:
        """Give the recorder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; one that got no audio is a valid WAV of no length.

        Raises:
            UserError: What was left to write could not be written.
        """
        self._close()

    def set_format(self, audio_format: AudioFormat) -> None:
        """Take the audio that follows to be of this format, in a next file if this one holds another.

        Raises:
            UserError: The next file can not be written.
        """
        if audio_format != self._audio_format:
            self._audio_format = audio_format
            if self._data_bytes:
                self._open_next()
            elif self._writer is not None:
                self._writer = self._begin()

    def write(self, audio: bytes) -> None:
        """Append whole samples.

        Raises:
            UserError: They can not be written, for example because the disk is full.
        """
        if self._data_bytes + len(audio) > self._max_data_bytes:
            self._open_next()
        with self._explained():
            if self._writer is None:
                self._writer = self._begin()
            self._writer.writeframes(audio)
        self._data_bytes += len(audio)

    def _open(self, mode: str) -> None:
        """Open the present file; there is no writer while it holds something else."""
        with self._explained():
            self._file: IO[bytes] = self.path.open(mode)
            self._data_bytes = 0
            self._writer = None if self._file.seek(0, os.SEEK_END) else self._begin()

    def _open_next(self) -> None:
        self._close()
        number = 2
        while True:
            self.path = self._first_path.with_stem(f"{self._first_path.stem}-{number}")
            if not self.path.exists():
                break
            number += 1
        self._open("xb")

    def _begin(self) -> wave.Wave_write:
        """Make the file one of no length, in the present format."""
        with self._explained():
            self._file.seek(0)
            self._file.truncate()
            writer = wave.open(self._file, "wb")  # noqa: SIM115 - closed by _close
            writer.setnchannels(self._audio_format.channels)
            writer.setsampwidth(BYTES_PER_SAMPLE)
            writer.setframerate(self._audio_format.rate)
            # No frames yet; this makes the writer write the header now, and not with the first of them.
            writer.writeframes(b"")
            self._file.flush()
        return writer

    def _close(self) -> None:
        with self._explained(), self._file:
            if self._writer is not None:
                self._writer.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} can not be written: {error.strerror}.") from error
