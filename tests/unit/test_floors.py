"""The floors of relay/: imports go down only, core has no I/O and no clock, adapters do not know each other.

Every import counts, also one inside a function or under TYPE_CHECKING: what a module is written against is what it
knows. The checker works on a mapping of paths to sources, so that it is itself tested on small made-up trees.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent.parent
MAX_LINES = 600


@dataclass(frozen=True, slots=True)
class Floor:
    """One floor, and what of the world outside of relay its modules may not import."""

    number: int
    banned: frozenset[str] = frozenset()
    """Modules of the standard library."""
    third_party: frozenset[str] | None = frozenset()
    """The third-party packages that it may import; None: any."""


SOCKETS = frozenset({"http", "select", "selectors", "socket", "socketserver", "ssl"})
FLOORS = {
    "vocabulary": Floor(0, banned=SOCKETS | {"asyncio", "logging"}, third_party=frozenset({"pydantic"})),
    "core": Floor(1, banned=SOCKETS | {"asyncio", "logging", "threading", "time"}),
    "runtime": Floor(2, banned=SOCKETS),
    "adapters": Floor(3, third_party=None),
    "client": Floor(4, banned=SOCKETS),
    "cli": Floor(5, third_party=None),
}
# `relay` itself hands out the public names, which live in core, and `python -m relay` is the command line.
FLOOR_OF_TOP_LEVEL = {"relay": "core", "relay.__main__": "cli"}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of one module, in a file of relay/."""

    path: str
    line: int
    importer: str
    imported: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.imported}"


