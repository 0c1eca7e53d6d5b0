"""Real NATS servers for tests: one, or several that form a cluster.

A server keeps everything in memory. After a kill and a new start, it is empty and has the same port.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nkeys

from relay.process.children import signal_child
from relay.settings.settings import Settings
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
"""The wait for a server that may be slow; it does not judge speed."""


def nats_server() -> str:
    """Return the path of `nats-server`: the one on PATH, or the one in this environment."""
    beside = Path(sys.executable).with_name("nats-server")
    found = shutil.which("nats-server") or (str(beside) if beside.exists() else None)
    assert found is not None, "nats-server is missing; the extra `test` has it"
    return found


class NatsServer:
    """One `nats-server` process.

    Attributes:
        port: Its port, which stays the same.
        log: The path of its log.
    """

    def __init__(self, directory: Path, name: str, lines: Iterable[str], *, port: int, scheme: str = "nats") -> None:
        self.port = port
        self.name = name
        self.log = directory / f"{name}.log"
        self._scheme = scheme
        self._configuration = directory / f"{name}.conf"
        self._configuration.write_text(
            "\n".join(
                (
                    f"server_name: {name}",
                    f'listen: "127.0.0.1:{port}"',
                    f'log_file: "{self.log}"',
                    *lines,
                )
            )
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Its address, without user and password."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def url_of(self, user: str, password: str) -> str:
        """Its address with a user and a password."""
        return self.url.replace("://", f"://{user}:{password}@")

    async def start(self) -> None:
        """Start it, and wait until it accepts connections. It begins empty."""
        assert not self.is_running
        self._process = await asyncio.create_subprocess_exec(
            nats_server(), "-c", str(self._configuration), stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._process.returncode is None, self.log.read_text(encoding="utf-8")
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill it with SIGKILL, so that everything in it is lost."""
        if self._process is not None:
            signal_child(self._process, signal.SIGKILL)
            await self._process.wait()

    async def terminate(self) -> None:
        """End it in order with SIGTERM."""
        assert self._process is not None
        signal_child(self._process, signal.SIGTERM)
        await self._process.wait()

    async def restart(self) -> None:
        """Kill it, and start it again, empty."""
        await self.kill()
        await self.start()

    def stop(self) -> None:
        """Stop it with SIGSTOP, and wait until it has stopped: its connections stay open, and it answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # Each of its threads stops by itself.
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            while (thread / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "T":
                time.sleep(0.001)

    def go_on(self) -> None:
        """Continue it after `stop`. It then does everything that it got meanwhile."""
        os.kill(self.pid, signal.SIGCONT)


@asynccontextmanager
async def nats(
    directory: Path, *lines: str, jetstream: bool = True, scheme: str = "nats", name: str = "nats"
) -> AsyncIterator[NatsServer]:
    """Run one server.

    Args:
        directory: Where it keeps its configuration and its log.
        lines: More lines of its configuration, for example for users.
        jetstream: Whether it has JetStream.
        scheme: The scheme of its address; "tls" if `lines` configure TLS.
        name: Its name.
    """
    if jetstream:
        lines = (*lines, _jetstream(directory, name))
    server = NatsServer(directory, name, lines, port=free_port(), scheme=scheme)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def nats_cluster(directory: Path, *lines: str, servers: int = 3) -> AsyncIterator[list[NatsServer]]:
    """Run servers that form a cluster with JetStream. They are ready when the block begins."""
    names = [f"nats{number}" for number in range(servers)]
    routes = [free_port() for _ in names]
    everywhere = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
    running = [
        NatsServer(
            directory,
            name,
            (
                *lines,
                _jetstream(directory, name),
                f'cluster {{ name: test, listen: "127.0.0.1:{route}", routes: [{everywhere}], no_advertise: true }}',
            ),
            port=free_port(),
        )
        for name, route in zip(names, routes, strict=True)
    ]
    try:
        await asyncio.gather(*(server.start() for server in running))
        await until_ready(running)
        yield running
    finally:
        await asyncio.gather(*(server.kill() for server in running))


async def until_ready(servers: Iterable[NatsServer]) -> None:
    """Wait until servers of a cluster have elected who leads it, as each one's log says."""
    async with asyncio.timeout(START_SECONDS):
        for server in servers:
            while "metadata leader" not in _read(server.log):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.05)


