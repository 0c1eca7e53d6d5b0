"""The nodes that are alive, as their records say.

Invariants: this node is always among them. Another node stays until it says goodbye, or until it has been silent for
`LIFE_SECONDS` while the bus worked.
"""

import json
from dataclasses import dataclass, replace

from relay.cluster.bus import Node

LIFE_SECONDS = 15.0
"""How long a node counts as alive after its last record. It renews the record every 2 s."""


@dataclass(slots=True)
class _Heard:
    node: Node
    at: float


class Presence:
    """See the module's docstring.

    Attributes:
        nodes: The nodes that are alive, by id.
        own: This node.
    """

    def __init__(self, own: Node) -> None:
        self.own = own
        self.nodes: dict[str, Node] = {own.id: own}
        self._heard: dict[str, _Heard] = {}

    def describe(self, *, url: str, is_draining: bool, listeners: int) -> bool:
        """Change this node, and return whether the others should know at once: whether `is_draining` changed."""
        before = self.own
        self.own = replace(before, url=url, is_draining=is_draining, listeners=listeners)
        self.nodes[self.own.id] = self.own
        return before.is_draining is not is_draining

    def hear(self, node: Node, now: float) -> bool:
        """Take a node's record, and return whether the node is new or differs in more than its listeners."""
        if node.id == self.own.id:
            return False
        before = self.nodes.get(node.id)
        self.nodes[node.id] = node
        self._heard[node.id] = _Heard(node, now)
        return before is None or replace(before, listeners=node.listeners) != node

    def leave(self, node_id: str) -> bool:
        """Remove a node that said goodbye, and return whether it was there."""
        return self._heard.pop(node_id, None) is not None and self.nodes.pop(node_id, None) is not None

    def expire(self, now: float) -> bool:
        """Remove the nodes that have been silent for too long, and return whether there were any."""
        silent = [node_id for node_id, heard in self._heard.items() if heard.at < now - LIFE_SECONDS]
        for node_id in silent:
            self.leave(node_id)
        return bool(silent)

    def refresh(self, now: float) -> None:
        """Give all nodes their full time again, because no node could be heard while the bus was down."""
        for heard in self._heard.values():
            heard.at = now


def write_node(node: Node) -> bytes:
    """Return the record of a node."""
    record = {
        "version": node.version,
        "url": node.url,
        "draining": node.is_draining,
        "listeners": node.listeners,
    }
    return json.dumps(record, separators=(",", ":")).encode()


def read_node(node_id: str, record: bytes) -> Node | None:
    """Return the node of a record; None if the record has another form."""
    try:
        parsed = json.loads(record)
        return Node(
            node_id,
            str(parsed["version"]),
            str(parsed["url"]),
            is_draining=parsed["draining"] is True,
            listeners=int(parsed["listeners"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
