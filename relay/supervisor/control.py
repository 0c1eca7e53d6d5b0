"""The messages between a supervisor and its worker: lines of JSON over a pair of connected sockets.

The supervisor sends one `Assignment` before the worker starts, and nothing after it. The worker sends reports. The end
of the stream means that the other process has ended in some way. Keys are sent here and not on the command line, which
every user of the machine can read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from relay.access.local_key import LocalKey

BEAT_SECONDS = 0.5
"""How often a worker reports that its event loop runs."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker needs besides its configuration.

    Attributes:
        number: The worker's number, from 1. A worker that replaces another gets the same.
        descriptors: The sockets to listen on, which the worker inherits.
        keys: The keys that the supervisor made, for all workers.
    """

    number: int
    descriptors: tuple[int, ...]
    keys: Mapping[LocalKey, str]

    def line(self) -> bytes:
        """Return the assignment as it is sent."""
        return _line(asdict(self))

    @classmethod
    def read(cls, line: bytes) -> "Assignment":
        """Read what `line` returned."""
        fields = json.loads(line)
        keys = {LocalKey(kind): key for kind, key in fields["keys"].items()}
        return cls(fields["number"], tuple(fields["descriptors"]), keys)


class News(StrEnum):
    """What a worker reports."""

    ALIVE = "alive"
    """Its event loop runs."""

    READY = "ready"
    """It serves clients."""

    FAULT = "fault"
    """It cannot start, because the configuration cannot be used."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report of a worker.

    Attributes:
        news: What it reports.
        text: Of a fault, the sentence for the operator. Of `READY`, the worker's name as a node of the cluster.
    """

    news: News
    text: str = ""

    def line(self) -> bytes:
        """Return the report as it is sent."""
        return _line(asdict(self))

    @classmethod
    def read(cls, line: bytes) -> "Report":
        """Read what `line` returned."""
        fields = json.loads(line)
        return cls(News(fields["news"]), fields["text"])


def _line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