@asynccontextmanager
async def node_process(url: str, **cluster: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a node that only belongs to a cluster, in a process of its own. It is ready when the block begins."""
    code = (
        "import asyncio, json, sys\n"
        "from relay.cluster.nats_bus import open_bus\n"
        "from relay.settings.settings import Settings\n"
        "async def main():\n"
        "    async with open_bus(Settings(cluster=json.loads(sys.argv[1]))) as bus:\n"
        "        print(bus.node_id, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, json.dumps({"url": url, **cluster})),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline(), "the node did not begin"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask_server(url: str, subject: str) -> Any:
    """Ask a server something that the bus has no use for, and return the parsed answer."""
    question = (
        "import asyncio, sys, nats\n"
        "async def main():\n"
        "    client = await nats.connect(sys.argv[1])\n"
        "    print((await client.request(sys.argv[2], b'', timeout=10)).data.decode())\n"
        "    await client.close()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", question, url, subject, stdout=asyncio.subprocess.PIPE
    )
    written, _ = await process.communicate()
    return json.loads(written)


def urls(servers: Iterable[NatsServer]) -> str:
    """Return the addresses of servers as `cluster.url` takes them."""
    return ",".join(server.url for server in servers)


def relay_settings(url: str, **more: str) -> Mapping[str, str]:
    """Return environment variables for a relay of a cluster, as `relay_process` takes them."""
    return {"RELAY_CLUSTER_URL": url, **{f"RELAY_CLUSTER_{key.upper()}": value for key, value in more.items()}}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _jetstream(directory: Path, name: str) -> str:
    return f'jetstream {{ store_dir: "{directory / name}", max_memory_store: 2GB }}'


def cluster_settings(url: str, *, history_seconds: float = 10.0, **cluster: Any) -> Settings:
    """Return the settings of a node that uses these servers."""
    return Settings.model_validate(
        {"cluster": {"url": url, **cluster}, "listener": {"history_seconds": history_seconds}}
    )


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds that no event announces. The time is for a machine that hangs; it judges nothing."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def operator_mode(directory: Path) -> tuple[str, Path]:
    """Return lines for a server that admits users of one account by their JWT, and the credentials of such a user.

    The form of the tokens: NATS ADR-14. Their signature is one of Ed25519 by the NKey of the issuer.
    """
    operator, user = _key_pair(nkeys.PREFIX_BYTE_OPERATOR), _key_pair(nkeys.PREFIX_BYTE_USER)
    account, system = _key_pair(nkeys.PREFIX_BYTE_ACCOUNT), _key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}
    memory = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    user_claims = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
    accounts = "\n".join(
        f"{each.public_key.decode()}: {_token(operator, each, {'type': 'account', 'version': 2, 'limits': granted})}"
        for each, granted in ((account, limits | memory), (system, limits))
    )
    credentials = directory / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{_token(account, user, user_claims)}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    lines = (
        f"operator: {_token(operator, operator, {'type': 'operator', 'version': 2})}",
        f"system_account: {system.public_key.decode()}",
        f"resolver: MEMORY\nresolver_preload: {{\n{accounts}\n}}",
    )
    return "\n".join(lines), credentials


def nkey_of(seed: bytes) -> str:
    """Return the public key that a server's configuration names for a seed."""
    return bytes(nkeys.from_seed(bytearray(seed)).public_key).decode()


def user_seed() -> bytes:
    """Return a new NKey seed of a user."""
    return bytes(_key_pair(nkeys.PREFIX_BYTE_USER).seed)


def _key_pair(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def _token(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, claims: Mapping[str, object]) -> str:
    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    body = {"jti": os.urandom(8).hex(), "iat": 1_700_000_000, "iss": issuer.public_key.decode()}
    body |= {"name": "test", "sub": subject.public_key.decode(), "nats": claims}
    signed = ".".join(encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{signed}.{encode(issuer.sign(signed.encode()))}"
