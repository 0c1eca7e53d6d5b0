"""Run the cluster of config/cluster/compose.yaml on this machine, without Docker.

    python -m scripts.local_cluster

Each service becomes a process on loopback, with the command, the settings and the files of the compose file. Names and
ports of services, and paths in containers, become those of this machine. The script prints the addresses, and runs
until Ctrl-C. The processes end with it, whatever it dies of. It needs nats-server, nginx, openssl and setpriv on PATH.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from relay.process.children import signal_child

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "config" / "cluster" / "compose.yaml"
READY_SECONDS = 90.0
"""A process that does not answer by then hangs; the limit does not judge speed."""

STOP_SECONDS = 30.0

PATH = f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
"""Where the commands are. nats-server may be that of the Python environment."""

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<text>[^}]*))?\}")
_BIND_ADDRESS = re.compile(r"\b0\.0\.0\.0:(\d+)\b|(?<=listen )(\d+)\b")


def read_compose(variables: Mapping[str, str], path: Path = COMPOSE) -> dict[str, dict[str, Any]]:
    """Return the services of a compose file, with variables filled in.

    Raises:
        KeyError: A variable that the file asks for is missing. The text is what the file says.
    """

    def fill(match: re.Match[str]) -> str:
        value = variables.get(match["name"], "")
        if value or match["kind"] is None:
            return value
        if match["kind"] == "?":
            raise KeyError(f"{match['name']}: {match['text']}")
        return match["text"] or ""

    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    services: dict[str, dict[str, Any]] = yaml.safe_load(_VARIABLE.sub(fill, text))["services"]
    return services


@dataclass(slots=True)
class LocalCluster:
    """The processes of a compose file.

    Attributes:
        services: The services by name, from `read_compose`.
        directory: Where they keep their files and logs.
        free_port: Returns a port that nobody uses.
        ports: The port on this machine for a port of a service.
        processes: The running processes, by service.
    """

    services: Mapping[str, Mapping[str, Any]]
    directory: Path
    free_port: Callable[[], int]
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def port(self, service: str, port: int) -> int:
        """Return the port on this machine for a port of a service."""
        if (service, port) not in self.ports:
            self.ports[service, port] = self.free_port()
        return self.ports[service, port]

    def named(self, kind: str) -> list[str]:
        """Return the services whose image is of this kind: `nats`, `relay` or `nginx`."""
        return [name for name, service in self.services.items() if service["image"].partition(":")[0] == kind]

    def localized(self, service: str, text: str) -> str:
        """Replace addresses and paths of containers with those of this machine."""

        def own(match: re.Match[str]) -> str:
            port = self.port(service, int(match[1] or match[2]))
            return f"127.0.0.1:{port}"

        names = "|".join(map(re.escape, self.services))
        text = re.sub(rf"\b({names}):(\d+)\b", lambda m: f"127.0.0.1:{self.port(m[1], int(m[2]))}", text)
        text = _BIND_ADDRESS.sub(own, text)
        networks = (self.services[name].get("networks") for name in self.services)
        addresses = [address for each in networks if isinstance(each, Mapping) for address in _fixed_addresses(each)]
        for address in addresses:
            text = text.replace(address, "127.0.0.1")
        for inside, outside in self._mounts(service):
            text = re.sub(rf"{re.escape(inside)}(?![\w.-])", str(outside), text)
        return text

    def _mounts(self, service: str) -> Iterator[tuple[str, Path]]:
        """Yield the paths in the container with those on this machine. A file of the project is a localized copy."""
        own = self.directory / service
        for mount in self.services[service].get("volumes", ()):
            outside, inside = mount.split(":")[:2]
            yield inside, own / Path(inside).name if not outside.startswith("/") else Path(outside)

    def _write_files(self, service: str) -> None:
        own = self.directory / service
        own.mkdir(exist_ok=True)
        for mount in self.services[service].get("volumes", ()):
            outside, inside = mount.split(":")[:2]
            if outside.startswith("./"):
                text = self.localized(service, (COMPOSE.parent / outside).read_text(encoding="utf-8"))
                if service in self.named("nginx"):
                    text = _local_nginx(text, own)
                (own / Path(inside).name).write_text(text, encoding="utf-8")

    def command(self, service: str) -> list[str]:
        """Return the command of a service. The commands of images that need none in the compose file are added."""
        written = [self.localized(service, word) for word in self.services[service].get("command", ())]
        if service in self.named("nats"):
            return ["nats-server", *written]
        if service in self.named("relay"):
            return [sys.executable, "-m", "relay", *(written or ["serve"])]
        return [*written, "-e", "stderr"]

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service: this process's, without its settings, and what the compose file says."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "NATS_"))}
        written = self.services[service].get("environment", {})
        own = {name: self.localized(service, str(value)) for name, value in written.items()}
        if service in self.named("relay"):
            own |= {"RELAY_SERVER_HOST": "127.0.0.1", "RELAY_SERVER_PORT": str(self.port(service, 8080))}
        return inherited | own | {"PATH": PATH}

    async def start(self, service: str) -> None:
        """Start a service, and wait until it answers.

        Raises:
            RuntimeError: It ended, or did not answer. The text has its log.
        """
        self._write_files(service)
        with self.log(service).open("ab") as log:
            # The kernel ends the process when this one is gone.
            self.processes[service] = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *self.command(service),
                env=self.environment(service),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        path, port = self._health(service)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _answers(port, path):
                    if self.processes[service].returncode is not None:
                        break
                    await asyncio.sleep(0.05)
                else:
                    return
        except TimeoutError:
            pass
        raise RuntimeError(f"{service} did not start:\n{self.log(service).read_text(errors='replace')}")

    async def stop(self, service: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal a service, and wait until it has ended. A service that has ended is left alone."""
        process = self.processes.pop(service)
        if process.returncode is None:
            signal_child(process, number)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                signal_child(process, signal.SIGKILL)
                await process.wait()

    def log(self, service: str) -> Path:
        """Return the file with what a service wrote to its standard output and error."""
        return self.directory / f"{service}.log"

    def _health(self, service: str) -> tuple[str | None, int]:
        """Return the path that answers 200 when the service works, and its port. Without a path, the port must open."""
        if service in self.named("nats"):
            return "/healthz?js-server-only=true", self.port(service, 8222)
        if service in self.named("relay"):
            return "/healthz", self.port(service, 8080)
        return None, self.port(service, 443)


