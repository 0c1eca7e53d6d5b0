"""The processes below a process, as Linux lists them."""

import asyncio
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

GONE_SECONDS = 60.0
"""The wait for processes that may hang; it does not judge speed."""


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below a process, with their command lines."""
    found: dict[int, str] = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        found |= descendants(child)
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended. Nobody may wait for the remains of an orphan."""
    return _state(pid) not in {"Z", "X"}


async def stop(pid: int) -> None:
    """Stop a process as with Ctrl-Z, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    while _state(pid) != "T":  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.01)


async def until_gone(pids: Iterable[int], seconds: float = GONE_SECONDS) -> None:
    """Wait until none of the processes runs any more. Kill those that still do after the time."""
    left = set(pids)
    try:
        async with asyncio.timeout(seconds):
            while left := {pid for pid in left if is_running(pid)}:  # noqa: ASYNC110 - the kernel has no event for strangers
                await asyncio.sleep(0.05)
    except TimeoutError:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"these processes still run: {left}") from None


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment with which a process began."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
