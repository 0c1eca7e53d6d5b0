"""The rooms of relay/ and their floors: imports go down only.

A room imports rooms on lower floors, and never a neighbour on its own floor. Every import counts, even one inside a
function or under TYPE_CHECKING, because a module knows what it is written against. Pure modules receive the time as an
argument. They know no event loop, log, thread or socket. Each third-party package has one home.

The checker takes a mapping of paths to sources, so it can be tested on small made-up trees.
"""

import ast
import graphlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent.parent
LONG_LINES = 600
"""A file with more lines gets a warning, because it may cover two subjects."""

FLOORS = {
    "vocabulary": 1,
    "protocol": 2,
    "access": 2,
    "media": 2,
    "settings": 2,
    "process": 3,
    "audio": 3,
    "capacity": 3,
    "limits": 3,
    "metrics": 3,
    "pages": 3,
    "hub": 4,
    "server": 5,
    "client": 5,
    "cluster": 5,
    "loadtest": 6,
    "supervisor": 6,
    "cli": 7,
}
# `relay` itself exports the public names, which live in audio. `python -m relay` is the command line.
ROOM_OF_TOP_LEVEL = {"relay": "audio", "relay.__main__": "cli"}

SOCKETS = frozenset({"http", "select", "selectors", "socket", "socketserver", "ssl"})
IMPURE = SOCKETS | {"asyncio", "logging", "threading", "time"}
ALLOWED: Mapping[str, frozenset[str]] = {
    "relay.vocabulary.clock": frozenset({"time"}),
    "relay.media.pipe": frozenset({"select"}),
    "relay.process": frozenset({"asyncio", "logging", "threading"}),
    "relay.limits.in_force": frozenset({"asyncio", "logging"}),
    "relay.metrics.cloudwatch": frozenset({"asyncio"}),
    "relay.metrics.reporter": frozenset({"asyncio", "logging"}),
    "relay.hub": frozenset({"asyncio", "logging"}),
    "relay.server": IMPURE,
    "relay.client": frozenset({"asyncio"}),
    "relay.cluster": frozenset({"asyncio", "logging"}),
    "relay.cluster.nats_link": frozenset({"ssl"}),
    "relay.cluster.nats_login": frozenset({"ssl"}),
    "relay.client.operator_client": frozenset({"http"}),
    "relay.client.transport": IMPURE,
    "relay.loadtest": IMPURE,
    "relay.supervisor": IMPURE,
    "relay.cli": IMPURE,
}
"""What each module, or each room with all its modules, may import from `IMPURE`. All others are pure."""

PURE = frozenset(
    {
        *(f"relay.client.{name}" for name in ("outbox", "page_address", "reception", "reconnect", "send_queue")),
        *(f"relay.cluster.{name}" for name in ("outbox", "presence")),
        *(
            f"relay.loadtest.{name}"
            for name in (
                *("account", "charts", "frame_reader", "histogram", "plan", "recorder", "report_page", "results"),
                *("target", "worker"),
            )
        ),
        "relay.server.shutdown",
    }
)
"""Pure modules in rooms that are otherwise impure."""

HOMES: Mapping[str, tuple[str, ...]] = {
    "aiobotocore": ("relay.metrics.cloudwatch",),
    "av": ("relay.media.decoded", "relay.media.resampling"),
    "botocore": ("relay.metrics.cloudwatch",),
    "click": ("relay.cli",),
    "h11": ("relay.protocol.http1",),
    "jwt": ("relay.access.tokens",),
    "lameenc": ("relay.media.mp3",),
    "nats": ("relay.cluster.nats_link",),
    "prometheus_client": ("relay.metrics.prometheus",),
    "psutil": ("relay.loadtest.server_probe",),
    "pydantic": ("relay.settings",),
    "pydantic_core": ("relay.settings",),
    "rich": ("relay.cli", "relay.loadtest.table"),
    "segno": ("relay.pages.qr_codes",),
    "structlog": ("relay.process.logs",),
    "types_aiobotocore_cloudwatch": ("relay.metrics.cloudwatch",),
    "uvloop": ("relay.process.event_loop",),
    "websockets": ("relay.server", "relay.client.transport"),
}
"""Where each third-party package may be imported."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module in a file of relay/."""

    path: str
    line: int
    importer: str
    imported: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.imported}"