def module_name(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_name(module: str) -> str | None:
    name = FLOOR_OF_TOP_LEVEL.get(module) or module.removeprefix("relay.").split(".")[0]
    return name if name in FLOORS else None


def adapter_name(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["relay", "adapters"] and len(parts) > 2 else None


def imports_in(path: str, source: str, modules: set[str]) -> Iterator[Import]:
    """Find all imports; `from package import name` is one of `package.name` where that is among the modules."""
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
    """Check a tree.

    Args:
        sources: From a path, such as relay/core/wire.py, to what is in that file.

    Yields:
        A sentence for each thing that is wrong.
    """
    paths = {module_name(path): path for path in sources}
    needs: dict[str, set[str]] = {path: set() for path in sources}
    for path, source in sources.items():
        if len(source.splitlines()) > MAX_LINES:
            yield f"{path} has more than {MAX_LINES} lines: it is asking to be two files."
        if not path.endswith(".py"):
            continue
        if floor_name(module_name(path)) is None:
            yield f"{path} is on no floor: there are {', '.join(FLOORS)}."
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
    """Check an import of one module of relay by another."""
    here, there = floor_name(found.importer), floor_name(found.imported)
    if here and there and FLOORS[there].number > FLOORS[here].number:
        yield f"{found}, which goes up from {here} to {there}: hand it in from above instead."
    one, other = adapter_name(found.importer), adapter_name(found.imported)
    if one and other and one != other:
        yield f"{found}: adapters do not know each other, relay.cli brings them together."


def problems_outside(found: Import) -> Iterator[str]:
    """Check an import from the standard library or of a third party."""
    here = floor_name(found.importer)
    package = found.imported.split(".")[0]
    if here and package in FLOORS[here].banned:
        yield f"{found}, which {here} does without: it belongs on a higher floor."
    third_party = FLOORS[here].third_party if here else None
    if third_party is not None and package not in third_party | sys.stdlib_module_names:
        yield f"{found}, which is no business of {here}: an adapter may."


def test_relay_keeps_to_its_floors() -> None:
    files = [path for path in (ROOT / "relay").rglob("*") if path.suffix in {".py", ".js"}]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}
    assert {floor_name(module_name(path)) for path in sources} >= set(FLOORS)
    assert list(problems(sources)) == []


def test_no_test_takes_anything_from_another() -> None:
    paths = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    modules = set(map(module_name, paths))
    found = [each for path, source in paths.items() for each in imports_in(path, source, modules)]
    taken = [str(each) for each in found if any(part.startswith("test_") for part in each.imported.split("."))]
    assert taken == [], "what tests share belongs in tests/support"


GOOD = {
    "relay/__init__.py": "from relay.core.buffers import Buffer",
    "relay/__main__.py": "from relay.cli.main import main",
    "relay/vocabulary/clock.py": "from time import monotonic",
    "relay/vocabulary/settings.py": "import pydantic",
    "relay/core/__init__.py": "",
    "relay/core/buffers.py": "from collections import deque\nfrom relay.vocabulary.clock import Clock",
    "relay/core/channel.py": "from relay.core import buffers",
    "relay/runtime/hub.py": "import asyncio\nimport logging\nfrom relay.core.buffers import Buffer",
    "relay/adapters/server/__init__.py": "",
    "relay/adapters/server/app.py": "import websockets\nfrom relay.adapters.server import connection",
    "relay/adapters/server/connection.py": "import socket\nfrom relay.runtime import hub",
    "relay/adapters/logs.py": "import structlog",
    "relay/pages/player.js": "export const player = null;",
    "relay/client/listener.py": "import asyncio\nfrom relay.adapters.logs import configure",
    "relay/cli/main.py": "import click\nfrom relay import __version__\nfrom relay.client.listener import Listener",
}


def test_the_checker_accepts_a_good_tree() -> None:
    assert list(problems(GOOD)) == []


BAD = {
    "up": (
        "relay/core/channel.py",
        "\nfrom relay.runtime import hub",
        ":2 imports relay.runtime.hub, which goes up from core to runtime: hand it in from above instead.",
    ),
    "up, for types only": (
        "relay/runtime/hub.py",
        "if TYPE_CHECKING:\n    import relay.cli.main",
        ":2 imports relay.cli.main, which goes up from runtime to cli: hand it in from above instead.",
    ),
    "up, inside a function": (
        "relay/vocabulary/settings.py",
        "def f():\n    from relay import Buffer",
        ":2 imports relay, which goes up from vocabulary to core: hand it in from above instead.",
    ),
    "up, to the client": (
        "relay/adapters/server/app.py",
        "from relay.client.listener import Listener",
        ":1 imports relay.client.listener, which goes up from adapters to client: hand it in from above instead.",
    ),
    "client with a third party": (
        "relay/client/listener.py",
        "from websockets.asyncio import client",
        ":1 imports websockets.asyncio, which is no business of client: an adapter may.",
    ),
    "no floor": (
        "relay/helpers.py",
        "",
        " is on no floor: there are vocabulary, core, runtime, adapters, client, cli.",
    ),
    "adapter to adapter": (
        "relay/adapters/logs.py",
        "from relay.adapters.server.app import serve",
        ":1 imports relay.adapters.server.app: adapters do not know each other, relay.cli brings them together.",
    ),
    "circle": (
        "relay/core/buffers.py",
        "import relay.core.channel",
        " imports relay/core/channel.py imports relay/core/buffers.py: a circle; what they share belongs in a third.",
    ),
    "core with asyncio": (
        "relay/core/channel.py",
        "import asyncio.events",
        ":1 imports asyncio.events, which core does without: it belongs on a higher floor.",
    ),
    "core with logging": (
        "relay/core/channel.py",
        "import logging",
        ":1 imports logging, which core does without: it belongs on a higher floor.",
    ),
    "core with a clock": (
        "relay/core/channel.py",
        "from time import monotonic",
        ":1 imports time, which core does without: it belongs on a higher floor.",
    ),
    "core with a third party": (
        "relay/core/channel.py",
        "import numpy",
        ":1 imports numpy, which is no business of core: an adapter may.",
    ),
    "runtime with a third party": (
        "relay/runtime/hub.py",
        "from websockets.asyncio import server",
        ":1 imports websockets.asyncio, which is no business of runtime: an adapter may.",
    ),
    "runtime with a socket": (
        "relay/runtime/hub.py",
        "import socket",
        ":1 imports socket, which runtime does without: it belongs on a higher floor.",
    ),
    "too long": (
        "relay/cli/main.py",
        "\n" * (MAX_LINES + 1),
        " has more than 600 lines: it is asking to be two files.",
    ),
    "page too long": (
        "relay/pages/player.js",
        "//\n" * (MAX_LINES + 1),
        " has more than 600 lines: it is asking to be two files.",
    ),
}


@pytest.mark.parametrize(("path", "source", "problem"), BAD.values(), ids=BAD.keys())
def test_the_checker_names_the_offender(path: str, source: str, problem: str) -> None:
    assert list(problems({**GOOD, path: source})) == [path + problem]
