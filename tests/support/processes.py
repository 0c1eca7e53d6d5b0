"""Processes of the `relay` command for tests, which read their log line by line and always stop them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

from relay.process.children import signal_child
from tests.support.ports import free_port

Result = TypeVar("Result")

START_SECONDS = 90.0
STOP_SECONDS = 90.0
"""The wait for a process that may hang; it does not judge speed."""


class Process:
    """A process whose standard error is read as it arrives.

    Attributes:
        lines: The lines of standard error so far.
        returncode: The exit code; None while it runs.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._news = asyncio.Condition()
        self._reader = asyncio.get_running_loop().create_task(self._read())
        self.lines: list[str] = []
        self._ended = False

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        signal_child(self._process, number)

    async def line(self, matches: Callable[[str], bool], seconds: float = START_SECONDS) -> str:
        """Wait for a line of standard error. If it does not come, the failure shows all lines."""
        seen = 0

        def found() -> str | None:
            nonlocal seen
            for line in self.lines[seen:]:
                if matches(line):
                    return line
                seen += 1
            return None

        async with self._news:
            try:
                async with asyncio.timeout(seconds):
                    while (line := found()) is None:
                        assert not self._ended, f"ended with {self.returncode} before the line came:\n{self.text}"
                        await self._news.wait()
            except TimeoutError:
                raise AssertionError(f"no such line within {seconds} s:\n{self.text}") from None
        return line

    async def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until the process exits, and return its exit code."""
        async with asyncio.timeout(seconds):
            await self._process.wait()
            await asyncio.wait([self._reader])
        assert self.returncode is not None
        return self.returncode

    async def terminate(self, seconds: float = STOP_SECONDS) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait(seconds)

    async def end(self) -> None:
        """Send SIGTERM, then SIGKILL if that was not enough; do nothing if the process has exited."""
        if self.returncode is None:
            with contextlib.suppress(TimeoutError):
                await self.terminate()
        await self.kill()

    async def kill(self) -> None:
        """Kill the process; do nothing if it has exited."""
        self.signal(signal.SIGKILL)
        await self._process.wait()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while line := await stream.readline():
            async with self._news:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()


async def few_at_once(calls: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Await calls that start processes, three at a time, and return their results in order."""
    places = asyncio.Semaphore(3)

    async def in_turn(call: Coroutine[Any, Any, Result]) -> Result:
        async with places:
            return await call

    return await asyncio.gather(*map(in_turn, calls))


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings in place of its own.

    Unless they limit the lag, a relay admits listeners even on a busy machine.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "AWS_"))}
    return {**inherited, "AWS_EC2_METADATA_DISABLED": "true", "RELAY_LIMITS_MAX_LAG_MS": "never", **settings}


@asynccontextmanager
async def running(*arguments: str, around: Sequence[str] = (), **settings: str) -> AsyncIterator[Process]:
    """Run `relay ARGUMENTS` with `settings` as environment variables, and stop it when the block ends.

    Args:
        arguments: The command's arguments.
        around: A command that runs it.
        settings: Environment variables.
    """
    child = await asyncio.create_subprocess_exec(
        *around,
        sys.executable,
        "-m",
        "relay",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(settings),
    )
    process = Process(child)
    try:
        yield process
    finally:
        await process.kill()


class RelayProcess(Process):
    """A running `relay serve`.

    Attributes:
        url: `http://127.0.0.1:PORT`.
    """

    url = ""

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return all log lines so far, parsed."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    async def event(self, name: str, seconds: float = START_SECONDS, **fields: object) -> dict[str, Any]:
        """Wait for a log line with this event and these fields."""

        def matches(line: str) -> bool:
            if not line.startswith("{"):
                return False
            record: dict[str, Any] = json.loads(line)
            return record["event"] == name and fields.items() <= record.items()

        record: dict[str, Any] = json.loads(await self.line(matches, seconds))
        return record

    async def stopping_seconds(self) -> float:
        """Return how long the relay took to stop, by its log, which leaves out the interpreter's exit."""
        return seconds_between(await self.event("relay stopping"), await self.event("relay stopped"))


def seconds_between(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> float:
    """Return the time between two log lines by their timestamps, so a late reader does not matter."""
    first, second = (datetime.fromisoformat(record["timestamp"]) for record in (earlier, later))
    return (second - first).total_seconds()


@asynccontextmanager
async def relay_process(*arguments: str, module: str = "relay", **settings: str) -> AsyncIterator[RelayProcess]:
    """Run `relay serve` on a free loopback port; it is ready when the block begins and stopped when it ends.

    Args:
        arguments: Further options of `relay serve`.
        module: The module to run instead of `relay`.
        settings: Environment variables such as `RELAY_BROADCAST_KEY`. Unless they set access, anyone may broadcast.
    """
    if not any(name.startswith(("RELAY_BROADCAST_KEY", "RELAY_BROADCAST_OPEN", "RELAY_ACCESS_")) for name in settings):
        settings["RELAY_BROADCAST_OPEN"] = "true"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        "serve",
        "--port",
        str(free_port()),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment({"RELAY_LOG_FORMAT": "json", **settings}),
    )
    process = RelayProcess(child)
    try:
        ready = await process.event("relay ready")
        process.url = ready["url"]
        yield process
    finally:
        await process.end()
