"""A cluster of real relays on real NATS servers, of which each process and each link can fail.

Each relay reaches each NATS server through a proxy of its own, so a test can cut the links of one relay alone.
"""

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.nats import NatsServer, nats, nats_cluster, relay_settings, until_ready
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process

_READ_BYTES = 16 * 1024

_NO_LIMITS = dict.fromkeys(
    (
        "RELAY_LIMITS_MAX_CONNECTIONS_PER_ADDRESS",
        "RELAY_LIMITS_MAX_REQUESTS_PER_SECOND_PER_ADDRESS",
        "RELAY_LIMITS_MAX_JOINS_PER_SECOND_PER_ADDRESS",
        "RELAY_LIMITS_MAX_JOINS_PER_SECOND",
        "RELAY_LIMITS_MAX_FAILURES_PER_MINUTE",
    ),
    "never",
)
"""All clients of a test have one address."""


class Node:
    """One relay of a cluster. It keeps its port when it is started again.

    Attributes:
        url: `http://127.0.0.1:PORT`.
        links: Its links to the NATS servers.
        serves: Whether a load balancer would send new clients there.
    """

    def __init__(self, name: str, links: Sequence[FaultProxy], settings: dict[str, str]) -> None:
        self._port = free_port()
        self._name = name
        self._starts = 0
        self._settings = settings
        self._running = AsyncExitStack()
        self._process: RelayProcess | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.links = links
        self.serves = False

    @property
    def process(self) -> RelayProcess:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._starts += 1
        url = ",".join(link.url for link in self.links)
        settings = {**relay_settings(url, node=f"{self._name}{self._starts}"), **_NO_LIMITS, **self._settings}
        starting = relay_process("--port", str(self._port), **settings)
        self._process = await self._running.enter_async_context(starting)
        self.serves = True

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.serves = False
        await self.process.kill()
        await self._running.aclose()

    async def terminate(self) -> int:
        """End it in order with SIGTERM, and return its exit code."""
        self.serves = False
        code = await self.process.terminate()
        await self._running.aclose()
        return code

    async def close(self) -> None:
        """End it, whatever it does."""
        await self._running.aclose()

    def stop(self) -> None:
        """Stop it with SIGSTOP: its connections stay open, and it does nothing."""
        self.serves = False
        self.process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue it after `stop`."""
        self.process.signal(signal.SIGCONT)
        self.serves = True

    def cut(self) -> None:
        """Cut its links to NATS."""
        for link in self.links:
            link.cut()

    def vanish(self) -> None:
        """Drop every packet between it and NATS: neither side learns that the link is gone."""
        for link in self.links:
            link.vanish()

    def heal(self) -> None:
        """Mend its links to NATS."""
        for link in self.links:
            link.mend()
            link.appear()


class Front:
    """Sends each connection to the next relay that serves, as a load balancer does.

    Attributes:
        url: Its address.
        last: The node of the latest connection.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._turn = itertools.count()
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.last: Node = nodes[0]

    async def open(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._nodes:
            node = self._nodes[next(self._turn) % len(self._nodes)]
            if not node.serves:
                continue
            with suppress(OSError):
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", int(node.url.split(":")[-1]))
                self.last = node
                await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
                return
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


class RelayCluster:
    """The parts of a running cluster.

    Attributes:
        servers: Its NATS servers.
        nodes: Its relays.
        front: A load balancer before the relays.
    """

    def __init__(self, servers: Sequence[NatsServer], nodes: Sequence[Node], front: Front) -> None:
        self.servers = servers
        self.nodes = nodes
        self.front = front

    @property
    def serving(self) -> list[Node]:
        """The relays to which a client may go."""
        return [node for node in self.nodes if node.serves]

    def another(self, node: Node) -> Node:
        """Return a relay that serves and is not this one."""
        return next(each for each in self.nodes if each is not node and each.serves)

    def any_url(self, choice: random.Random) -> str:
        """Return the address of any relay that serves."""
        return choice.choice(self.serving or list(self.nodes)).url

    async def kill_nats(self) -> None:
        """Kill all NATS servers. What they remember is lost."""
        await asyncio.gather(*(server.kill() for server in self.servers))

    async def start_nats(self) -> None:
        """Start all NATS servers again, empty."""
        for server in self.servers:
            server.log.unlink(missing_ok=True)
        await asyncio.gather(*(server.start() for server in self.servers))
        if len(self.servers) > 1:
            await until_ready(self.servers)

    def logged(self, *levels: str) -> list[dict[str, object]]:
        """Return the lines of these levels in the logs of the present processes."""
        return [line for node in self.nodes for line in node.process.log if line.get("level") in levels]


@asynccontextmanager
async def relay_cluster(
    directory: Path, *, relays: int = 3, servers: int = 1, **settings: str
) -> AsyncIterator[RelayCluster]:
    """Run a cluster.

    Args:
        directory: Where the NATS servers keep their files.
        relays: The number of relays.
        servers: The number of NATS servers; with three, each record and message has three copies.
        settings: Environment variables for the relays.
    """
    async with AsyncExitStack() as stack:
        running = (
            [await stack.enter_async_context(nats(directory))]
            if servers == 1
            else await stack.enter_async_context(nats_cluster(directory, servers=servers))
        )
        settings = {"RELAY_CLUSTER_REPLICAS": str(len(running)), **settings}
        nodes = []
        for name in "abcdefgh"[:relays]:
            links = [await stack.enter_async_context(fault_proxy(server.url)) for server in running]
            nodes.append(Node(name, links, settings))
        await _close_with(stack, nodes)
        await asyncio.gather(*(node.start() for node in nodes))
        front = Front(nodes)
        server = await front.open()
        stack.callback(server.close)
        yield RelayCluster(running, nodes, front)


async def _close_with(stack: AsyncExitStack, nodes: Iterable[Node]) -> None:
    for node in nodes:
        stack.push_async_callback(node.close)
