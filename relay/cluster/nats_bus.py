"""The bus on NATS. `relay.cluster.bus` describes its promises, and docs/nats.md describes how it uses NATS.

One task, the keeper, renews this node's record. If that fails, it opens another link, waits until the memory is there,
and reads all records again. Then the bus counts as up.

Bound: A node answers at most `QUESTIONS` questions of other nodes at a time. It ignores further ones, as if it were too
slow.
"""

import asyncio
import logging
import os
import platform
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from relay import __version__
from relay.cluster.bus import BusDownError, Node, Record, Subscription
from relay.cluster.nats_carrier import MESSAGES_PER_TURN, Carrier, Standing
from relay.cluster.nats_link import REQUEST_SECONDS, Link, Received
from relay.cluster.nats_login import Login
from relay.cluster.nats_memory import LIFE_KEY, MARGIN_SECONDS, REPLACE, Memory, NoJetStreamError, NoStreamError
from relay.cluster.presence import Presence, read_node, write_node
from relay.cluster.record_mirror import Change, RecordMirror
from relay.cluster.shares import MESSAGE_BYTES, Account, Shares
from relay.hub.following import LATE_SECONDS
from relay.process.tasks import TaskRegistry
from relay.settings.settings import Settings
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import ConfigurationError

logger = logging.getLogger(__name__)

START_SECONDS = 10.0
"""How long the relay waits for NATS when it starts."""

RENEWAL_INTERVAL_SECONDS = 2.0
SWEEP_INTERVAL_SECONDS = 5.0
"""How often the records are read again, in case news of one was lost."""

RETRY_SECONDS = 0.5
_LOOK_SECONDS = 0.25
"""How often the keeper checks its connection, because nats-py does not always report when one ends."""

FAILURES_UNTIL_DOWN = 2
"""A server that falls silent is noticed after 4 s: renewals are 2 s apart, and each may take 1 s."""

FAILURES_PER_LINK = 5
"""How many failures the keeper accepts from a server that answers but whose memory does not. An election takes about
5 s, and is no reason to leave the server."""

REPEAT_SECONDS = 1.0
"""The least time between two repetitions that others ask for. Many nodes lack the same after an outage."""

CONFIRM_SECONDS = 4.0
"""How much longer messages are kept than they are of use, so that none is dropped that NATS is about to confirm. It
confirms them once a second, twice each, and after an outage three times."""

FAREWELL_SECONDS = 1.0
"""How long a node that stops tries to send its last messages."""

QUESTIONS = 64
_NODE_HEADER = "Relay-Node"

Reply = Callable[[bytes], Awaitable[bytes]]
"""Returns the answer to a question."""


def open_bus(settings: Settings) -> "NatsBus":
    """Return the bus that the settings describe; `cluster.url` must be set. Set its callbacks, then enter it.

    Raises:
        ConfigurationError: The settings are unusable. The text says why.
    """
    cluster = settings.cluster
    name = cluster.node or f"{re.sub('[^A-Za-z0-9_-]', '-', platform.node()) or 'relay'}-{os.getpid()}"
    node_id = f"{name}-{secrets.token_hex(3)}"
    audio_seconds = settings.listener.history_seconds + settings.broadcast.queue_seconds
    return NatsBus(
        Login.read(cluster, node_id),
        Memory(cluster.prefix, audio_seconds, cluster.replicas, cluster.max_audio_bytes),
        Node(node_id, __version__, "", is_draining=False, listeners=0),
        Shares(cluster.max_audio_bytes, audio_seconds + MARGIN_SECONDS),
        outbox_seconds=settings.listener.history_seconds + LATE_SECONDS + CONFIRM_SECONDS,
    )


class _Subscription:
    """Several standing subscriptions that end together."""

    def __init__(self, end: Callable[[Standing], None], *standing: Standing) -> None:
        self._end = end
        self._standing = standing

    def close(self) -> None:
        """See `Subscription.close`."""
        for each in self._standing:
            self._end(each)


