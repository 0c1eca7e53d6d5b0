"""The relay uses only public interfaces: no attribute of a foreign object begins with an underscore.

An attribute is the relay's own if its object is `self` or `cls`, or if a class in the same module has an attribute of
that name. The checker works on source text, so it can be tested on small made-up modules.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OWN = frozenset({"self", "cls"})
BY_NAME = frozenset({"getattr", "setattr", "hasattr", "delattr"})

PUBLISHED = frozenset({"_asdict", "_exit", "_replace"})
"""Documented names that begin with an underscore: methods of named tuples, and `os._exit`."""

KNOWN = frozenset({("relay/server/tls.py", "_ssl_protocol"), ("relay/server/tls.py", "_transport")})
"""asyncio does not expose the transport below TLS. The relay works without it where it is missing."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PUBLISHED


def is_own(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in OWN


def attributes_of_classes(tree: ast.Module) -> set[str]:
    """Find the attributes of the module's own classes: assigned to `self`, declared, or defined as methods."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node.value)}
    for defined in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for statement in defined.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(statement.name)
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found.add(statement.target.id)
    return found


def private_attributes(source: str) -> Iterator[tuple[int, str]]:
    """Find the private attributes of foreign objects, with their line numbers."""
    tree = ast.parse(source)
    own = attributes_of_classes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not is_own(node.value) and node.attr not in own:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
            for argument in node.args[1:2]:
                if (
                    isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                    and is_private(argument.value)
                ):
                    yield node.lineno, argument.value
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("relay"):
            for name in [*(node.module or "").split("."), *(alias.name for alias in node.names)]:
                if is_private(name):
                    yield node.lineno, name


def test_relay_uses_no_private_attribute_of_anybody_else() -> None:
    found, known = [], set()
    for path in sorted((ROOT / "relay").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for line, attribute in private_attributes(path.read_text(encoding="utf-8")):
            if (name, attribute) in KNOWN:
                known.add((name, attribute))
            else:
                found.append(f"{name}:{line} uses {attribute}")
    assert found == []
    assert known == KNOWN, "an exception that nothing needs any more"


OWN_CLASS = "class Point:\n    def __init__(self):\n        self._x = 1\n    def __eq__(self, other):\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("connection._transport.abort()", [(1, "_transport")]),
        ("self._connection._transport", [(1, "_transport")]),
        ("getattr(transport, '_ssl_protocol', None)", [(1, "_ssl_protocol")]),
        ("from asyncio.sslproto import _Hidden", [(1, "_Hidden")]),
        ("from websockets._private import name", [(1, "_private")]),
        ("class A:\n    def f(self):\n        return super()._g()", []),
        (f"{OWN_CLASS}        return self._x == other._x", []),
        (f"{OWN_CLASS}        return self._x == other._y", [(5, "_y")]),
        ("value.__class__.__name__", []),
    ],
)
def test_the_checker_tells_own_from_foreign(source: str, found: list[tuple[int, str]]) -> None:
    assert list(private_attributes(source)) == found
