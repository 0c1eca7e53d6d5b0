"""What the main process of a load test and its receiving processes tell each other, as lines of JSON.

The main process asks, and a receiving process answers with one report where it says so, in order:

    plan    →  joins whoever comes before the audio
    report  →  a report of what happened since the last one
    start   →  the audio begins at this time, and the rest of the plan follows it
    settle  →  the audio is over; a report, and from now on who is closed normally must have got all of it
    finish  →  waits for what is owed, closes everything, reports for the last time, and ends
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from relay.loadtest.account import Accounts
from relay.loadtest.expect import Expect
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import Visit

NORMAL_CLOSE = "1000"
"""How connections end that the relay closed with their session."""

LEFT = "left"
"""How connections end that were given up as planned."""

STILL_OPEN = "still open"
"""How connections end that nobody closed until the test stopped waiting."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a listener connects to.

    Attributes:
        host: An IP address; resolving names is done before, once.
        port: TCP port.
        path: Request target of the WebSocket.
        host_header: What the request says in `Host`.
        tls_name: The name that the certificate must have; None is without TLS.
        expect: What the server sends.
        token: Shown to the server, if any.
    """

    host: str
    port: int
    path: str
    host_header: str
    tls_name: str | None = None
    expect: Expect = Expect.RELAY_V1
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What one receiving process does.

    Attributes:
        targets: The channels.
        visits: The connections.
        joining_at_once: How many connections may be under way to their greeting.
        join_limit_seconds: How long those before the audio may take together; who is not in by then has failed.
        cpu: The one CPU that it may run on; None leaves that to the system.
        nap_seconds: How long it sleeps between two looks at its sockets; 0 has each of them wake it.
    """

    targets: list[Target]
    visits: list[Visit]
    joining_at_once: int = 64
    join_limit_seconds: float = 60.0
    cpu: int | None = None
    nap_seconds: float = 0.0

    def to_line(self) -> bytes:
        """Give the plan as a line."""
        return _line("plan", asdict(self))

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> "WorkerPlan":
        """Make one of the members of its line."""
        rest = {name: value for name, value in members.items() if name not in ("do", "targets", "visits")}
        targets = [Target(**target | {"expect": Expect(target["expect"])}) for target in members["targets"]]
        return cls(targets=targets, visits=[Visit(**visit) for visit in members["visits"]], **rest)


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in a receiving process; amounts are since its last report unless said otherwise.

    Attributes:
        joining: Connections of before the audio that neither joined nor failed yet, now.
        connected: Listeners that are there, now.
        latency: How late frames were, of those who read.
        joins: How long joining took.
        received_bytes: Of those who read, with all headers of WebSocket.
        gap_frames: Frames that gaps named, of those who read.
        lag_ms: The longest that an event may have waited for its turn.
        cpu_seconds: CPU time since the process began.
        waiting_seconds: Time since it began in which it wanted a CPU and others had it; None where nobody counts that.
        clock_offset_ms: The relay's clock less ours, the middle of what is possible; None while nothing is known.
        clock_uncertainty_ms: How far from it the truth may be.
        failures: Why connections never joined, and how often, since the process began.
        closes: How connections of those who read ended, and how often, since the process began.
        slow_closes: Likewise, of those who did not read.
        healthy: Accounts that are closed, of those who read, since the process began.
        slow: Likewise, of those who did not read.
    """

    joining: int = 0
    connected: int = 0
    latency: Histogram = field(default_factory=Histogram)
    joins: Histogram = field(default_factory=Histogram)
    received_bytes: int = 0
    gap_frames: int = 0
    lag_ms: float = 0.0
    cpu_seconds: float = 0.0
    waiting_seconds: float | None = None
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)
    closes: dict[str, int] = field(default_factory=dict)
    slow_closes: dict[str, int] = field(default_factory=dict)
    healthy: Accounts = field(default_factory=Accounts)
    slow: Accounts = field(default_factory=Accounts)

    def to_line(self) -> bytes:
        """Give the report as a line."""
        members = {name: getattr(self, name) for name in self.__slots__}
        members["latency"], members["joins"] = self.latency.to_json(), self.joins.to_json()
        members["healthy"], members["slow"] = asdict(self.healthy), asdict(self.slow)
        return _line("report", members)

    @classmethod
    def read(cls, line: bytes) -> "Report":
        """Make one of its line."""
        members = json.loads(line)
        del members["do"]
        for name in ("latency", "joins"):
            members[name] = Histogram.from_json(members[name])
        for name in ("healthy", "slow"):
            members[name] = Accounts(**members[name])
        return cls(**members)


REPORT_LINE = b'{"do":"report"}\n'
"""Asks for a report."""


def start_line(at_seconds: float) -> bytes:
    """Say when the audio begins, by the clock of this machine; not answered."""
    return _line("start", {"at_seconds": at_seconds})


def settle_line(published: list[int]) -> bytes:
    """Say how many frames each target's channel got; answered by a report."""
    return _line("settle", {"published": published})


def finish_line(wait_seconds: float) -> bytes:
    """Say how long to wait for what is owed; answered by the last report."""
    return _line("finish", {"wait_seconds": wait_seconds})


def _line(do: str, members: Mapping[str, Any]) -> bytes:
    return json.dumps({"do": do, **members}, separators=(",", ":")).encode() + b"\n"