class NatsBus:
    """See `Bus` for what is not described here, and `open_bus`.

    Attributes:
        broken: Set when a bug has stopped the bus. The log has the traceback.
        outbox: What NATS has not confirmed. Its counter is one of the metrics.
        shares: How much of the memory each session has. Its counter is one of the metrics.
    """

    def __init__(self, login: Login, memory: Memory, own: Node, shares: Shares, outbox_seconds: float) -> None:
        self.node_id = own.id
        self.on_record: Callable[[str, Record | None], None] = lambda _key, _record: None
        self.on_up: Callable[[], None] = lambda: None
        self.on_nodes: Callable[[], None] = lambda: None
        self.shares = shares
        self._login = login
        self._memory = memory
        self._tasks = TaskRegistry()
        self._carrier = Carrier(login, memory, own.id, outbox_seconds, self._tasks)
        self._presence = Presence(own)
        self._mirror = RecordMirror()
        self._life = ""
        self._known_memory = ""
        self._answers: dict[str, Reply] = {}
        self._answering = TaskRegistry()
        self._is_up = False
        self._hurry = asyncio.Event()
        self._repeating = asyncio.Lock()
        self._repeated_at = 0.0
        self._is_repeated = False
        self._reason = ""
        self.broken = self._tasks.broken
        self.outbox = self._carrier.outbox

    @property
    def nodes(self) -> Mapping[str, Node]:
        """See `Bus.nodes`."""
        return self._presence.nodes

    @property
    def is_up(self) -> bool:
        """See `Bus.is_up`."""
        return self._is_up and self._carrier.is_open

    # Life

    async def __aenter__(self) -> Self:
        """Connect, and report all records.

        Raises:
            ConfigurationError: NATS was not reached within `START_SECONDS`, refuses this node, or is unusable. The text
                says why and what to do.
        """
        self._carrier.stand(self._memory.channels.news, self._take_record)
        self._carrier.stand(self._memory.nodes.news, self._take_node)
        try:
            await self._begin()
        except BaseException:
            await self._close()
            raise
        self._tasks.start(self._keep(), "bus: keeper", is_vital=True)
        self._tasks.start(self._sweep(), "bus: records", is_vital=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the last messages and a goodbye to the other nodes, for at most `FAREWELL_SECONDS`. Then disconnect."""
        try:
            with suppress(TimeoutError, BusDownError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._say_goodbye()
        finally:
            await self._close()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + START_SECONDS
        last: BusDownError | None = None
        while loop.time() < ends_at:
            try:
                async with asyncio.timeout_at(ends_at):
                    if not self._carrier.is_open:
                        await self._carrier.replace()
                    await self._come_up()
            except BusDownError as error:
                last = error
            except TimeoutError:
                break
            else:
                return
            await asyncio.sleep(RETRY_SECONDS)
        if isinstance(last, NoJetStreamError):
            raise ConfigurationError(str(last))
        raise ConfigurationError(
            f"NATS at {self._login.shown} was not ready within {START_SECONDS:g} s. Start it, or correct cluster.url. "
            f"The last attempt failed: {last or 'there was no answer.'}"
        )

    async def _say_goodbye(self) -> None:
        link = self._carrier.open_link()
        await self._carrier.send_all(link)
        await self._memory.nodes.leave(link, self.node_id)

    async def _close(self) -> None:
        self._is_up = False
        await self._tasks.close()
        await self._answering.close()
        await self._carrier.close()

    # Up and down

    async def _keep(self) -> None:
        """Renew this node's record, notice that the bus is down, and bring it up again, forever."""
        failures = 0
        while True:
            await self._pause(failures)
            link = self._carrier.link
            try:
                if self._is_up:
                    await self._renew(self._carrier.open_link())
                else:
                    await self._come_up()
                failures = 0
            except (BusDownError, ConfigurationError) as error:
                failures += 1
                if failures >= FAILURES_UNTIL_DOWN or link is None or not link.is_open:
                    self._go_down(error)
                    await self._look_after_link(link, failures)

    async def _pause(self, failures: int) -> None:
        """Wait until the next attempt. After a first failure, or when the link ends, it comes at once."""
        link = self._carrier.link
        if failures:
            await asyncio.sleep(0 if failures < FAILURES_UNTIL_DOWN else RETRY_SECONDS)
            return
        ends_at = asyncio.get_running_loop().time() + RENEWAL_INTERVAL_SECONDS
        while asyncio.get_running_loop().time() < ends_at and (link is None or link.is_open):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._hurry.wait()
                    break
        self._hurry.clear()

    async def _renew(self, link: Link) -> None:
        await self._memory.nodes.renew(link, self.node_id, write_node(self._presence.own))
        if self._presence.expire(relay_clock()):
            self.on_nodes()

    async def _look_after_link(self, link: Link | None, failures: int) -> None:
        """Open another link if this one is dead, or if its server had no memory for some time."""
        is_alive = link is not None and link.is_open and await link.round_trip(1.0)
        if is_alive and failures % FAILURES_PER_LINK:
            return
        try:
            await self._carrier.replace()
        except (BusDownError, ConfigurationError) as error:
            self._go_down(error)

    def _go_down(self, error: Exception) -> None:
        """Mark the bus as down, and log each reason once."""
        self._is_up = False
        if str(error) != self._reason:
            self._reason = str(error)
            logger.warning("the cluster is out of reach", extra={"reason": self._reason})

    async def _come_up(self) -> None:
        """Make sure that the memory is there, and report its records. Then the bus is up.

        Raises:
            ConfigurationError: See `Memory.prepare`.
            BusDownError: NATS does not answer.
        """
        link = self._carrier.open_link()
        is_first = not self._life
        memory = await self._memory.prepare(link)
        if memory != self._known_memory:
            # It lacks everything that was sent before.
            self._known_memory = memory
            self.shares.clear()
            self._carrier.send_again()
        await self._renew(link)
        await self._read_nodes(link)
        await self._read_anew(link)
        self._is_up, self._reason = True, ""
        logger.info("connected to the cluster", extra={"nats": link.address.url, "node": self.node_id})
        if not is_first:
            self.on_up()

    # Messages

    def publish(self, subject: str, payload: bytes) -> None:
        """See `Bus.publish`."""
        self._count(subject, payload)
        self._carrier.put(f"{self._memory.prefix}.{subject}", payload)

    def keep(self, subject: str, payload: bytes) -> None:
        """See `Bus.keep`."""
        if self._count(subject, payload, is_needed=False):
            self._carrier.put(f"{self._memory.prefix}.{subject}", payload)

    def replace(self, subject: str, payload: bytes) -> None:
        """See `Bus.replace`."""
        self._count(subject, payload)
        self._carrier.put(f"{self._memory.prefix}.{subject}", payload, headers=REPLACE)

    async def publish_stored(self, subject: str, payload: bytes) -> None:
        """See `Bus.publish_stored`."""
        self._count(subject, payload)
        await self._store(subject, payload)

    async def _store(self, subject: str, payload: bytes) -> int:
        """Send a message, and return its number once the memory has it and everything that was published before."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def take(message: Received) -> None:
            if not answered.done():
                answered.set_result(message.data)

        reply = self._carrier.replies.expect(take)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                self._carrier.put(f"{self._memory.prefix}.{subject}", payload, reply)
                answer = await answered
        except TimeoutError as error:
            raise BusDownError("NATS did not confirm the message in time.") from error
        finally:
            self._carrier.replies.forget(reply)
        number = self._memory.read_number(answer)
        if number is None:
            raise BusDownError("NATS did not store the message.")
        return number

    def _count(self, subject: str, payload: bytes, *, is_needed: bool = True) -> bool:
        """Count a message for its session. Return whether to send it: if it is not needed, only if there is room."""
        session = subject.split(".", 2)[1]
        generation_bytes = self.shares.generation_bytes(len(self.nodes))
        account = self.shares.find(session, relay_clock())
        if not is_needed and (account.sent_bytes >= 2 * generation_bytes or self.outbox.is_half_full):
            self.shares.not_kept_messages += 1
            return False
        account.sent_bytes += len(self._memory.prefix) + len(subject) + len(payload) + MESSAGE_BYTES
        if account.sent_bytes >= generation_bytes and not account.is_turning and self._is_up:
            account.is_turning = True
            self._tasks.start(self._turn(session, account), "bus: share of a session")
        return True

    async def _turn(self, session: str, account: Account) -> None:
        """Begin another generation of a session's audio, and have the memory forget the one before the present one."""
        ended_bytes = account.sent_bytes
        try:
            first = await self._store(self._memory.mark_subject(self.node_id), b"")
            if account.first:
                await self._memory.forget(self._carrier.open_link(), session, account.first)
        except BusDownError as error:
            logger.debug("a session's share was not cut", extra={"session": session, "reason": str(error)})
        else:
            account.first = first
            account.sent_bytes -= ended_bytes
        finally:
            account.is_turning = False

    async def repeat(self) -> None:
        """See `Bus.repeat`. All who ask at the same time get one repetition."""
        asked_at = relay_clock()
        async with self._repeating:
            if self._repeated_at <= asked_at:
                await asyncio.sleep(self._repeated_at + REPEAT_SECONDS - asked_at)
                self._repeated_at = relay_clock()
                self._is_repeated = await self._repeat()
        if not self._is_repeated:
            raise BusDownError("NATS did not confirm the messages in time.")

    async def _repeat(self) -> bool:
        """Send everything again, unless that is under way already. Return whether the memory has it."""
        if self.outbox.unsent > MESSAGES_PER_TURN:
            return False
        self._carrier.send_again()
        try:
            await self._store(self._memory.mark_subject(self.node_id), b"")
        except BusDownError:
            return False
        return True

    async def fetch(self, subject: str, since: float | None = None) -> list[bytes]:
        """See `Bus.fetch`."""
        return await self._memory.fetch(self._carrier.open_link(), f"{self._memory.prefix}.{subject}", since)

    async def subscribe(self, subject: str, take: Callable[[bytes], None]) -> Subscription:
        """See `Bus.subscribe`."""
        standing = self._carrier.stand(f"{self._memory.prefix}.{subject}", lambda _link, message: take(message.data))
        await self._carrier.reach(standing)
        return _Subscription(self._carrier.end, standing)

    def say(self, name: str, payload: bytes) -> None:
        """See `Bus.say`."""
        self._carrier.put(f"{self._memory.prefix}.say.{name}", payload)

    async def hear(self, name: str, take: Callable[[bytes], None]) -> Subscription:
        """See `Bus.hear`."""
        return await self.subscribe(f"say.{name}", take)

    # Records

    async def read(self, key: str) -> Record | None:
        """See `Bus.read`."""
        found = await self._memory.channels.read(self._carrier.open_link(), key)
        return None if found is None else _record(found)

    async def write(self, key: str, value: bytes, revision: int | None) -> int:
        """See `Bus.write`."""
        return await self._memory.channels.write(self._carrier.open_link(), key, value, revision)

    async def delete(self, key: str, revision: int) -> None:
        """See `Bus.delete`."""
        await self._memory.channels.delete(self._carrier.open_link(), key, revision)

    async def _sweep(self) -> None:
        """Read changes whose news may have been lost, and notice when the memory is lost. This runs forever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_SECONDS)
            self.shares.expire(relay_clock())
            link = self._carrier.link
            if link is None or not self._is_up:
                continue
            try:
                if await self._memory.channels.find_life(link) == self._life:
                    await self._read_on(link)
                else:
                    self._forget_records()
            except NoStreamError:
                self._forget_records()
            except BusDownError as error:
                logger.debug("the records were not read", extra={"reason": str(error)})

    async def _read_anew(self, link: Link) -> None:
        bucket = self._memory.channels
        life = await bucket.find_life(link)
        changes = await bucket.read_changes(link, 0)
        if await bucket.find_life(link) != life:
            raise BusDownError("NATS lost the records meanwhile.")
        is_same = life == self._life
        self._life = life
        known, missing = self._mirror.read_anew(changes, has_same_revisions=is_same)
        for change in known:
            self._report(change)
        # Records that the servers have lost were not deleted. Those who wrote them write them again.
        for key in missing if is_same else ():
            found = await bucket.read(link, key)
            if found is None:
                self._report(Change(key, 0, None))
            elif self._mirror.take(found):
                self._report(found)
        await self._read_on(link)

    async def _read_on(self, link: Link) -> None:
        for change in self._mirror.read_on(await self._memory.channels.read_changes(link, self._mirror.read_until)):
            self._report(change)

    def _take_record(self, _link: Link, message: Received) -> None:
        change = self._memory.channels.take(message)
        if change.key == LIFE_KEY and self._is_up and (change.value or b"").decode() != self._life:
            self._forget_records()
        elif self._mirror.take(change):
            self._report(change)

    def _forget_records(self) -> None:
        """Have the keeper read all records again: the servers lost them, while the link works."""
        self._go_down(BusDownError("NATS lost the records."))
        self._hurry.set()

    def _report(self, change: Change) -> None:
        if change.key != LIFE_KEY:
            self.on_record(change.key, _record(change))

    # Nodes

    def describe(self, *, url: str, is_draining: bool, listeners: int) -> None:
        """See `Bus.describe`."""
        if self._presence.describe(url=url, is_draining=is_draining, listeners=listeners):
            self._hurry.set()

    async def _read_nodes(self, link: Link) -> None:
        now = relay_clock()
        self._presence.refresh(now)
        changes = await self._memory.nodes.read_changes(link, 0)
        if any([self._presence_of(change) for change in changes]):  # noqa: C419 - all of them, not up to the first
            self.on_nodes()

    def _take_node(self, _link: Link, message: Received) -> None:
        if self._presence_of(self._memory.nodes.take(message)):
            self.on_nodes()

    def _presence_of(self, change: Change) -> bool:
        """Take the record of a node, and return whether it is news."""
        if change.value is None:
            return self._presence.leave(change.key)
        node = read_node(change.key, change.value)
        return node is not None and self._presence.hear(node, relay_clock())

    # Questions

    async def ask(self, name: str, payload: bytes, seconds: float) -> dict[str, bytes]:
        """See `Bus.ask`."""
        answers: dict[str, bytes] = {}
        is_complete = asyncio.Event()

        def take(message: Received) -> None:
            node_id = (message.headers or {}).get(_NODE_HEADER)
            if node_id is not None:
                answers[node_id] = message.data
            if self.nodes.keys() <= answers.keys():
                is_complete.set()

        reply = self._carrier.replies.expect(take)
        try:
            async with asyncio.timeout(seconds):
                with suppress(BusDownError):
                    await self._carrier.open_link().publish(f"{self._memory.prefix}.ask.{name}", payload, reply)
                answers.update(await self._answer_oneself(name, payload))
                if self.nodes.keys() > answers.keys() and self._carrier.link is not None and self._carrier.link.is_open:
                    await is_complete.wait()
        except TimeoutError:
            pass
        finally:
            self._carrier.replies.forget(reply)
        return answers

    async def ask_one(self, node_id: str, name: str, payload: bytes, seconds: float) -> bytes:
        """See `Bus.ask_one`."""
        if node_id == self.node_id:
            answers: dict[str, bytes] = {}
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    answers = await self._answer_oneself(name, payload)
            if node_id not in answers:
                raise BusDownError(f"The node {node_id} did not answer.")
            return answers[node_id]
        link = self._carrier.open_link()
        try:
            return await link.request(f"{self._memory.prefix}.node.{node_id}.{name}", payload, seconds)
        except BusDownError as error:
            raise BusDownError(f"The node {node_id} did not answer.") from error

    async def answer(self, name: str, reply: Reply) -> Subscription:
        """See `Bus.answer`."""

        def take(link: Link, message: Received) -> None:
            # What this node asks all nodes, it answers without the bus.
            if not message.reply.startswith(self._carrier.replies.inbox) and len(self._answering) < QUESTIONS:
                self._answering.start(self._answer(link, message, reply), f"bus: answer to {name}")

        prefix = self._memory.prefix
        subjects = (f"{prefix}.ask.{name}", f"{prefix}.node.{self.node_id}.{name}")
        standing = [self._carrier.stand(subject, take) for subject in subjects]
        self._answers[name] = reply

        def end(each: Standing) -> None:
            self._answers.pop(name, None)
            self._carrier.end(each)

        await self._carrier.reach(*standing)
        return _Subscription(end, *standing)

    async def _answer(self, link: Link, message: Received, reply: Reply) -> None:
        answer = await reply(message.data)
        with suppress(BusDownError):
            await link.publish(message.reply, answer, headers={_NODE_HEADER: self.node_id})

    async def _answer_oneself(self, name: str, payload: bytes) -> dict[str, bytes]:
        reply = self._answers.get(name)
        return {} if reply is None else {self.node_id: await reply(payload)}


def _record(change: Change) -> Record | None:
    return None if change.value is None else Record(change.value, change.revision)
