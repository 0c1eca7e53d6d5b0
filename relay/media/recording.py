"""What recordings in any format share: opening their file, and a sentence for what goes wrong with it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from relay.vocabulary.errors import UserError


def open_recording(path: Path, kind: str) -> IO[bytes]:
    """Open a file to write a recording of this kind, such as WAV. An existing file keeps its contents for now.

    Raises:
        UserError: The file cannot be written.
    """
    with explained(path):
        # Opening a named pipe would wait for its other end, and its header could not be completed.
        is_there = path.exists()
        if not is_there or path.is_file():
            return path.open("r+b" if is_there else "xb")
    raise UserError(f"{path} is not a regular file; {kind} can be written to nothing else.")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a `UserError` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} can not be written: {error.strerror}.") from error
