"""A bus in memory, which connects nodes within one process.

It keeps the promises of `relay.cluster.bus`, and no others. Whatever a node sends reaches the bus on a later turn of
the event loop, and other nodes on a turn after that, in order. A node can be cut off, as if its link were down: what it
sends then waits, up to a bound, and what others send passes it by.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from types import TracebackType
from typing import Self, TypeVar

from relay.cluster.bus import BusDownError, ConflictError, Node, Record
from relay.vocabulary.clock import wall_clock as time_of_day

MAX_WAITING_MESSAGES = 10_000
"""Messages of a node that wait for its link. Beyond it, the oldest is dropped."""

_TWICE = 0.1
_LATE = 0.1
_LATE_SECONDS = 0.05

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Take = Callable[[bytes], None]
Reply = Callable[[bytes], Awaitable[bytes]]


class MemoryCluster:
    """What all nodes share: the memory, the records, and the list of nodes.

    Args:
        delay_seconds: How long a message takes from a node to the bus, and from the bus to a node.
        answer_seconds: How long a node waits for the bus before it raises `BusDownError`.
        memory_seconds: How long the bus remembers messages.
        expiry_seconds: How long after a cut the other nodes take a node for dead.
        wall_clock: Returns the time of day.
        disorder: Delivers some live messages twice, and some late. None delivers each once, in order.
    """

    def __init__(
        self,
        *,
        delay_seconds: float = 0.0,
        answer_seconds: float = 0.2,
        memory_seconds: float = 60.0,
        expiry_seconds: float = 0.05,
        wall_clock: Callable[[], float] = time_of_day,
        disorder: Random | None = None,
    ) -> None:
        self.delay_seconds = delay_seconds
        self.answer_seconds = answer_seconds
        self.memory_seconds = memory_seconds
        self.expiry_seconds = expiry_seconds
        self.disorder = disorder
        self.records: dict[str, Record] = {}
        self.buses: dict[str, MemoryBus] = {}
        self.nodes: dict[str, Node] = {}
        self._wall_clock = wall_clock
        self._memory: dict[str, deque[tuple[float, bytes]]] = {}
        self._revision = 0

    def bus(self, node_id: str) -> "MemoryBus":
        """Return the bus as a node sees it. It begins with `MemoryBus.begin`, or as a context manager."""
        return MemoryBus(self, node_id)

    def cut(self) -> None:
        """Cut off all nodes, as if every server of the bus were down."""
        for bus in self.buses.values():
            bus.cut()

    def heal(self) -> None:
        """Connect all nodes again."""
        for bus in self.buses.values():
            bus.heal()

    def lose_memory(self) -> None:
        """Forget all messages and records, as a bus without a disk does when it restarts. Revisions begin anew."""
        self._memory.clear()
        self.records.clear()
        self._revision = 0

    async def settle(self) -> None:
        """Wait until all that was sent has arrived, except from and to nodes that are cut off."""
        while any(bus.is_busy for bus in self.buses.values()):  # noqa: ASYNC110 - each turn carries one step
            await asyncio.sleep(self.delay_seconds)

    # What follows happens in the bus, on behalf of a node.

    def remember(self, subject: str, payload: bytes) -> None:
        """Keep a message, and deliver it to all subscribers."""
        kept = self._memory.setdefault(subject, deque())
        now = self._wall_clock()
        kept.append((now, payload))
        while kept[0][0] < now - self.memory_seconds:
            kept.popleft()
        self.deliver(("message", subject), payload)

    def replace(self, subject: str, payload: bytes) -> None:
        """Keep a message in place of all earlier ones of its subject."""
        self._memory.pop(subject, None)
        self.remember(subject, payload)

    def deliver(self, kind: tuple[str, str], payload: bytes) -> None:
        """Send a live message to all nodes."""
        for bus in self.buses.values():
            bus.receive(partial(bus.hand_over, kind, payload), is_live=True)

    def recall(self, subject: str, since: float | None) -> list[bytes]:
        """Return what is remembered of a subject."""
        oldest = max(self._wall_clock() - self.memory_seconds, since or 0.0)
        return [payload for at, payload in self._memory.get(subject, ()) if at >= oldest]

    def write(self, key: str, value: bytes, revision: int | None) -> int:
        """Write a record if its revision is still this one."""
        self._check(key, revision)
        self._revision += 1
        self._change(key, Record(value, self._revision))
        return self._revision

    def delete(self, key: str, revision: int) -> None:
        """Delete a record if its revision is still this one."""
        self._check(key, revision)
        self._change(key, None)

    def enlist(self, node: Node) -> None:
        """Add a node, or change what is known of it."""
        self.nodes[node.id] = node
        self._tell_nodes()

    def expire(self, node_id: str) -> None:
        """Take a node for dead."""
        if self.nodes.pop(node_id, None) is not None:
            self._tell_nodes()

    def _tell_nodes(self) -> None:
        for bus in self.buses.values():
            bus.receive(partial(bus.update_nodes, dict(self.nodes)))

    def _check(self, key: str, revision: int | None) -> None:
        record = self.records.get(key)
        if (None if record is None else record.revision) != revision:
            raise ConflictError(f"Another node has written {key}.")

    def _change(self, key: str, record: Record | None) -> None:
        if record is None:
            del self.records[key]
        else:
            self.records[key] = record
        for bus in self.buses.values():
            bus.receive(partial(bus.report_record, key, record))


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    taken_from: list[Take]
    take: Take

    def close(self) -> None:
        if self.take in self.taken_from:
            self.taken_from.remove(self.take)


@dataclass(frozen=True, slots=True, eq=False)
class _Answering:
    replies: dict[str, Reply]
    name: str
    reply: Reply

    def close(self) -> None:
        if self.replies.get(self.name) is self.reply:
            del self.replies[self.name]


class MemoryBus:
    """One node's side of the bus; see `relay.cluster.bus.Bus`. An async context manager that begins and ends it.

    Attributes:
        dropped: Number of messages that were dropped, because too many waited for the link.
    """

    def __init__(self, cluster: MemoryCluster, node_id: str) -> None:
        self.node_id = node_id
        self.nodes: Mapping[str, Node] = {node_id: Node(node_id, "0", "", is_draining=False, listeners=0)}
        self.on_record: Callable[[str, Record | None], None] = lambda _key, _record: None
        self.on_up: Callable[[], None] = lambda: None
        self.on_nodes: Callable[[], None] = lambda: None
        self.dropped = 0
        self._cluster = cluster
        self._is_linked = False
        self._cuts = 0
        self._node = self.nodes[node_id]
        self._takes: dict[tuple[str, str], list[Take]] = {}
        self._replies: dict[str, Reply] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.TimerHandle | None = None
        # What is on its way to the bus and from it, and what waits for the link.
        self._leaving: deque[Callable[[], None]] = deque()
        self._arriving: deque[Callable[[], None]] = deque()
        self._waiting: deque[Callable[[], None]] = deque(maxlen=MAX_WAITING_MESSAGES)

    async def __aenter__(self) -> Self:
        self.begin()
        await self._reach(lambda: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    def begin(self) -> None:
        """Connect the node. Set the callbacks first."""
        self._cluster.buses[self.node_id] = self
        self._connect()

    async def end(self) -> None:
        """Disconnect the node for good. The others notice at once."""
        self._is_linked = False
        self._cancel_expiry()
        self._cluster.buses.pop(self.node_id, None)
        self._cluster.expire(self.node_id)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Cut the node off. Whatever is on its way is lost, except what it published and said itself."""
        if self._is_linked:
            self._is_linked = False
            self._cuts += 1
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._cluster.expiry_seconds, self._cluster.expire, self.node_id)

    def heal(self) -> None:
        """Connect the node again. The bus then gets what waited."""
        if not self._is_linked and self.node_id in self._cluster.buses:
            self._connect()
            self.receive(self._report_up)
            while self._waiting:
                self._leave(self._waiting.popleft(), is_kept=True)

    def _connect(self) -> None:
        self._is_linked = True
        self._cancel_expiry()
        self._leave(lambda: self._cluster.enlist(self._node))
        self._leave(lambda: self.receive(self._report_all, is_live=False))

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()

    @property
    def is_up(self) -> bool:
        """Whether the node is connected."""
        return self._is_linked

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way to the node or from it."""
        return bool(self._leaving or self._arriving)

    # On its way. Each handler carries one item, whichever is first, so the order stays.

    def _leave(self, action: Callable[[], None], *, is_kept: bool = False) -> None:
        """Do something in the bus, later. If the node is cut off by then, the action waits or is lost."""
        if not self._is_linked:
            if is_kept:
                self._wait(action)
            return
        self._leaving.append(partial(self._arrive_at_bus, action, is_kept))
        self._later(self._leaving)

    def _arrive_at_bus(self, action: Callable[[], None], is_kept: bool) -> None:
        if self._is_linked:
            action()
        elif is_kept:
            self._wait(action)

    def _wait(self, action: Callable[[], None]) -> None:
        self.dropped += len(self._waiting) == MAX_WAITING_MESSAGES
        self._waiting.append(action)

    def receive(self, action: Callable[[], None], *, is_live: bool = False) -> None:
        """Do something at the node, later, unless it is cut off."""
        if not self._is_linked:
            return
        disorder = self._cluster.disorder
        if is_live and disorder is not None:
            late = partial(self._arrive_at_node, action)
            is_late = disorder.random() < _LATE
            if is_late or disorder.random() < _TWICE:
                asyncio.get_running_loop().call_later(disorder.random() * _LATE_SECONDS, late)
            if is_late:
                return
        self._arriving.append(partial(self._arrive_at_node, action))
        self._later(self._arriving)

    def _arrive_at_node(self, action: Callable[[], None]) -> None:
        if self._is_linked:
            action()

    def _later(self, queue: deque[Callable[[], None]]) -> None:
        loop = asyncio.get_running_loop()

        def carry() -> None:
            queue.popleft()()

        if self._cluster.delay_seconds:
            loop.call_later(self._cluster.delay_seconds, carry)
        else:
            loop.call_soon(carry)

    async def _reach(self, act: Callable[[], Result], *, is_kept: bool = False) -> Result:
        """Do something in the bus, and return its result, or raise its error."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def settle(result: Result | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)  # type: ignore[arg-type]
            else:
                answer.set_exception(error)

        def do() -> None:
            try:
                result, error = act(), None
            except ConflictError as conflict:
                result, error = None, conflict
            self.receive(partial(settle, result, error))

        self._leave(do, is_kept=is_kept)
        cuts = self._cuts
        while True:
            try:
                # `asyncio.wait_for` of Python 3.11 can lose a cancellation.
                async with asyncio.timeout(self._cluster.answer_seconds):
                    return await asyncio.shield(answer)
            except TimeoutError:
                # A slow machine is no reason to give up; a link that was cut is.
                if not self._is_linked or self._cuts != cuts:
                    raise BusDownError("The bus does not answer.") from None

    # Called by the bus

    def hand_over(self, kind: tuple[str, str], payload: bytes) -> None:
        """Hand a live message to all that want it."""
        for take in tuple(self._takes.get(kind, ())):
            take(payload)

    def report_record(self, key: str, record: Record | None) -> None:
        """Report a change of a record."""
        self.on_record(key, record)

    def _report_all(self) -> None:
        for key, record in tuple(self._cluster.records.items()):
            self.on_record(key, record)

    def _report_up(self) -> None:
        self.receive(self.on_up)

    def update_nodes(self, nodes: Mapping[str, Node]) -> None:
        """Take over the list of nodes."""
        before, self.nodes = self.nodes.keys(), nodes
        if before != nodes.keys():
            self.on_nodes()

    def question(self, name: str, payload: bytes, answered: Callable[[bytes], None]) -> None:
        """Answer a question in a task of its own."""
        reply = self._replies.get(name)
        if reply is None:
            return

        async def work() -> None:
            try:
                answer = await reply(payload)
            except Exception:
                logger.exception("a question could not be answered")
            else:
                self._leave(lambda: answered(answer))

        task = asyncio.get_running_loop().create_task(work(), name=f"answer to {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The protocol

    def publish(self, subject: str, payload: bytes) -> None:
        """Send a message to all subscribers, and to the memory of the bus."""
        self._leave(partial(self._cluster.remember, subject, payload), is_kept=True)

    def keep(self, subject: str, payload: bytes) -> None:
        """Publish a message that is of use only in the memory of the bus."""
        self.publish(subject, payload)

    def replace(self, subject: str, payload: bytes) -> None:
        """Publish a message, and forget the earlier ones of its subject."""
        self._leave(partial(self._cluster.replace, subject, payload), is_kept=True)

    async def publish_stored(self, subject: str, payload: bytes) -> None:
        """Send a message, and wait until the memory of the bus has it."""
        await self._reach(partial(self._cluster.remember, subject, payload), is_kept=True)

    async def repeat(self) -> None:
        """Wait until the memory has all that was published. Nothing gets lost between a node and this bus."""
        await self._reach(lambda: None)

    async def fetch(self, subject: str, since: float | None = None) -> list[bytes]:
        """Return the messages of a subject that the memory has, oldest first."""
        return await self._reach(partial(self._cluster.recall, subject, since))

    async def subscribe(self, subject: str, take: Take) -> _Subscription:
        """Call `take` with each message of a subject."""
        return await self._subscribe(("message", subject), take)

    async def read(self, key: str) -> Record | None:
        """Return a record."""
        return await self._reach(lambda: self._cluster.records.get(key))

    async def write(self, key: str, value: bytes, revision: int | None) -> int:
        """Write a record if its revision is still this one."""
        return await self._reach(partial(self._cluster.write, key, value, revision))

    async def delete(self, key: str, revision: int) -> None:
        """Delete a record if its revision is still this one."""
        await self._reach(partial(self._cluster.delete, key, revision))

    def say(self, name: str, payload: bytes) -> None:
        """Send news to all nodes."""
        self._leave(partial(self._cluster.deliver, ("news", name), payload), is_kept=True)

    async def hear(self, name: str, take: Take) -> _Subscription:
        """Call `take` with each piece of news of this name."""
        return await self._subscribe(("news", name), take)

    async def ask(self, name: str, payload: bytes, seconds: float) -> dict[str, bytes]:
        """Ask all nodes, and return the answers that arrive in time."""
        answers: dict[str, bytes] = {}
        is_complete = asyncio.Event()

        def arrived(node_id: str, answer: bytes) -> None:
            answers[node_id] = answer
            if answers.keys() >= self.nodes.keys():
                is_complete.set()

        self._leave(partial(self._ask_all, name, payload, arrived))
        try:
            async with asyncio.timeout(seconds):
                await is_complete.wait()
        except TimeoutError:
            pass
        return dict(answers)

    async def ask_one(self, node_id: str, name: str, payload: bytes, seconds: float) -> bytes:
        """Ask one node."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def arrived(_node_id: str, reply: bytes) -> None:
            if not answer.done():
                answer.set_result(reply)

        self._leave(partial(self._ask_node, node_id, name, payload, arrived))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise BusDownError(f"The node {node_id} does not answer.") from None

    async def answer(self, name: str, reply: Reply) -> _Answering:
        """Answer the questions of this name."""
        self._replies[name] = reply
        await self._try_to_reach()
        return _Answering(self._replies, name, reply)

    def describe(self, *, url: str, is_draining: bool, listeners: int) -> None:
        """Change what the other nodes know of this one."""
        self._node = replace(self._node, url=url, is_draining=is_draining, listeners=listeners)
        self._leave(lambda: self._cluster.enlist(self._node))

    def _ask_all(self, name: str, payload: bytes, arrived: Callable[[str, bytes], None]) -> None:
        for node_id in tuple(self._cluster.buses):
            self._ask_node(node_id, name, payload, arrived)

    def _ask_node(self, node_id: str, name: str, payload: bytes, arrived: Callable[[str, bytes], None]) -> None:
        bus = self._cluster.buses.get(node_id)
        if bus is not None:
            bus.receive(
                partial(bus.question, name, payload, lambda answer: self.receive(partial(arrived, node_id, answer)))
            )

    async def _subscribe(self, kind: tuple[str, str], take: Take) -> _Subscription:
        takes = self._takes.setdefault(kind, [])
        takes.append(take)
        await self._try_to_reach()
        return _Subscription(takes, take)

    async def _try_to_reach(self) -> None:
        try:
            await self._reach(lambda: None)
        except BusDownError:
            logger.debug("the bus is down")
