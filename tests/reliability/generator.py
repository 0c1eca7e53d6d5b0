"""`relay loadtest` beside a relay: many listeners in a separate process, which account for every frame."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.loads import Load
from tests.support.processes import RelayProcess, running

END_SECONDS = 60.0
"""How much longer than its audio a load test may take to start, join and end."""

RELAY_CPU, OTHERS_CPU = 0, 1


@dataclass(frozen=True, slots=True)
class Measured:
    """A load test's results: the named figures of docs/loadtest.md, and totals for healthy and stalled listeners."""

    metrics: dict[str, Any]
    healthy: dict[str, Any]
    slow: dict[str, Any]

    @property
    def lost_frames(self) -> int:
        """Return how many frames the healthy listeners missed."""
        return int(self.healthy["gap_frames"]) + self.unaccounted_frames

    @property
    def unaccounted_frames(self) -> int:
        return int(self.metrics["unaccounted_frames"]) + int(self.metrics["undelivered_frames"])


async def measure(relay: RelayProcess, load: Load, folder: Path, *options: str) -> Measured:
    """Run a load test until it exits; on an idle machine, it runs on another core than the relay."""
    if load.is_alone:
        os.sched_setaffinity(relay.pid, {RELAY_CPU})
        options = (*options, "--pin", str(OTHERS_CPU))
    path = folder / "result.json"
    arguments = ("--url", relay.websocket_url, "--json", str(path), *options)
    sizes = ("--listeners", str(load.listeners), "--duration", str(load.seconds))
    async with running("loadtest", *arguments, *sizes) as generator:
        code = await generator.wait(load.seconds + END_SECONDS)
        assert code == 0, generator.text
    result = json.loads(path.read_text(encoding="utf-8"))
    return Measured(result["metrics"], result["healthy"], result["slow"])
