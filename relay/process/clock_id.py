"""Which machine's clock `relay_clock` is, so that clients know which due times they may compare.

Linux has one monotonic clock for all processes between two boots. A time namespace shifts it by a constant. On other
systems, nothing is known of other processes, so every process has an id of its own.
"""

import secrets
from hashlib import blake2b
from pathlib import Path

ID_BYTES = 8

_PROC = Path("/proc")


def find_clock_id(proc: Path = _PROC) -> str:
    """Return the id of this process's `relay_clock`: 16 hexadecimal digits.

    Processes with the same id have the same clock, and on Linux the reverse holds, too. The id is a hash, because
    clients must not learn the id of the boot, which identifies the machine.

    Args:
        proc: Where the system describes itself; another folder only in tests.
    """
    try:
        boot_id = (proc / "sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return secrets.token_hex(ID_BYTES)
    return blake2b(boot_id + _shift(proc), digest_size=ID_BYTES, person=b"relay clock").hexdigest()


def _shift(proc: Path) -> bytes:
    """Return the seconds and nanoseconds by which a time namespace shifts the clock; nothing if it does not."""
    try:
        lines = (proc / "self/timens_offsets").read_bytes().splitlines()
    except OSError:  # a kernel without time namespaces
        return b""
    for line in lines:
        match line.split():
            case [b"monotonic", seconds, nanoseconds] if (seconds, nanoseconds) != (b"0", b"0"):
                return seconds + b" " + nanoseconds
    return b""
