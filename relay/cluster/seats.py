"""Counts seats over all nodes. Each node reports the seats of each session and each address, and adds up the reports.

A node reports once a second what changed, even if nothing did. Reports are numbered, so a node that missed one notices
it at the next one, and asks for all counts.

Invariants: After two rounds without faults, the sum is that of all living nodes. A node that is gone no longer counts.
The counts are absolute, so a report that arrives twice changes nothing. A node keeps at most `MAX_COUNTS` counts of
another one. For sessions and addresses beyond that, a limit applies to each node separately.
"""

import asyncio
import json
import secrets
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any, Self

from relay.cluster.bus import Bus, BusDownError
from relay.limits.names import Limit
from relay.limits.seats import Counted, Seats

ROUND_SECONDS = 1.0
"""How often a node reports what changed."""

ANSWER_SECONDS = 0.5
"""How long a node may take to send all its counts. A silent node delays the next round by this much."""

MAX_COUNTS = 10_000
"""The most sessions and addresses that a node keeps of another one, and puts into one report. They take a megabyte or
two in memory, and 700 KB in a message with the longest names. NATS allows 1 MiB."""

_NAME = "seats"


@dataclass(slots=True)
class _Told:
    """What another node has reported.

    Attributes:
        run: The node's process, because a new one may have the name of an old one.
        number: The number of its latest report.
        is_complete: Whether all reports up to this one are known.
        counts: Its seats.
    """

    run: str
    number: int
    is_complete: bool = False
    counts: dict[Counted, int] = field(default_factory=dict)


class SharedSeats:
    """The seats of all nodes. It is an async context manager. Within it, this node hears the others. `run` is its task.

    Attributes:
        not_kept: Number of times that a count of another node was not kept, because there were too many.
    """

    def __init__(self, bus: Bus, seats: Seats) -> None:
        self._bus = bus
        self._seats = seats
        self._run = secrets.token_hex(4)
        self._number = 0
        self._changed: set[Counted] = set()
        self._told: dict[str, _Told] = {}
        self._elsewhere: Counter[Counted] = Counter()
        self._stack = ExitStack()
        self.not_kept = 0

    async def __aenter__(self) -> Self:
        self._seats.elsewhere = self.elsewhere
        self._seats.on_change = self._changed.add
        for subscription in (await self._bus.hear(_NAME, self._take), await self._bus.answer(_NAME, self._reply)):
            self._stack.callback(subscription.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()

    def elsewhere(self, counted: Counted) -> int:
        """Return how many seats of a session or an address the other nodes have."""
        return self._elsewhere[counted]

    async def run(self) -> None:
        """Do a round every `ROUND_SECONDS`, forever."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            await self.round()

    async def round(self) -> None:
        """Report what changed, forget nodes that are gone, and ask nodes whose reports are incomplete."""
        self._say_changes()
        for node in self._told.keys() - self._bus.nodes.keys():
            self._replace(self._told.pop(node), {})
        async with asyncio.TaskGroup() as group:
            for node in self._bus.nodes.keys() - {self._bus.node_id}:
                told = self._told.get(node)
                if told is None or not told.is_complete:
                    group.create_task(self._ask(node), name=f"seats of {node}")

    def _say_changes(self) -> None:
        said = [self._changed.pop() for _ in range(min(len(self._changed), MAX_COUNTS))]
        self._number += 1
        self._bus.say(_NAME, self._encode([(counted, self._seats.taken(counted)) for counted in said]))

    async def _reply(self, _: bytes) -> bytes:
        return self._encode(nlargest(MAX_COUNTS, self._seats.shared(), key=lambda each: each[1]))

    async def _ask(self, node: str) -> None:
        try:
            answer = await self._bus.ask_one(node, _NAME, b"", ANSWER_SECONDS)
            _, run, number, counts = _decode(answer)
        except (BusDownError, TypeError, ValueError):
            return  # The node is silent, or its version answers differently.
        told = self._told.get(node)
        if told is not None and told.run == run and told.number > number:
            return  # A newer report came before the answer. The next round asks again.
        told = self._told.setdefault(node, _Told(run, number))
        told.run, told.number, told.is_complete = run, number, True
        self._replace(told, counts)

    def _take(self, payload: bytes) -> None:
        """Take in the report of a node."""
        try:
            node, run, number, counts = _decode(payload)
        except (TypeError, ValueError):
            return  # The version of the node reports differently.
        if node == self._bus.node_id or node not in self._bus.nodes:
            return
        told = self._told.get(node)
        if told is None or told.run != run:
            if told is not None:
                self._replace(told, {})
            told = self._told[node] = _Told(run, number)
        elif number <= told.number:
            return
        elif number > told.number + 1:
            told.is_complete = False
        told.number = number
        for counted, seats in counts.items():
            self._set(told, counted, seats)

    def _replace(self, told: _Told, counts: dict[Counted, int]) -> None:
        for counted in told.counts.keys() - counts.keys():
            self._set(told, counted, 0)
        for counted, seats in counts.items():
            self._set(told, counted, seats)

    def _set(self, told: _Told, counted: Counted, seats: int) -> None:
        before = told.counts.get(counted, 0)
        if seats and not before and len(told.counts) == MAX_COUNTS:
            self.not_kept += 1
            return
        if seats:
            told.counts[counted] = seats
        else:
            told.counts.pop(counted, None)
        self._elsewhere[counted] += seats - before
        if not self._elsewhere[counted]:
            del self._elsewhere[counted]

    def _encode(self, counts: list[tuple[Counted, int]]) -> bytes:
        listed = [[limit, name, seats] for (limit, name), seats in counts]
        message = [self._bus.node_id, self._run, self._number, listed]
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _decode(payload: bytes) -> tuple[str, str, int, dict[Counted, int]]:
    node, run, number, listed = json.loads(payload)
    counts: Any = {(Limit(limit), name): seats for limit, name, seats in listed}
    return node, run, number, counts
