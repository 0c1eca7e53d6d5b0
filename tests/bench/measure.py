"""One measurement: a server on its CPU, the load test's engine on the other, and the results.

The same receiver measures every server, from the moment the broadcaster sends a frame until the listener's process has
read it. The broadcaster writes that moment into the audio, so no server's clock matters.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from relay.loadtest.plan import LoadPlan
from relay.loadtest.results import LoadResult
from relay.loadtest.run import STOPPED, LoadRun
from relay.loadtest.server_probe import find_server
from relay.loadtest.source import Source, relay_source
from relay.loadtest.target import Expect, Target
from relay.vocabulary.names import ChannelAddress
from tests.bench.disturbance import Disturbance, Witness
from tests.bench.servers import GENERATOR_CPU, SERVER_CPU, Running, Server, Speaks, serving
from tests.bench.sources import HttpSource, NchanSource

SESSION = "bench"

CALM_SECONDS = 0.2
"""Between the last join and the first frame, without clock comparisons."""


@dataclass(frozen=True)
class Measured:
    """The results of one run.

    Attributes:
        result: The load test's result.
        disturbances: What others used of the CPUs during the run.
    """

    result: LoadResult
    disturbances: Sequence[Disturbance]

    def __getitem__(self, metric: str) -> float:
        """Return a figure by its name in `METRICS`.

        Raises:
            ValueError: This run could not measure it. The message gives the reason if it is known.
        """
        value = self.result.metrics()[metric]
        if value is None:
            raise ValueError(f"{metric} was not measured: {self.trouble or 'nobody knows why'}")
        return value

    @property
    def trouble(self) -> str | None:
        """The reason why listeners stayed out or the run ended early, in one sentence; None without trouble."""
        for reason, count in self.result.failures.items():
            return f"{count:,} did not get in: {reason}"
        return self.result.ended_early

    @property
    def lost(self) -> float:
        """The frames that a listener missed, whether the server reported them or not."""
        metrics = self.result.metrics()
        names = ("gap_frames", "unaccounted_frames", "undelivered_frames")
        return sum(metrics[name] or 0 for name in names)


@asynccontextmanager
async def source_at(
    server: Server, running: Running, plan: LoadPlan, session: str = SESSION
) -> AsyncIterator[tuple[Source, Target]]:
    """Connect a broadcaster; yield it and the target for its listeners."""
    host, port = "127.0.0.1", running.port
    target = Target(host, port, f"/listen/{session}", f"{host}:{port}", expect=Expect.STAMPED)
    match server.speaks:
        case Speaks.RELAY_V1:
            address = ChannelAddress(session)
            async with relay_source(plan, running.url, [address], None) as source:
                path = f"/v1/listen/{address}?{plan.query}"
                yield source, replace(target, path=path, expect=Expect.RELAY_V1_STAMPED, codec=plan.codec)
        case Speaks.NCHAN:
            async with NchanSource(plan, running.url, session) as nchan_source:
                yield nchan_source, target
        case Speaks.HTTP:
            async with HttpSource(plan, port, session) as http_source:
                yield http_source, replace(target, path=f"/{session}", expect=Expect.STREAM)


def measure(server: Server, plan: LoadPlan) -> Measured:
    """Start a server, load it by a plan, and stop it.

    Raises:
        StartError: The server did not start.
        RelayError: No broadcaster can connect.
        KeyboardInterrupt: The user interrupted the measurement.
    """
    with serving(server) as running:
        witness = Witness(running.pid, SERVER_CPU, GENERATOR_CPU)
        result = asyncio.run(_load(server, running, plan))
        disturbances = witness.tell()
    return checked(Measured(result, disturbances))


async def _load(server: Server, running: Running, plan: LoadPlan) -> LoadResult:
    probe = find_server(running.port)
    async with source_at(server, running, replace(plan, url=running.url)) as (source, target):
        return await LoadRun(plan, [target], source, probe=probe, calm_seconds=CALM_SECONDS).run()


def checked(measured: Measured) -> Measured:
    """Return the measurement, or raise KeyboardInterrupt if the user interrupted it."""
    if measured.result.ended_early == STOPPED:
        raise KeyboardInterrupt
    return measured