@asynccontextmanager
async def running_cluster(
    services: Mapping[str, Mapping[str, Any]], directory: Path, free_port: Callable[[], int]
) -> AsyncIterator[LocalCluster]:
    """Run all services, first NATS, then the relays, then nginx, until the block ends."""
    cluster = LocalCluster(services, directory, free_port)
    kinds = ("nats", "relay", "nginx")
    try:
        for kind in kinds:
            await asyncio.gather(*map(cluster.start, cluster.named(kind)))
        yield cluster
    finally:
        # Relays that stop have something to say to NATS.
        for kind in reversed(kinds):
            running = [name for name in cluster.named(kind) if name in cluster.processes]
            await asyncio.gather(*map(cluster.stop, running))


def _fixed_addresses(networks: Mapping[str, Any]) -> list[str]:
    return [network["ipv4_address"] for network in networks.values() if network and "ipv4_address" in network]


def _local_nginx(text: str, directory: Path) -> str:
    """Keep nginx's own files in a directory, and run it as one process, which ends as a whole."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    text = text.replace("http {\n", f"http {{\n{paths}").replace("/run/nginx.pid", f"{directory}/nginx.pid")
    return text.replace("daemon off;", "daemon off;\nmaster_process off;")


async def _answers(port: int, path: str | None) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        if path is None:
            return True
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _make_certificate(directory: Path) -> dict[str, str]:
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    making = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "7", "-subj", "/CN=localhost"),
        *("-addext", names, "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await making.wait():
        sys.exit("openssl could not make a certificate.")
    return {"RELAY_CERTIFICATE": str(certificate), "RELAY_CERTIFICATE_KEY": str(key)}


async def _run() -> None:
    missing = [name for name in ("nats-server", "nginx", "openssl", "setpriv") if shutil.which(name, path=PATH) is None]
    if missing:
        sys.exit(f"This needs {' and '.join(missing)} on PATH.")
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    names = ("NATS_PASSWORD", "RELAY_BROADCAST_KEY", "RELAY_ACCESS_ADMIN_KEY")
    with tempfile.TemporaryDirectory(prefix="relay-cluster-") as directory:
        keys = {name: secrets.token_hex(24) for name in names}
        variables = keys | await _make_certificate(Path(directory))
        with contextlib.suppress(asyncio.CancelledError):
            async with running_cluster(read_compose(variables), Path(directory), _free_port) as cluster:
                print(f"SSL_CERT_FILE={variables['RELAY_CERTIFICATE']}")
                for name in names[1:]:
                    print(f"{name}={keys[name]}")
                print(f"nginx    https://localhost:{cluster.port('nginx', 443)}")
                for name in cluster.named("relay"):
                    print(f"{name}  http://127.0.0.1:{cluster.port(name, 8080)}")
                print(f"logs     {directory}", flush=True)
                await asked.wait()


if __name__ == "__main__":
    asyncio.run(_run())
