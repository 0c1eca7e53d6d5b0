"""The measured servers: how each starts, which protocol it speaks, and how to install it.

Invariants: a server listens on a free port of this machine. It runs only on the servers' CPU, with all its threads and
children. It has stopped when its context ends.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from tests.support.ports import free_port

_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, GENERATOR_CPU = _CPUS[0], _CPUS[min(1, len(_CPUS) - 1)]
"""The first two CPUs available to this process. With only one, the benchmarks run but measure nothing."""
START_SECONDS = 15.0
STOP_SECONDS = 5.0
FRAME_BYTES = 640
"""20 ms of 16 kHz mono: the frame of every measurement except those of ages."""

PEERS = Path(__file__).parent / "peers"
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

Command = Callable[[int, Path], list[str]]
"""Returns the command line for a port and an empty folder."""


class StartError(Exception):
    """A server did not start; the message names it and quotes its output."""


class Speaks(Enum):
    """How a broadcaster and listeners talk to a server."""

    RELAY_V1 = "relay.v1"
    NCHAN = "nchan: WebSocket messages as they are"
    HTTP = "a source and an endless answer, as with Icecast"


@dataclass(frozen=True)
class Server:
    """A server that can be measured.

    Attributes:
        name: The name in the table.
        command: The command that starts it.
        speaks: The protocol that it speaks.
        missing: What the user must install first; None if nothing is missing.
        environment: Its environment variables.
    """

    name: str
    command: Command
    speaks: Speaks = Speaks.RELAY_V1
    missing: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


def relay(name: str = "relay", loop: str = "asyncio", **settings: str) -> Server:
    """The relay of this repository, with settings as environment variables."""

    def command(port: int, _folder: Path) -> list[str]:
        return [sys.executable, "-m", "relay", "serve", "--port", str(port), "--loop", loop]

    quiet = {"RELAY_LOG_LEVEL": "error", "RELAY_BROADCAST_OPEN": "true"}
    missing = None if loop == "asyncio" or find_spec("uvloop") else "pip install uvloop"
    return Server(name, command, missing=missing, environment=quiet | settings)


def python_server(name: str, kind: str, needs: str | None = None) -> Server:
    """A server of `peers/python_servers.py`; `needs` is the package that it requires."""

    def command(port: int, _folder: Path) -> list[str]:
        return [sys.executable, "-m", "tests.bench.peers.python_servers", kind, str(port)]

    return Server(name, command, missing=None if needs is None or find_spec(needs) else f"pip install {needs}")


def ws() -> Server:
    """The Node library `ws`."""
    node = shutil.which("node")
    missing = None
    if node is None:
        missing = "apt-get install nodejs npm, then npm ci --prefix tests/bench/peers"
    elif not (PEERS / "node_modules" / "ws").is_dir():
        missing = "npm ci --prefix tests/bench/peers"
    return Server("ws (Node)", lambda port, _: [node or "", str(PEERS / "ws_server.js"), str(port)], missing=missing)


def nchan() -> Server:
    """The nginx module nchan."""
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

    def command(port: int, folder: Path) -> list[str]:
        conf = _written(folder, "nginx.conf", PORT=str(port), MODULE=str(NCHAN_MODULE))
        return [nginx or "", "-p", str(folder), "-c", str(conf), "-e", "stderr"]

    is_there = nginx is not None and NCHAN_MODULE.exists()
    missing = None if is_there else "apt-get install nginx libnginx-mod-nchan"
    return Server("nchan (nginx, C)", command, Speaks.NCHAN, missing)


def icecast() -> Server:
    program = shutil.which("icecast2")

    def command(port: int, folder: Path) -> list[str]:
        # Icecast refuses to run as root.
        user = "<changeowner><user>nobody</user><group>nogroup</group></changeowner>" if os.geteuid() == 0 else ""
        conf = _written(folder, "icecast.xml", PORT=str(port), CHANGEOWNER=user)
        return [program or "", "-c", str(conf)]

    return Server("Icecast 2 (C)", command, Speaks.HTTP, missing=None if program else "apt-get install icecast2")


def floor() -> Server:
    """A C program that does only the kernel's work; compiled on start."""
    compiler = shutil.which("cc")

    def command(port: int, folder: Path) -> list[str]:
        program = folder / "floor"
        subprocess.run([compiler or "", "-O2", "-o", str(program), str(PEERS / "floor.c")], check=True)
        return [str(program), str(port), str(FRAME_BYTES)]

    return Server("the floor (C, only send)", command, Speaks.HTTP, missing=None if compiler else "apt-get install gcc")


def peers() -> list[Server]:
    """Return all servers other than the relay."""
    return [
        floor(),
        python_server("websockets.broadcast()", "broadcast"),
        python_server("a task for each listener", "tasks"),
        python_server("picows (Cython)", "picows", needs="picows"),
        ws(),
        nchan(),
        icecast(),
    ]


@contextmanager
def serving(server: Server, cpu: int | None = SERVER_CPU) -> Iterator[Running]:
    """Run a server on one CPU, or on all that this process may use, while the block runs.

    Raises:
        StartError: The server did not start.
    """
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        port, folder = free_port(), Path(name)
        # Icecast switches to another user, which writes its logs.
        folder.chmod(0o777)
        with (folder / "output").open("w+b") as output:
            process = subprocess.Popen(
                [*([] if cpu is None else ["taskset", "--cpu-list", str(cpu)]), *server.command(port, folder)],
                env={**os.environ, **server.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                if not _comes_up(process, port):
                    output.seek(0)
                    said = output.read().decode(errors="replace").strip() or "nothing"
                    raise StartError(f"{server.name} did not start; it said: {said[-2000:]}")
                yield Running(port, process.pid)
            finally:
                _end(process)


def _comes_up(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.perf_counter() + START_SECONDS
    while time.perf_counter() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _written(folder: Path, name: str, **values: str) -> Path:
    """Write a configuration of `peers/` with its capitalized words replaced."""
    text = (PEERS / name).read_text(encoding="utf-8")
    for word, value in {**values, "FOLDER": str(folder)}.items():
        text = text.replace(word, value)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path
