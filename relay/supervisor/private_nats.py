"""The relay's own NATS server, through which its workers reach each other.

It listens on a loopback port that it chooses itself, and admits only those who know a random password. Its streams are
in memory, so they end with it.

Invariants: only this user can read its configuration. When the supervisor dies, the kernel kills the server. Its files
are then left, and the next private server of this user on the machine removes them. A server that died comes back at
the same address, because the workers know no other.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import signal
import sysconfig
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from relay.process.children import signal_child
from relay.process.tasks import TaskRegistry
from relay.supervisor.backoff import Backoff
from relay.supervisor.leash import leashed
from relay.supervisor.worker_process import describe_exit
from relay.vocabulary.clock import relay_clock, wall_clock
from relay.vocabulary.errors import ConfigurationError, RelayError

PROGRAM = "nats-server"
OLDEST_VERSION = (2, 11)
"""The first version with batched direct gets, by which a node reads what it missed."""

RECORDS_BYTES = 128 * 1024 * 1024
"""How much memory the server has besides that for audio. The record of a channel takes a few kilobytes."""

START_SECONDS = 20.0
"""How long the server may take to start. It takes 0.2 s on an idle machine."""

STOP_SECONDS = 1.0
"""How long the server may take to stop. It has nothing to save."""

LOOK_SECONDS = 0.01
"""Interval at which the supervisor looks for the file with the server's port."""

YOUNG_SECONDS = 60.0
"""A directory without an owner stays this long: its supervisor may be about to lock it."""

_DIRECTORY_PREFIX = "relay-nats-"
_ANY_PORT = -1
_USER = "relay"
_READY = "Server is ready"
_LINE = re.compile(r"\[\d+\] \[(?P<level>[A-Z]{3})\] (?P<text>.*)")
_LEVELS = {"WRN": logging.WARNING, "ERR": logging.ERROR, "FTL": logging.ERROR}

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def private_nats(max_audio_bytes: int) -> AsyncIterator[str]:
    """Run a private NATS server within the context, and yield its address with user and password.

    Args:
        max_audio_bytes: How much audio it has to keep.

    Raises:
        ConfigurationError: This machine has no suitable server, or no place for its files.
        RelayError: The server does not start.
    """
    program = await _find_program()
    tasks = TaskRegistry()
    with _private_directory() as directory:
        server = _Server(program, directory, max_audio_bytes + RECORDS_BYTES, tasks)
        try:
            await server.start()
            tasks.start(server.keep(), "private nats-server")
            yield server.url
        finally:
            await tasks.close()
            await server.stop()


