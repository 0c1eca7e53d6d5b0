"""One connection to one NATS server, from its beginning to its end.

A link never reconnects: when its connection fails, `relay.cluster.nats_bus` opens another one. All failures therefore
take the same path, and a failed client cannot affect the next one. docs/nats.md describes what nats-py would do
instead.

Invariants: a closed link delivers nothing. No method waits for a server longer than its bound. A link that did not
answer within `REQUEST_SECONDS` raises `BusDownError` and may be used again, because a late answer harms nothing.
"""

import asyncio
import logging
import os
import random
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from relay.cluster.bus import BusDownError
from relay.cluster.nats_login import Address, Login, check_encrypted
from relay.vocabulary.errors import ConfigurationError

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.errors import Error as NatsError
    from nats.errors import MaxPayloadError, NoRespondersError
except ImportError as error:
    raise ConfigurationError("cluster.url needs nats-py: pip install 'audio-relay[cluster]'.") from error

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
"""How long one server has for each step of a new connection."""

REQUEST_SECONDS = 2.0
"""How long a server has for an answer."""

_CLOSE_SECONDS = 0.5
"""How long a connection that failed may take to close."""

OLDEST_VERSION = (2, 11)
"""The first nats-server whose direct gets return many messages at once."""

STATUS = "Status"
"""The header in which nats-py shows the status line of a message without content, such as 404."""

Received = Msg
"""A message as it arrives: `subject`, `reply`, `data` and `headers`."""

LinkSubscription = Subscription
"""A subscription of one link."""

MessageTooLargeError = MaxPayloadError
"""A message exceeds the server's `max_payload`."""

Taker = Callable[[Received], None]


class RefusedError(ConfigurationError):
    """A server refuses this node, and would do so again."""


class NobodyListensError(BusDownError):
    """No client subscribes to this subject."""


class Replies:
    """Subjects for answers, and the requests that wait for them.

    All links of a node share them, so an answer may arrive on any link.

    Attributes:
        inbox: What these subjects begin with.
    """

    def __init__(self) -> None:
        self.inbox = f"_INBOX.{secrets.token_hex(12)}"
        self._expected: dict[str, Taker] = {}
        self._count = 0

    def expect(self, take: Taker) -> str:
        """Return a new subject whose messages go to `take`, until `forget`."""
        self._count += 1
        reply = f"{self.inbox}.{self._count}"
        self._expected[reply] = take
        return reply

    def forget(self, reply: str) -> None:
        """Take no more messages of a subject."""
        self._expected.pop(reply, None)

    def take(self, message: Received) -> None:
        """Pass a message to the request that waits for it, if there is one."""
        take = self._expected.get(message.subject)
        if take is not None:
            take(message)


