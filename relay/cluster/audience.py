"""Counts the listeners of a channel on all nodes, for its broadcaster.

Each node reports how many listeners the channels that it follows have there. The home of a channel adds them up.

Bound: one count for each node and each channel of the cluster.
"""

import json
from collections.abc import Iterable

from relay.cluster.bus import Bus
from relay.cluster.ownership import key_of
from relay.hub.channel import Channel
from relay.hub.directory import Directory
from relay.vocabulary.names import ChannelAddress

ROUNDS_UNTIL_REPEATED = 10
"""After this many rounds, a node repeats its report even if nothing changed."""

_NAME = "audience"


class Audience:
    """The listeners of all nodes. `round` is called every half second."""

    def __init__(self, bus: Bus, directory: Directory) -> None:
        self._bus = bus
        self._directory = directory
        self._said: dict[str, int] = {}
        self._rounds = 0
        self._elsewhere: dict[str, dict[str, int]] = {}

    def round(self, followed: Iterable[ChannelAddress], homes: Iterable[Channel]) -> None:
        """Report the listeners of each followed channel here, and add up those of the channels with their home here."""
        counts = {}
        for address in followed:
            channel = self._directory.find(address)
            if channel is not None and channel.listener_count:
                counts[key_of(address)] = channel.listener_count
        # Nodes that joined since the last report have not heard it.
        if counts != self._said or self._rounds % ROUNDS_UNTIL_REPEATED == 0:
            self._said = counts
            self._bus.say(_NAME, json.dumps([self._bus.node_id, counts]).encode())
        self._rounds += 1
        self._elsewhere = {node: said for node, said in self._elsewhere.items() if node in self._bus.nodes}
        for channel in homes:
            key = key_of(channel.address)
            channel.listeners_elsewhere = sum(said.get(key, 0) for said in self._elsewhere.values())

    async def hear(self) -> None:
        """Receive the reports of other nodes from now on."""
        await self._bus.hear(_NAME, self._take)

    def _take(self, payload: bytes) -> None:
        node, counts = json.loads(payload)
        if node != self._bus.node_id:
            self._elsewhere[node] = counts
