"""Every counter of the relay has a reader: it is in the table of metrics, or it is read elsewhere."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.metrics.table import METRICS, read_metrics
from relay.server.endings import By, Closing, Endings
from relay.vocabulary.errors import CloseCode

REPOSITORY = Path(__file__).parents[2]
PLACES = (
    "access",
    "audio",
    "client",
    "cluster",
    "hub",
    "limits",
    "loadtest",
    "metrics",
    "process",
    "protocol",
    "server",
)

READ_ELSEWHERE = {
    # Counters of one listener or source. `relay sessions` shows them, and the table has their sum.
    "overflows": "summed up in AudioBufferManager.overflow_count",
    "accepted": "told to the broadcaster",
    "held_bytes": "a level",
    "held_flicks": "a level",
    "sent": "BusOutbox: a position in its queue",
    "sent_bytes": "Account: a level",
    "value": "a level",
    "counts": "Distribution",
    "total": "Distribution",
    # Counters that the log reports in full at the end of an interval.
    "written": "Repeats: how many lines were written",
    "left_out": "Repeats: told by the line of what was left out",
    "dropped_seconds": "an episode of lost audio",
    "total_frames": "an episode of lost audio",
    "total_seconds": "an episode of lost audio",
    "departures": "when to collect garbage; relay_closings_total has them by code",
    # Counters of programs other than the relay. The users of those programs read them.
    "stats": "Reception.stats, which a client's program reads",
    "taken": "SendQueue: a client's own account",
    "dropped": "SendQueue: told by BroadcasterStats and `relay broadcast`",
    "cleared": "SendQueue: a client's own account",
    **dict.fromkeys(
        ("delivered", "gaps", "gap_frames", "unaccounted", "exact", "busy_seconds", "published", "received_bytes"),
        "the load test's report",
    ),
}


def sources(*places: str) -> Iterator[tuple[Path, ast.Module]]:
    for place in places:
        for path in sorted((REPOSITORY / "relay" / place).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def counters(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Find the attributes that the code adds to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            target = node.target.value if isinstance(node.target, ast.Subscript) else node.target
            if isinstance(target, ast.Attribute):
                yield target


def name(counter: ast.Attribute) -> str:
    """Return the attribute's name, or `stats` for a member of a client's statistics."""
    holder = counter.value
    return "stats" if isinstance(holder, ast.Attribute) and holder.attr == "stats" else counter.attr


def test_each_counter_is_in_the_table_or_read_for_another_reason() -> None:
    found = {name(each) for _, tree in sources(*PLACES) for each in counters(tree) if not each.attr.startswith("_")}
    in_table = {metric.source.partition(".")[2] for metric in METRICS}
    assert found - in_table == set(READ_ELSEWHERE)


@pytest.mark.parametrize("attribute", ["_seen", "seen"])
def test_the_search_finds_what_is_only_added_to(attribute: str) -> None:
    tree = ast.parse(f"def f(self, kind):\n    self.{attribute}[kind] += 1\n    self.x.{attribute} += 2\n    n += 1")
    assert [each.attr for each in counters(tree)] == [attribute, attribute]


def test_private_counters_are_read_where_they_are_counted() -> None:
    unread = []
    for path, tree in sources(""):
        added_to = list(counters(tree))
        named = Counter(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr[0] == "_")
        written = Counter(node.attr for node in [*added_to, *assigned(tree)])
        unread += [f"{path}: {each.attr}" for each in added_to if named[each.attr] == written[each.attr] > 0]
    assert unread == []


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Find the attributes that the code assigns to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (each for each in ast.walk(target) if isinstance(each, ast.Attribute))


def test_the_table_names_what_there_is() -> None:
    """Each metric names a class and an attribute that exist, and no name appears twice."""
    attributes: dict[str, set[str]] = {}
    for _, tree in sources(*PLACES):
        for each in ast.walk(tree):
            if isinstance(each, ast.ClassDef):
                attributes.setdefault(each.name, set()).update(_attributes(each))
    for metric in METRICS:
        holder, _, attribute = metric.source.partition(".")
        assert attribute in attributes[holder], metric.source
    for names in ([each.prometheus for each in METRICS], [each.cloudwatch for each in METRICS]):
        named = [name for name in names if name is not None]
        assert len(named) == len(set(named))


def _attributes(holder: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(holder):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.FunctionDef):
            yield node.name


def test_what_is_read_is_what_was_counted() -> None:
    endings = Endings()
    endings.note_answer(404)
    for code in (1008, 3999, 4321, CloseCode.NOT_ALLOWED):
        endings.note_closing(Closing(code, "", By.PEER), "listen")
    counts = {metric.prometheus: value for metric, value in read_metrics([endings])}
    assert counts["relay_http_responses"] == {404: 1}
    assert counts["relay_closings"] == {("1008", "listen"): 1, ("other", "listen"): 2, ("4502", "listen"): 1}
    assert counts["relay_messages_ignored"] == 0


def test_each_close_code_is_used() -> None:
    used = {
        each.attr
        for path, tree in sources("")
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "CloseCode"
    }
    # The WebSocket library produces these.
    assert set(CloseCode.__members__) - used == {"NOT_WEBSOCKET", "NOT_TAKEN", "TOO_BIG"}


@pytest.mark.parametrize(
    ("closing", "is_ordinary", "is_fault"),
    [
        (Closing(1000, "", By.PEER), True, False),
        (Closing(1001, "", By.PEER), True, False),
        (Closing(1005, "", By.PEER), True, False),
        (Closing(1000, "The session ended.", By.RELAY), True, False),
        (Closing(1012, "The relay is restarting.", By.RELAY), True, False),
        (Closing(1006, "The connection ended without a close frame.", By.NETWORK), False, False),
        (Closing(1006, "Nothing was heard of it.", By.RELAY), False, True),
        (Closing(1008, "", By.RELAY), False, True),
        (Closing(1011, "", By.RELAY), False, True),
        (Closing(4502, "", By.RELAY), False, False),
        (Closing(1002, "", By.PEER), False, False),
    ],
)
def test_what_nobody_need_be_told_and_what_is_a_fault(closing: Closing, *, is_ordinary: bool, is_fault: bool) -> None:
    assert (closing.is_ordinary, closing.is_fault) == (is_ordinary, is_fault)
