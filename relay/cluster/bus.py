"""What a node needs from the bus that connects the nodes of a cluster.

The bus carries live messages, remembers the last seconds of them, keeps small records that change only by
compare-and-set, and knows which nodes are alive. `relay.cluster.nats_bus` implements it on NATS.

Invariants: Callbacks run on the event loop and must not block. `publish` and `say` never block or raise. While the bus
is down, they keep messages up to a bound, and deliver them when it is back. Receivers must therefore accept messages
twice, late, or out of order.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from relay.vocabulary.errors import CloseCode, RelayError


class BusDownError(RelayError):
    """The bus does not answer. The request may or may not have had an effect."""

    close_code = CloseCode.INTERNAL
    http_status = 503


class ConflictError(RelayError):
    """Another node wrote the record first. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it is stored.

    Attributes:
        value: Its bytes.
        revision: Changes with each write. `Bus.write` compares it to detect the writes of others.
    """

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive, as the other nodes know it.

    Attributes:
        id: Unique for each process.
        version: The relay's version.
        url: Its address, for people; empty if unknown.
        is_draining: Whether it is about to stop.
        listeners: How many listeners it has.
    """

    id: str
    version: str
    url: str
    is_draining: bool
    listeners: int


class Subscription(Protocol):
    """A subscription to a subject."""

    def close(self) -> None:
        """Receive nothing more. A second call changes nothing."""


class Bus(Protocol):
    """The bus, as one node sees it. Subjects and keys are given without the cluster's prefix.

    Attributes:
        node_id: The id of this node.
        on_record: Called with a key and its record, or None if the record was deleted: for all records when the bus
            starts and when it is back after it was down, and for each change. A change may be reported twice, but
            never after a newer one. Records that the bus lost with its memory do not count as deleted, because their
            writers write them again.
        on_up: Called when the bus is back after it was down, and the records have been read again.
        on_nodes: Called when a node came or went.
    """

    node_id: str
    on_record: Callable[[str, Record | None], None]
    on_up: Callable[[], None]
    on_nodes: Callable[[], None]

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes that are alive, by id, including this one."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether the bus answered within the last seconds."""
        ...

    def publish(self, subject: str, payload: bytes) -> None:
        """Send a message to all subscribers, and to the memory of the bus.

        The node keeps unconfirmed messages for some seconds, and sends them again after a failure. If there are too
        many, it drops the oldest. The second part of the subject names a session. A session that sends much is
        remembered for a shorter time.
        """
        ...

    def keep(self, subject: str, payload: bytes) -> None:
        """Publish a message that is of use only in the memory of the bus.

        The node drops it if its session sends faster than the memory can forget.
        """
        ...

    def replace(self, subject: str, payload: bytes) -> None:
        """Publish a message, and forget the earlier ones of its subject in the memory of the bus."""
        ...

    async def publish_stored(self, subject: str, payload: bytes) -> None:
        """Send a message, and wait until the memory of the bus has it and everything that was published before.

        Raises:
            BusDownError: The bus did not confirm it in time.
        """
        ...

    async def repeat(self) -> None:
        """Send what the bus has not confirmed again, in order, and wait until its memory has it.

        Raises:
            BusDownError: The bus did not confirm it in time.
        """
        ...

    async def fetch(self, subject: str, since: float | None = None) -> list[bytes]:
        """Return the messages of a subject that the memory has, oldest first.

        Args:
            subject: The subject.
            since: Return only messages that arrived at this time or later, in seconds since 1970; None for all.

        Raises:
            BusDownError: The bus did not answer in time.
        """
        ...

    async def subscribe(self, subject: str, take: Callable[[bytes], None]) -> Subscription:
        """Call `take` with each message of a subject from now on. The subscription survives failures of the bus.

        When this returns, the bus has the subscription, or is down.
        """
        ...

    async def read(self, key: str) -> Record | None:
        """Return a record; None if there is none.

        Raises:
            BusDownError: The bus did not answer in time.
        """
        ...

    async def write(self, key: str, value: bytes, revision: int | None) -> int:
        """Write a record if it still has this revision, or create it if `revision` is None. Return the new revision.

        Raises:
            ConflictError: Another node wrote it, or it exists already.
            BusDownError: The bus did not answer in time.
        """
        ...

    async def delete(self, key: str, revision: int) -> None:
        """Delete a record if it still has this revision.

        Raises:
            ConflictError: Another node wrote it.
            BusDownError: The bus did not answer in time.
        """
        ...

    def say(self, name: str, payload: bytes) -> None:
        """Send news to all nodes, including this one. The bus does not remember it."""
        ...

    async def hear(self, name: str, take: Callable[[bytes], None]) -> Subscription:
        """Call `take` with each piece of news of this name."""
        ...

    async def ask(self, name: str, payload: bytes, seconds: float) -> dict[str, bytes]:
        """Ask all nodes, and return their answers by node id as soon as all have answered or the time is over.

        Nodes that are alive and missing in the result did not answer in time.
        """
        ...

    async def ask_one(self, node_id: str, name: str, payload: bytes, seconds: float) -> bytes:
        """Ask one node.

        Raises:
            BusDownError: It did not answer in time.
        """
        ...

    async def answer(self, name: str, reply: Callable[[bytes], Awaitable[bytes]]) -> Subscription:
        """Answer questions with this name, whether they are for all nodes or for this one."""
        ...

    def describe(self, *, url: str, is_draining: bool, listeners: int) -> None:
        """Change what other nodes know of this one.

        They learn it with the next renewal, or at once if this node begins to drain.
        """
        ...