class LongFileWarning(UserWarning):
    """A file may cover two subjects. The warning fails no test."""


def module_name(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    name = ROOM_OF_TOP_LEVEL.get(module) or module.removeprefix("relay.").split(".")[0]
    return name if name in FLOORS else None


def is_within(module: str, places: Iterable[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def imports_in(path: str, source: str, modules: set[str]) -> Iterator[Import]:
    """Find all imports. `from package import name` counts as `package.name` if that is one of the modules."""
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            imported = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            whole = {f"{package}.{alias.name}" for alias in node.names}
            imported = {name if name in modules else package for name in whole}
        else:
            continue
        for name in sorted(imported):
            yield Import(path, node.lineno, module_name(path), name)


def problems(sources: Mapping[str, str]) -> Iterator[str]:
    """Check a tree of sources.

    Args:
        sources: Maps a path, such as relay/core/wire.py, to the content of that file.

    Yields:
        One sentence for each problem.
    """
    paths = {module_name(path): path for path in sources}
    needs: dict[str, set[str]] = {path: set() for path in sources}
    for path, source in sources.items():
        if not path.endswith(".py"):
            continue
        if room_of(module_name(path)) is None:
            yield f"{path} is in no room: there are {', '.join(FLOORS)}."
            continue
        for found in imports_in(path, source, set(paths)):
            if found.imported.split(".")[0] == "relay":
                yield from problems_inside(found)
            else:
                yield from problems_outside(found)
            if found.imported in paths:
                needs[path].add(paths[found.imported])
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        circle = " imports ".join(reversed(error.args[1]))
        yield f"{circle}: a circle; what they share belongs in a third."


def problems_inside(found: Import) -> Iterator[str]:
    """Check that one module of relay may import another."""
    here, there = room_of(found.importer), room_of(found.imported)
    if here is None or there is None or here == there:
        return
    if FLOORS[there] > FLOORS[here]:
        yield f"{found}, which goes up from {here} to {there}: hand it in from above instead."
    elif FLOORS[there] == FLOORS[here]:
        yield f"{found}: {here} and {there} stand on one floor and do not know each other."


def problems_outside(found: Import) -> Iterator[str]:
    """Check an import from the standard library or from a third party."""
    here, package = found.importer, found.imported.split(".")[0]
    if package in IMPURE:
        allowed = (names for place, names in ALLOWED.items() if is_within(here, (place,)))
        if here in PURE or package not in frozenset().union(*allowed):
            yield f"{found}, which {here} does without."
    elif package not in sys.stdlib_module_names and not is_within(here, HOMES.get(package, ())):
        yield f"{found}, whose home is {' or '.join(HOMES.get(package, ('not decided',)))}."


def test_relay_keeps_to_its_floors() -> None:
    files = [path for path in (ROOT / "relay").rglob("*") if path.suffix in {".py", ".js"}]
    files = [path for path in files if not {"node_modules", "dist"} & set(path.parts)]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}
    assert {room_of(module_name(path)) for path in sources if path.endswith(".py")} == set(FLOORS)
    modules = set(map(module_name, sources))
    assert modules >= PURE
    assert modules >= set(ALLOWED)
    for path, source in sources.items():
        if (lines := len(source.splitlines())) > LONG_LINES:
            warnings.warn(f"{path} has {lines} lines: is it one subject?", LongFileWarning, stacklevel=1)
    assert list(problems(sources)) == []


def test_no_test_takes_anything_from_another() -> None:
    paths = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    modules = set(map(module_name, paths))
    found = [each for path, source in paths.items() for each in imports_in(path, source, modules)]
    taken = [str(each) for each in found if any(part.startswith("test_") for part in each.imported.split("."))]
    assert taken == [], "what tests share belongs in tests/support"


GOOD = {
    "relay/__init__.py": "from relay.audio.buffers import Buffer",
    "relay/__main__.py": "from relay.cli.main import main",
    "relay/vocabulary/clock.py": "from time import monotonic",
    "relay/settings/settings.py": "import pydantic",
    "relay/audio/__init__.py": "",
    "relay/audio/buffers.py": "from collections import deque\nfrom relay.vocabulary.clock import Clock",
    "relay/audio/channel.py": "from relay.audio import buffers",
    "relay/process/logs.py": "import structlog",
    "relay/hub/hub.py": "import asyncio\nimport logging\nfrom relay.audio.buffers import Buffer",
    "relay/server/__init__.py": "",
    "relay/server/app.py": "import websockets\nfrom relay.server import connection",
    "relay/server/connection.py": "import socket\nfrom relay.hub import hub",
    "relay/pages/player.js": "export const player = null;",
    "relay/client/listener.py": "import asyncio\nfrom relay.process.logs import configure",
    "relay/cli/main.py": "import click\nfrom relay import __version__\nfrom relay.client.listener import Listener",
}


def test_the_checker_accepts_a_good_tree() -> None:
    assert list(problems(GOOD)) == []


BAD = {
    "up": (
        "relay/audio/channel.py",
        "\nfrom relay.hub import hub",
        ":2 imports relay.hub.hub, which goes up from audio to hub: hand it in from above instead.",
    ),
    "up, for types only": (
        "relay/hub/hub.py",
        "if TYPE_CHECKING:\n    import relay.cli.main",
        ":2 imports relay.cli.main, which goes up from hub to cli: hand it in from above instead.",
    ),
    "up, inside a function": (
        "relay/settings/settings.py",
        "def f():\n    from relay import Buffer",
        ":2 imports relay, which goes up from settings to audio: hand it in from above instead.",
    ),
    "neighbours": (
        "relay/server/app.py",
        "from relay.client.listener import Listener",
        ":1 imports relay.client.listener: server and client stand on one floor and do not know each other.",
    ),
    "client with a third party": (
        "relay/client/listener.py",
        "from websockets.asyncio import client",
        ":1 imports websockets.asyncio, whose home is relay.server or relay.client.transport.",
    ),
    "unknown third party": (
        "relay/audio/channel.py",
        "import numpy",
        ":1 imports numpy, whose home is not decided.",
    ),
    "no room": ("relay/helpers.py", "", f" is in no room: there are {', '.join(FLOORS)}."),
    "circle": (
        "relay/audio/buffers.py",
        "import relay.audio.channel",
        " imports relay/audio/channel.py imports relay/audio/buffers.py: a circle; what they share belongs in a third.",
    ),
    "asyncio": (
        "relay/audio/channel.py",
        "import asyncio.events",
        ":1 imports asyncio.events, which relay.audio.channel does without.",
    ),
    "logging": (
        "relay/audio/channel.py",
        "import logging",
        ":1 imports logging, which relay.audio.channel does without.",
    ),
    "a clock": (
        "relay/audio/channel.py",
        "from time import monotonic",
        ":1 imports time, which relay.audio.channel does without.",
    ),
    "hub with a socket": ("relay/hub/hub.py", "import socket", ":1 imports socket, which relay.hub.hub does without."),
    "pure in a room that is not": (
        "relay/loadtest/plan.py",
        "import asyncio",
        ":1 imports asyncio, which relay.loadtest.plan does without.",
    ),
}


@pytest.mark.parametrize(("path", "source", "problem"), BAD.values(), ids=BAD.keys())
def test_the_checker_names_the_offender(path: str, source: str, problem: str) -> None:
    assert list(problems({**GOOD, path: source})) == [path + problem]
