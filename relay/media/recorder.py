"""What recorders of all formats share: a recording goes to one file, and to further files when one is not enough.

Invariants: a new file is valid from the moment it is opened, however the process ends. A file holds one format. Only
the named file is ever overwritten, and not before there is audio to replace its contents.
"""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import UserError


class Recorder(ABC):
    """Writes audio to a file, and to further files when one is not enough. A context manager.

    Attributes:
        path: The file being written.
    """

    FILES: ClassVar[str]
    """The format of the files, for a sentence."""

    def __init__(self, path: Path) -> None:
        """Open the file. An existing file keeps its contents until the first audio.

        Args:
            path: Where to write. Further files are named `NAME-2` and so on, with the first free number.

        Raises:
            UserError: The file cannot be written.
        """
        self.path = path
        self._first_path = path
        with self._explained():
            # Opening a named pipe would wait for its other end, and its header could not be completed.
            is_there = path.exists()
            is_unusable = is_there and not path.is_file()
        if is_unusable:
            raise UserError(f"{path} is not a regular file; {self.FILES} can be written to nothing else.")
        self._open("r+b" if is_there else "xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file. Without audio, a new file is valid and holds none.

        Raises:
            UserError: The rest could not be written.
        """
        self._close()

    @abstractmethod
    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows. It goes to a new file if this one holds another format.

        Raises:
            UserError: The next file cannot be written.
        """

    @abstractmethod
    def write(self, audio: bytes) -> None:
        """Append whole samples, or one Opus packet.

        Raises:
            UserError: They cannot be written, for example because the disk is full.
        """

    @abstractmethod
    def write_silence(self, seconds: float) -> None:
        """Append silence in place of lost audio, so that what follows keeps its time.

        Raises:
            UserError: It cannot be written.
        """

    @abstractmethod
    def _begin(self) -> None:
        """Write the header in the present format to the empty file, and make it valid."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the file, if it was begun."""

    def _begin_before_audio(self) -> None:
        """Replace the earlier contents of the named file, if it still has them."""
        if not self._is_begun:
            self._restart()

    def _restart(self) -> None:
        """Empty the file, and begin it in the present format."""
        with self._explained():
            self._file.seek(0)
            self._file.truncate()
            self._begin()
            self._file.flush()
        self._is_begun = True

    def _open_next(self) -> None:
        self._close()
        number = 2
        while True:
            self.path = self._first_path.with_stem(f"{self._first_path.stem}-{number}")
            if not self.path.exists():
                break
            number += 1
        self._open("xb")

    def _open(self, mode: str) -> None:
        with self._explained():
            self._file: IO[bytes] = self.path.open(mode)
            self._is_begun = False
            has_contents = self._file.seek(0, os.SEEK_END)
        if not has_contents:
            self._restart()

    def _close(self) -> None:
        with self._explained(), self._file:
            if self._is_begun:
                self._finish()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} can not be written: {error.strerror}.") from error