class _Server:
    def __init__(self, program: str, directory: Path, max_memory_bytes: int, tasks: TaskRegistry) -> None:
        self._program = program
        self._directory = directory
        self._max_memory_bytes = max_memory_bytes
        self._tasks = tasks
        self._password = secrets.token_hex(24)
        self._port = _ANY_PORT
        self._started = 0.0
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"nats://{_USER}:{self._password}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start the server, and wait until it accepts connections.

        Raises:
            RelayError: It ended, or was not ready in time.
        """
        self._started = relay_clock()
        self._process = process = await asyncio.create_subprocess_exec(
            *leashed([self._program, "-c", str(self._write_configuration())], signal.SIGKILL),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env={},  # the relay's environment may contain secrets
            process_group=0,  # a terminal's Ctrl-C is for the supervisor
        )
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        said = "nothing"
        try:
            async with asyncio.timeout(START_SECONDS):
                while line := (await process.stderr.readline()).decode(errors="replace").strip():
                    said = line
                    if line.endswith(_READY):
                        break
                else:
                    raise RelayError(f"The private nats-server ended while it started; its last line is: {said}")
                if self._port == _ANY_PORT:
                    self._port = await self._read_port()
        except TimeoutError as error:
            raise RelayError(f"The private nats-server did not start in time; its last line is: {said}") from error
        self._tasks.start(_join_log(process.stderr), "log of the private nats-server")

    async def keep(self) -> None:
        """Start the server again whenever it ends, until cancelled."""
        backoff = Backoff()
        while self._process is not None:
            ended_with = describe_exit(await self._process.wait())
            wait = backoff.wait_seconds(relay_clock() - self._started)
            extra = {"ended_with": ended_with, "wait_seconds": round(wait, 1)}
            logger.error("the private nats-server ended and is started again", extra=extra)
            await asyncio.sleep(wait)
            try:
                await self.start()
            except (OSError, RelayError) as error:
                logger.error("the private nats-server does not start", extra={"reason": str(error)})  # noqa: TRY400 - the reason is enough
                await self.stop()

    async def stop(self) -> None:
        """End the server, if it runs."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        signal_child(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            signal_child(process, signal.SIGKILL)
            await process.wait()

    def _write_configuration(self) -> Path:
        directory = json.dumps(str(self._directory))
        path = self._directory / "nats.conf"
        path.touch(mode=0o600)
        path.write_text(
            f'listen: "127.0.0.1:{self._port}"\n'
            f"authorization: {{user: {_USER}, password: {self._password}}}\n"
            # The server wants a directory even for streams in memory, and a bound of 0 would mean none.
            f"jetstream: {{max_memory_store: {self._max_memory_bytes}, max_file_store: 1, store_dir: {directory}}}\n"
            f"ports_file_dir: {directory}\n"
            "logtime: false\n"
        )
        return path

    async def _read_port(self) -> int:
        """Return the port that the server chose. It writes a file with it soon after it is ready."""
        while True:
            for path in self._directory.glob("*.ports"):
                # The file may be there before its content is.
                with contextlib.suppress(ValueError):
                    address: str = json.loads(path.read_text())["nats"][0]
                    return int(address.rpartition(":")[2])
            await asyncio.sleep(LOOK_SECONDS)


async def _join_log(lines: asyncio.StreamReader) -> None:
    """Log the warnings and errors of the server."""
    while line := (await lines.readline()).decode(errors="replace"):
        found = _LINE.match(line)
        if found is not None and (level := _LEVELS.get(found["level"])) is not None:
            logger.log(level, "the private nats-server warns", extra={"text": found["text"], "may_repeat": True})


@contextlib.contextmanager
def _private_directory() -> Iterator[Path]:
    """Make a directory that only this user can enter, lock it, and remove it at the end."""
    try:
        _remove_abandoned()
        directory = tempfile.TemporaryDirectory(prefix=_DIRECTORY_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"The private nats-server needs a directory for its files, and there is none: {error.strerror}. Let the "
            "relay write to /tmp (with Docker: --tmpfs /tmp), or set TMPDIR or cluster.url."
        ) from error
    with directory as name, _locked(Path(name)):
        yield Path(name)


def _remove_abandoned() -> None:
    """Remove the directories whose supervisors were killed: the kernel has released their locks."""
    for path in Path(tempfile.gettempdir()).glob(f"{_DIRECTORY_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(path) as status:
            if status.st_uid == os.getuid() and wall_clock() - status.st_mtime > YOUNG_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[os.stat_result]:
    """Lock a directory, and return its status.

    Raises:
        OSError: It belongs to somebody else, or a living process has locked it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


async def _find_program() -> str:
    """Return the path of a suitable nats-server: the one on PATH, or the one of the extra `cluster`."""
    unsuitable = "there is none"
    for path in (shutil.which(PROGRAM), shutil.which(PROGRAM, path=sysconfig.get_path("scripts"))):
        if path is None:
            continue
        version = await _version(path)
        if version >= OLDEST_VERSION:
            return path
        unsuitable = f"{path} is version {'.'.join(map(str, version)) or 'unknown'}"
    oldest = ".".join(map(str, OLDEST_VERSION))
    raise ConfigurationError(
        f"Several workers need {PROGRAM} {oldest} or newer, and {unsuitable}. Run pip install 'audio-relay[cluster]', "
        f"or apt install {PROGRAM} where that is new enough, or download it from https://nats.io/download; or set "
        "cluster.url to the address of a NATS server, or server.workers to 1."
    )


async def _version(path: str) -> tuple[int, ...]:
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env={}
        )
        output, _ = await process.communicate()
    except OSError:
        return ()
    found = re.search(rb"v(\d+)\.(\d+)", output)
    return tuple(map(int, found.groups())) if found is not None else ()
