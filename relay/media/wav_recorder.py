"""Records what a listener hears to WAV files.

Invariants: a new file is valid WAV from the moment it is opened, however the process ends. A file holds one format and
stays below the 4 GiB that WAV can declare; then the recording continues in another file beside it. Only the named file
is ever overwritten, and not before there is audio to replace its contents.
"""

import itertools
import os
import wave
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from relay.media.recording import explained, open_recording
from relay.vocabulary.audio import BYTES_PER_SAMPLE, AudioFormat

_MAX_DATA_BYTES = 0xFFFF_FFFF - 36
"""The most audio that the RIFF header can declare: its 32-bit length includes 36 bytes of the header."""


class WavRecorder:
    """Writes audio to a WAV file, and to further files when one is not enough. A context manager.

    Attributes:
        path: The file being written.
    """

    def __init__(self, path: Path, *, max_data_bytes: int = _MAX_DATA_BYTES) -> None:
        """Open the file. An existing file keeps its contents until the first audio.

        Args:
            path: Where to write. Further files are named `NAME-2.wav` and so on, with the first free number.
            max_data_bytes: Bytes of audio after which the next file begins.

        Raises:
            UserError: The file cannot be written.
        """
        self.path = path
        self._first_path = path
        self._max_data_bytes = max_data_bytes
        self._audio_format = AudioFormat()
        self._writer: wave.Wave_write | None = None
        self._open(open_recording(path, ".wav"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file. Without audio, a new file is a valid WAV file of zero length.

        Raises:
            UserError: The rest could not be written.
        """
        self._close()

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows. It goes to a new file if this one holds another format.

        Raises:
            UserError: The next file cannot be written.
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
            UserError: They cannot be written, for example because the disk is full.
        """
        if self._data_bytes + len(audio) > self._max_data_bytes:
            self._open_next()
        with explained(self.path):
            if self._writer is None:
                self._writer = self._begin()
            self._writer.writeframes(audio)
        self._data_bytes += len(audio)

    def _open(self, file: IO[bytes]) -> None:
        """Begin with a file. There is no writer while it holds older contents."""
        with explained(self.path):
            self._file = file
            self._data_bytes = 0
            self._writer = None if self._file.seek(0, os.SEEK_END) else self._begin()

    def _open_next(self) -> None:
        self._close()
        for number in itertools.count(2):
            self.path = self._first_path.with_stem(f"{self._first_path.stem}-{number}")
            with explained(self.path), suppress(FileExistsError):
                self._open(self.path.open("xb"))
                return

    def _begin(self) -> wave.Wave_write:
        """Empty the file and write a header in the current format."""
        with explained(self.path):
            self._file.seek(0)
            self._file.truncate()
            writer = wave.open(self._file, "wb")  # noqa: SIM115 - closed by _close
            writer.setnchannels(self._audio_format.channels)
            writer.setsampwidth(BYTES_PER_SAMPLE)
            writer.setframerate(self._audio_format.rate)
            # Writing no frames makes the writer write the header now, not with the first frame.
            writer.writeframes(b"")
            self._file.flush()
        return writer

    def _close(self) -> None:
        """Close the file, unless that happened already because no other file could follow it."""
        if self._file.closed:
            return
        with explained(self.path), self._file:
            if self._writer is not None:
                self._writer.close()
