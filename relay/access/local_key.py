"""The keys that a relay without any makes for itself, where programs of the same person find them.

Invariants: only the person who runs the relay can read the file or be made to read another's; the file is gone when
the relay has ended in order, and a later relay on the same port replaces it.
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
"""Of randomness in a key that nobody has to remember."""

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class LocalKey(StrEnum):
    """What a key is for; its value begins the name of its file."""

    BROADCAST = "broadcast-key"
    ADMIN = "admin-key"


def generate_key() -> str:
    """Make a key."""
    return secrets.token_urlsafe(KEY_BYTES)


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Return the person's own directory for what running programs share: that of the desktop, or one in /tmp.

    Raises:
        OSError: There is no such place, as in a container whose every file system is read-only.
    """
    own = environ.get("XDG_RUNTIME_DIR")
    return Path(own, "relay") if own else Path(tempfile.gettempdir(), f"relay-{os.getuid()}")


@contextlib.contextmanager
def stored_key(directory: Path, kind: LocalKey, port: int, key: str) -> Iterator[Path]:
    """Keep a key of the relay on `port` in a file while the context lasts, and yield the path of the file.

    Raises:
        OSError: The file can not be written, or others could read or replace it.
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
    """Find the key that the relay on `port` of this machine made; None when there is none of this person's."""
    try:
        directory = runtime_directory(environ)
        _check_ours(directory)
        return _key_path(directory, kind, port).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def find_local_key(url: str, kind: LocalKey = LocalKey.BROADCAST) -> str | None:
    """Find the key that a relay of the same person at this address made for itself; None when there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        # Connecting has a sentence for what is no address.
        return None
    if port is None or not is_loopback(parts.hostname or ""):
        return None
    return find_key(os.environ, kind, port)


def _key_path(directory: Path, kind: LocalKey, port: int) -> Path:
    return directory / f"{kind}-{port}"


def _check_ours(directory: Path) -> None:
    """Make sure that nobody else could have put a file there.

    Raises:
        PermissionError: Somebody else could.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is not a directory that only this user can use")
