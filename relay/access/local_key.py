"""Keys that a relay generates if none are configured, stored where the same person's programs find them.

Invariants: only the person who runs the relay can read the file, and nobody can substitute another. The file is
removed when the relay ends in order. A later relay on the same port replaces a leftover file.
"""

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from relay.vocabulary.hosts import is_loopback

KEY_BYTES = 24
"""The random bytes in a key that nobody has to remember."""

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class LocalKey(StrEnum):
    """The purpose of a key. The value is the prefix of its file name."""

    BROADCAST = "broadcast-key"
    ADMIN = "admin-key"


def generate_key() -> str:
    """Return a new random key."""
    return secrets.token_urlsafe(KEY_BYTES)


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Return the person's own directory for data of running programs: the desktop's, or one in /tmp.

    Raises:
        OSError: There is none, as in a container with only read-only file systems.
    """
    own = environ.get("XDG_RUNTIME_DIR")
    return Path(own, "relay") if own else Path(tempfile.gettempdir(), f"relay-{os.getuid()}")


@contextlib.contextmanager
def stored_key(directory: Path, kind: LocalKey, port: int, key: str) -> Iterator[Path]:
    """Store a key of the relay on `port` in a file while the context lasts, and yield the file's path.

    Raises:
        OSError: The file cannot be written, or other users could read or replace it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_ours(directory)
    path = _key_path(directory, kind, port)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:  # noqa: PTH123 - by descriptor
        file.write(key)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == key:
                path.unlink()


def find_key(environ: Mapping[str, str], kind: LocalKey, port: int) -> str | None:
    """Find the key that the relay on `port` of this machine generated; None if this person has none."""
    try:
        directory = runtime_directory(environ)
        _check_ours(directory)
        return _key_path(directory, kind, port).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def find_local_key(url: str, kind: LocalKey = LocalKey.BROADCAST) -> str | None:
    """Find the key that this person's relay at `url` generated; None if there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        # Connecting reports a bad address.
        return None
    if port is None or not is_loopback(parts.hostname or ""):
        return None
    return find_key(os.environ, kind, port)


def _key_path(directory: Path, kind: LocalKey, port: int) -> Path:
    return directory / f"{kind}-{port}"


def _check_ours(directory: Path) -> None:
    """Raise PermissionError if another user could have put a file there."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} must be a directory that only this user can read and write")
