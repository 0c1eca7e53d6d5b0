"""A soak: churn for a time, samples of what the relay uses, and whether it has everything back afterwards."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.server import count_files
from tests.soak import watched
from tests.soak.churn import SETTINGS, Churn
from tests.soak.slopes import slope
from tests.support.live_session import resident_bytes
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import closing, open_listener

SAMPLE_SECONDS = 1.0
SETTLE_SECONDS = 30.0
"""How long what is left may take to go: the stall limit, a closing handshake."""

WARM_UP = 0.2
"""The share of a soak that is not looked at: allocators and caches fill."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a relay uses at a moment."""

    seconds: float
    memory_mb: float
    descriptors: int
    tasks: int


FIGURES: dict[str, Callable[[Sample], float]] = {
    "memory (MB)": lambda sample: sample.memory_mb,
    "descriptors": lambda sample: sample.descriptors,
    "tasks": lambda sample: sample.tasks,
}


@dataclass(slots=True)
class Report:
    """What came of a soak.

    Attributes:
        loop: The event loop.
        seconds: How long it was.
        before: With a listener and nothing else.
        samples: During the churn.
        after: With the same listener, once all others had gone.
        counts: See `Churn`.
        cut_off: Listeners whom the relay cut off.
        problems: What must not be.
    """

    loop: str
    seconds: float
    before: Sample
    samples: list[Sample] = field(default_factory=list)
    after: Sample | None = None
    counts: dict[str, int] = field(default_factory=dict)
    cut_off: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def warm(self) -> list[Sample]:
        return self.samples[int(len(self.samples) * WARM_UP) :]

    def lines(self) -> list[str]:
        """Tell it to a person."""
        assert self.after is not None
        counted = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        lines = [f"soak of {self.seconds / 60:g} min on {self.loop}: {counted}, {self.cut_off} cut off by the relay"]
        for name, value in FIGURES.items():
            found = slope([sample.seconds for sample in self.warm], [value(sample) for sample in self.warm])
            line = f"{found.per_hour:+8.1f} ± {found.noise_per_hour:.1f} an hour"
            at_work = max(value(sample) for sample in self.warm)
            ends = f"{value(self.before):g} before, {at_work:g} at most, {value(self.after):g} after"
            lines.append(f"  {name:12} {line:28} {ends}")
        return lines + [f"  WRONG: {problem}" for problem in self.problems]


class Watch:
    """Samples of one relay."""

    def __init__(self, relay: RelayProcess) -> None:
        self._relay = relay
        self._taken = 0
        self._began = asyncio.get_running_loop().time()

    async def sample(self) -> Sample:
        self._taken += 1
        self._relay.signal(signal.SIGUSR1)
        start = f'{{"event": "{watched.EVENT}", "number": {self._taken}, "tasks": '
        line = await self._relay.line(lambda line: line.startswith(start))
        return Sample(
            seconds=asyncio.get_running_loop().time() - self._began,
            memory_mb=resident_bytes(self._relay) / 1e6,
            descriptors=count_files(self._relay),
            tasks=int(line.removeprefix(start).removesuffix("}")),
        )


async def soak(loop: str, seconds: float, lives: int, progress: Callable[[Sample], None] | None = None) -> Report:
    """Run a relay on an event loop, let listeners live and die for a time, and look what is left."""
    async with relay_process(module="tests.soak.watched", RELAY_SERVER_LOOP=loop, **SETTINGS) as relay:
        steady = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([steady]):
            watch = Watch(relay)
            report = Report(loop, seconds, await watch.sample())
            churn = Churn(relay, steady, lives)
            async with asyncio.TaskGroup() as group:
                churning = group.create_task(churn.run(seconds))
                while not churning.done():
                    report.samples.append(await watch.sample())
                    if progress is not None:
                        progress(report.samples[-1])
                    await asyncio.wait([churning], timeout=SAMPLE_SECONDS)
            await steady.until_ended()
        report.counts = dict(churn.counts)
        await _settle(watch, report)
        if await relay.terminate() != 0:
            report.problems.append(f"the relay ended with {relay.returncode}")
        _reconcile(relay, churn, report)
    return report


async def _settle(watch: Watch, report: Report) -> None:
    """Wait until everything is given back; the steady listener of the base has left, too."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLE_SECONDS
    while True:
        report.after = await watch.sample()
        # A connection has a descriptor, and no task.
        if report.after.descriptors < report.before.descriptors and report.after.tasks <= report.before.tasks:
            return
        if loop.time() > until:
            report.problems.append(f"descriptors or tasks are left: {report.after}, and before {report.before}")
            return
        await asyncio.sleep(SAMPLE_SECONDS)


def _reconcile(relay: RelayProcess, churn: Churn, report: Report) -> None:
    """Hold what the relay says against what its clients saw."""
    steady = churn.steady
    steady.account()
    if steady.gaps or steady.close_code != 1000:
        report.problems.append(f"the steady listener lost {steady.gaps}, and was closed with {steady.close_code}")
    signs = [line for line in relay.lines if "Traceback" in line or "crashed" in line]
    report.problems.extend(signs[:3])
    log = relay.log
    closed = [record for record in log if record["event"] == "connection closed"]
    cut_off = [record["reason"] for record in closed if (record["code"], record["by"]) == (1006, "relay")]
    report.cut_off = len(cut_off)
    told = sum(int(record.get("stall_limit_seconds", 0)) for record in log if record["event"] == "limits were applied")
    stalled = sum(reason.startswith(("The client sent nothing", "The client read nothing")) for reason in cut_off)
    left_out = sum(record["lines"] for record in log if record.get("of") == "1006 listen by relay")
    if not stalled <= told <= stalled + left_out:
        report.problems.append(f"the counter says {told} were cut off for the stall limit, the log {stalled}")