class Link:
    """See the module's docstring. `open_link` makes one.

    Attributes:
        client: The client.
        address: The server.
        replies: The requests that wait for answers.
        is_retired: Whether this link has stopped delivering messages.
        last_error: What the client reported last.
    """

    def __init__(self, address: Address, replies: Replies) -> None:
        self.client = Client()
        self.is_retired = False
        self.last_error: Exception | None = None
        self.address = address
        self.replies = replies

    @property
    def is_open(self) -> bool:
        """Whether the connection exists. Its server may still be dead; `round_trip` checks that."""
        return self.client.is_connected

    async def connect(self, login: Login) -> None:
        """Connect, and check the server.

        Raises:
            RefusedError: The server does not accept this node, or is too old. The text says what to do.
            NotEncryptedError: See `check_encrypted`.
            BusDownError: The server was not reached.
        """
        context = login.make_context()
        try:
            async with asyncio.timeout(4 * CONNECT_SECONDS):
                await self.client.connect(
                    servers=[self.address.url],
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_SECONDS,  # type: ignore[arg-type] # a float is fine
                    error_cb=self._take_error,
                    **login.options(self.address, context),  # type: ignore[arg-type] # of several types
                )
        except (OSError, NatsError, TimeoutError) as error:
            raise self._explain(error) from error
        check_encrypted(self.address, context)
        self._check_version()
        await self.subscribe(f"{self.replies.inbox}.*", self.replies.take)

    def _check_version(self) -> None:
        found = self.client.connected_server_version
        try:
            is_old = (found.major, found.minor) < OLDEST_VERSION
            shown = f"version {found.major}.{found.minor}.{found.patch}"
        except ValueError:
            is_old, shown = True, "an unknown version"
        if is_old:
            raise RefusedError(
                f"NATS at {self.address.url} has {shown}, and the relay needs nats-server 2.11 or newer."
            )

    async def subscribe(self, subject: str, take: Taker) -> LinkSubscription:
        """Call `take` with each message of a subject, as long as this link lives.

        The client's own limits are off. They would drop the newest messages, and are not needed: `take` returns at
        once, so at most the content of one read waits.
        """

        async def receive(message: Msg) -> None:
            if not self.is_retired:
                take(message)

        with nats_errors():
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self.client.subscribe(subject, cb=receive, pending_msgs_limit=0, pending_bytes_limit=0)

    async def unsubscribe(self, subscription: LinkSubscription) -> None:
        """End a subscription; do nothing if the connection has ended."""
        if self.is_open:
            try:
                await subscription.unsubscribe()
            except NatsError:
                logger.debug("a subscription ended with its connection", exc_info=True)

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand a message to the client, which writes it at the loop's next turn. This waits while its buffer is full.

        Raises:
            MessageTooLargeError: The server does not accept messages of this size.
            BusDownError: The connection has ended.
        """
        with nats_errors():
            await self.client.publish(subject, payload, reply, None if headers is None else dict(headers))

    async def round_trip(self, seconds: float = REQUEST_SECONDS) -> bool:
        """Whether the server answers. It has then done everything that this link sent before.

        A request without a receiver is answered by the server itself. `Client.flush` is not an alternative: it sends
        its ping ahead of what waits in the client's buffer, and a pong that comes too late ends the client's reading.
        """
        try:
            await self.request(f"{self.replies.inbox}.nobody.hears", b"", seconds)
        except NobodyListensError:
            return True
        except BusDownError:
            return False
        return True

    async def request(
        self,
        subject: str,
        payload: bytes,
        seconds: float = REQUEST_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Ask, and return the first answer.

        Raises:
            NobodyListensError: Nobody listens to this subject.
            BusDownError: No answer came in time.
        """
        with nats_errors():
            # The client's own bound does not include the wait for room in its buffer.
            async with asyncio.timeout(seconds):
                answer = await self.client.request(
                    subject, payload, timeout=seconds, headers=None if headers is None else dict(headers)
                )
        return answer.data

    def retire(self) -> None:
        """Stop delivering messages."""
        self.is_retired = True

    async def close(self) -> None:
        """Close the connection. Run this in a task of its own: a server that is stopped but not dead makes it wait."""
        self.retire()
        try:
            await self.client.close()
        except (OSError, NatsError):
            logger.debug("closing a connection to NATS failed", exc_info=True)

    async def _take_error(self, error: Exception) -> None:
        self.last_error = error
        logger.debug("the NATS client reported an error", extra={"reason": str(error)})

    def _explain(self, error: Exception) -> Exception:
        """Return an error that explains why a connection failed."""
        text = str(error).lower()
        if "authorization" in text or "authentication" in text:
            return RefusedError(
                f"NATS at {self.address.url} did not accept the user, token or key of this relay. See cluster.url, "
                "cluster.credentials_file and cluster.nkey_seed_file."
            )
        return BusDownError(f"NATS at {self.address.url} was not reached: {_reason(self.last_error or error)}.")


async def open_link(login: Login, replies: Replies) -> Link:
    """Connect to one of the servers, in random order, so that nodes spread.

    Raises:
        RefusedError, NotEncryptedError, BusDownError: See `Link.connect`.
    """
    error = BusDownError("There is no server.")
    for address in random.sample(login.addresses, len(login.addresses)):
        try:
            return await _open(login, address, replies)
        except BusDownError as failure:
            error = failure
    raise error


async def _open(login: Login, address: Address, replies: Replies) -> Link:
    link = Link(address, replies)
    try:
        await link.connect(login)
    except BaseException:
        # After a failed TLS handshake, nats-py closes the socket but never returns from `close`.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await link.close()
        raise
    return link


@contextmanager
def nats_errors() -> Iterator[None]:
    """Turn the client's errors into `BusDownError`, except for a message that is too large.

    nats-py swallows a cancellation while it waits for room in its buffer. This raises it again.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
    except MessageTooLargeError:
        raise
    except NoRespondersError as error:
        raise NobodyListensError("NATS did not answer: nobody listens to this subject.") from error
    except (OSError, NatsError, TimeoutError) as error:
        raise BusDownError(f"NATS did not answer: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Return why something failed, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted, {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error).removeprefix("nats: ") or type(error).__name__
