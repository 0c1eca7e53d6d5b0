"""Carries messages to and from other nodes over the link that works.

One link to one server carries everything. A new link makes all subscriptions before it takes over. Then the old link
closes. Messages that NATS has not confirmed are sent again over the new link, in order.

Bounds: `BusOutbox` says what it keeps and drops. Closing a link waits only for a server that is stopped but not dead.
Such a server accepts no new link, so closing links do not pile up.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

from relay.cluster.bus import BusDownError
from relay.cluster.nats_link import Link, LinkSubscription, MessageTooLargeError, Received, Replies, open_link
from relay.cluster.nats_login import Login
from relay.cluster.nats_memory import Memory
from relay.cluster.outbox import BusOutbox, Message
from relay.process.tasks import TaskRegistry
from relay.vocabulary.clock import relay_clock

logger = logging.getLogger(__name__)

OUTBOX_BYTES = 64 * 1024 * 1024
"""The bound for unconfirmed messages: 10 s of 200 channels of PCM as browsers send it."""

CONFIRM_INTERVAL_SECONDS = 1.0
"""How often the carrier asks which messages the memory has."""

CLOSE_SECONDS = 1.0
"""How long `close` waits for the links."""

MESSAGES_PER_TURN = 64
"""How many messages of a backlog are handed to the client before the event loop runs other tasks."""

TakeFrom = Callable[[Link, Received], None]
"""Takes a message, and the link that brought it."""


class Standing:
    """A subscription that every new link makes again.

    Attributes:
        subject: Its subject.
        take: Takes each message.
        parts: The client's subscriptions.
        has_ended: Whether it was ended.
    """

    def __init__(self, subject: str, take: TakeFrom) -> None:
        self.subject = subject
        self.take = take
        self.parts: dict[Link, LinkSubscription] = {}
        self.has_ended = False


class Carrier:
    """See the module's docstring.

    Attributes:
        link: The link that carries everything now; None before the first one, and after the end. It may have failed.
        outbox: What NATS has not confirmed.
        replies: The requests that wait for answers.
    """

    def __init__(self, login: Login, memory: Memory, node_id: str, outbox_seconds: float, tasks: TaskRegistry) -> None:
        """Do not connect yet. `replace` opens the first link.

        Args:
            login: The servers and the credentials.
            memory: Says what is confirmed.
            node_id: The id of this node.
            outbox_seconds: How long a message waits for a server.
            tasks: Runs the carrier's tasks, and closes before `close`.
        """
        self.link: Link | None = None
        self.outbox = BusOutbox(outbox_seconds, OUTBOX_BYTES)
        self.replies = Replies()
        self._login = login
        self._memory = memory
        self._node_id = node_id
        self._standing: dict[Standing, None] = {}
        self._ready = asyncio.Event()
        self._repeats = 0
        self._forgettable = 0
        self._tasks = tasks
        self._aside = TaskRegistry()
        self._writer: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection. It may be dead without a sign of it."""
        return self.link is not None and self.link.is_open

    def open_link(self) -> Link:
        """Return the link, to ask something.

        Raises:
            BusDownError: There is no connection.
        """
        if self.link is None or not self.link.is_open:
            raise BusDownError("NATS is out of reach.")
        return self.link

    async def replace(self) -> None:
        """Open another link, and let it take over.

        Raises:
            BusDownError: No server was reached.
            ConfigurationError: A server refuses this node.
        """
        link = await open_link(self._login, self.replies)
        try:
            # Subscriptions that are added meanwhile are made in the next round.
            while missing := [each for each in self._standing if link not in each.parts]:
                await self._bind(missing, link)
        except BaseException:
            self._let_go(link)
            raise
        old, self.link = self.link, link
        if self._writer is not None:
            self._writer.cancel()
        self._writer = self._tasks.start(self._write(link), "bus: writer", is_vital=True)
        if self._confirming is None:
            self._confirming = self._tasks.start(self._confirm(), "bus: confirmation", is_vital=True)
        self.send_again()
        if old is not None:
            self._let_go(old)

    async def close(self) -> None:
        """End everything. What is not sent by now is lost."""
        link, self.link = self.link, None
        if link is not None:
            self._let_go(link)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._aside.join()
        await self._aside.close()

    # Sending

    def put(self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Send a message, now or as soon as there is a link. This neither blocks nor fails."""
        self.outbox.put(Message(subject, payload, reply, headers), relay_clock())
        self._ready.set()

    async def send_all(self, link: Link) -> None:
        """Wait until the server has all messages that were put, as long as this link works."""
        while self.outbox.unsent and link.is_open:  # noqa: ASYNC110 - only at the end, and the caller bounds it
            await asyncio.sleep(0.01)
        await link.round_trip()

    async def _write(self, link: Link) -> None:
        """Hand the client what is in the outbox, as long as this link is the present one."""
        in_turn = 0
        while self.link is link:
            message = self.outbox.take()
            if message is None:
                in_turn = 0
                self._ready.clear()
                await self._ready.wait()
                continue
            try:
                await link.publish(message.subject, message.payload, message.reply, message.headers)
            except BusDownError:
                # The next link sends this message again.
                return
            except MessageTooLargeError as error:
                told = {"reason": str(error), "may_repeat": True}
                logger.error("a message is too large for NATS", extra=told)  # noqa: TRY400 - the reason is enough
            in_turn += 1
            if in_turn >= MESSAGES_PER_TURN:
                in_turn = 0
                await asyncio.sleep(0)

    async def _confirm(self) -> None:
        """Ask forever which messages the memory has. Let the outbox forget them, or send all again after a failure.

        The stream's answer to a small message proves that it has all messages sent before. The outbox forgets a message
        only at the second such answer, because until then a server may still hold it for other nodes and die with it.
        """
        count, is_doubtful = 0, False
        while True:
            await asyncio.sleep(CONFIRM_INTERVAL_SECONDS)
            link, repeats, sent = self.link, self._repeats, self.outbox.sent
            if link is None or not self.outbox:
                continue
            try:
                before, count = count, await self._memory.mark(link, self._node_id)
            except BusDownError:
                # Other nodes may have what the memory lacks, for example while the servers elect a leader.
                is_doubtful = True
                continue
            if repeats != self._repeats:
                continue
            if is_doubtful or count < before:
                is_doubtful = False
                self.send_again()
            else:
                self.outbox.confirm(self._forgettable)
                self._forgettable = sent

    def send_again(self) -> None:
        """Send all unconfirmed messages again, because a node or the memory may lack them."""
        self._repeats += 1
        self._forgettable = 0
        self.outbox.rewind(relay_clock())
        self._ready.set()

    # Receiving

    def stand(self, subject: str, take: TakeFrom) -> Standing:
        """Add a subscription. `reach` makes it known to the present server, and each later link makes it, too."""
        standing = Standing(subject, take)
        self._standing[standing] = None
        return standing

    async def reach(self, *standing: Standing) -> None:
        """Make new subscriptions at the present server. If it cannot be reached, the next link makes them."""
        link = self.link
        if link is None:
            return
        try:
            await self._bind(standing, link)
        except BusDownError as error:
            logger.debug("a subscription waits for the bus", extra={"reason": str(error)})

    def end(self, standing: Standing) -> None:
        """Remove a subscription. A second call changes nothing."""
        standing.has_ended = True
        self._standing.pop(standing, None)
        while standing.parts:
            link, part = standing.parts.popitem()
            self._aside.start(link.unsubscribe(part), "bus: unsubscribing")

    async def _bind(self, several: Iterable[Standing], link: Link) -> None:
        for standing in several:
            standing.parts[link] = await link.subscribe(standing.subject, partial(_take, standing, link))
            if standing.has_ended:  # meanwhile
                self.end(standing)
        if not await link.round_trip():
            raise BusDownError(f"NATS at {link.address.url} does not answer.")

    # Links

    def _let_go(self, link: Link) -> None:
        """Close a link in a task of its own, because a server that is stopped but not dead makes closing wait."""
        link.retire()
        for standing in self._standing:
            standing.parts.pop(link, None)
        self._aside.start(link.close(), "bus: closing")


def _take(standing: Standing, link: Link, message: Received) -> None:
    if not standing.has_ended:
        standing.take(link, message)
