"""What NATS remembers for the cluster: the last seconds of audio, the records, and which nodes are alive.

Each node creates whatever is missing, even after the servers have lost everything. Several nodes may do so at the same
time. A record is the last message of its subject in a stream of the form that NATS calls a bucket, so `nats kv` shows
it. Its revision is its sequence number there. The server republishes each record once it is stored, because a
subscription to the bucket's own subjects would also receive writes that the server rejects.

Invariants: nothing but `say_goodbye` waits longer than `REQUEST_SECONDS`. A failure or a missing answer of the servers
becomes a `BusDownError` or a `ConflictError`.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from relay.cluster.bus import BusDownError, ConflictError
from relay.cluster.nats_link import REQUEST_SECONDS, STATUS, Link, NobodyListensError, Received, Replies, open_link
from relay.cluster.nats_login import Login
from relay.cluster.presence import LIFE_SECONDS
from relay.cluster.record_mirror import Change
from relay.settings.settings import ClusterSettings
from relay.vocabulary.errors import ConfigurationError

MARGIN_SECONDS = 10.0
"""The stream keeps audio this much longer than the relay needs it."""

MARKER_SECONDS = 600
"""How long the mark of a deletion stays, for nodes that were cut off for a while."""

REPLACE: Mapping[str, str] = {"Nats-Rollup": "sub"}
"""The headers of a message for which the stream forgets all earlier ones of its subject."""

LIFE_KEY = "=life"
"""The key of the record that names the life of a bucket. No channel has this key: in theirs, `=` begins an escape."""

RENEWAL_SECONDS = 1.0
"""How long a server has to accept the renewal of a node's record."""

_FIND_SECONDS = 0.25
"""How long to wait for the state of a stream before asking again. A server that knows it answers in milliseconds."""

_CREATION_SECONDS = 2.0
"""How long a server may take to create a stream for another node. It takes milliseconds on an idle machine."""

_LOOK_SECONDS = 0.05

_BATCH_MESSAGES = 500
_NANOSECONDS = 1_000_000_000

_NO_STREAM, _NO_MESSAGE, _NAME_IN_USE = 10059, 10037, 10058
_WRONG_REVISION = frozenset({10071, 10164})
_NO_JETSTREAM = frozenset({10039, 10076})
"""Error codes of the server: nats-server, server/errors.json."""

_NOBODY = "503"
"""The status with which a server answers a question that nobody hears."""

_EXPECTED, _LIFE = "Nats-Expected-Last-Subject-Sequence", "Nats-TTL"
_OPERATION, _REASON = "KV-Operation", "Nats-Marker-Reason"
_SUBJECT, _SEQUENCE = "Nats-Subject", "Nats-Sequence"

Answer = dict[str, Any]
"""A parsed answer of the server."""


class ApiError(BusDownError):
    """The server refused a request."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"NATS answered: {error.get('description', 'an error without a description')}.")
        self.number = int(error.get("err_code", 0))
        self.status = int(error.get("code", 0))


class NoStreamError(ApiError):
    """The servers do not have the stream."""


class NoJetStreamError(BusDownError):
    """No server has JetStream, at least not yet."""


class Memory:
    """See the module's docstring. Each method gets a link, because links are replaced when they fail.

    Attributes:
        prefix: The prefix of all names.
        channels: The records of channels.
        nodes: The records of nodes.
    """

    def __init__(self, prefix: str, audio_seconds: float, replicas: int, max_audio_bytes: int) -> None:
        """Set what the servers should remember.

        Args:
            prefix: The prefix of all names.
            audio_seconds: How long the relay needs audio.
            replicas: How many servers keep everything.
            max_audio_bytes: How much audio the servers keep at most, so that the records always have room.
        """
        self.prefix = prefix
        self.channels = Bucket(f"{prefix}_channels", f"{prefix}.record")
        self.nodes = _nodes_bucket(prefix)
        self._replicas = replicas
        self._stream = f"{prefix}_audio"
        self._audio_seconds = audio_seconds + MARGIN_SECONDS
        self._max_audio_bytes = max_audio_bytes

    async def prepare(self, link: Link) -> str:
        """Create what is missing, adapt what differs, and return a text that changes when the audio was lost.

        Raises:
            ConfigurationError: The user has no JetStream, or the server does not accept these settings.
            NoJetStreamError: The servers have no JetStream, or are still starting.
            BusDownError: It did not answer, or is not ready yet.
        """
        audio: Answer = {
            "name": self._stream,
            "subjects": [f"{self.prefix}.audio.>", f"{self.prefix}.held.>"],
            "discard": "old",
            "max_age": int(self._audio_seconds * _NANOSECONDS),
            "max_bytes": self._max_audio_bytes,
            "allow_rollup_hdrs": True,
        }
        common = {"storage": "memory", "num_replicas": self._replicas, "allow_direct": True}
        created, *_ = [
            await _ensure(link, {**config, **common}) for config in (audio, self.channels.config, self.nodes.config)
        ]
        return created

    async def mark(self, link: Link, node_id: str) -> int:
        """Wait until the stream has all that this link sent before, and return how many messages it has ever stored.

        Raises:
            BusDownError: The stream did not confirm it.
        """
        return int((await _api(link, f"{self.prefix}.{self.mark_subject(node_id)}"))["seq"])

    @staticmethod
    def mark_subject(node_id: str) -> str:
        """Return the subject of small messages whose storage confirms what a node sent before, without the prefix."""
        return f"audio.=mark.{node_id}"

    @staticmethod
    def read_number(answer: bytes) -> int | None:
        """Return the number of a message in the stream, from the stream's answer to it; None if it was not stored."""
        try:
            parsed: Answer = json.loads(answer)
        except ValueError:
            return None
        return parsed.get("seq")

    async def forget(self, link: Link, session: str, until: int) -> None:
        """Forget the messages of a session with lower numbers than this one.

        Raises:
            BusDownError: The server did not answer, or refused.
        """
        request = json.dumps({"filter": f"{self.prefix}.*.{session}.>", "seq": until}).encode()
        await _api(link, f"$JS.API.STREAM.PURGE.{self._stream}", request)

    async def fetch(self, link: Link, subject: str, since: float | None) -> list[bytes]:
        """Return the messages of a subject, as `Bus.fetch` does. The subject includes the prefix."""
        query: Answer = {"next_by_subj": subject}
        if since is not None:
            query["start_time"] = datetime.fromtimestamp(since, UTC).isoformat()
        async with _in_time("the remembered audio"):
            # Any copy of the stream may answer a direct get, and may lag behind the leader. A single copy cannot lag.
            last = await _last_sequence(link, self._stream, subject) if self._replicas > 1 else 0
            found = await _get_all(link, self._stream, query)
            while found and _sequence(found[-1]) < last:
                await asyncio.sleep(0.01)
                rest: Answer = {"next_by_subj": subject, "seq": _sequence(found[-1]) + 1}
                found += await _get_all(link, self._stream, rest)
        return [message.data for message in found]


class Bucket:
    """Records, each of which is the last message of a subject.

    Attributes:
        news: The subject on which changes arrive, once they are stored.
    """

    def __init__(self, name: str, news: str, life_seconds: float | None = None) -> None:
        """Describe a bucket.

        Args:
            name: Its name.
            news: The prefix of the subjects on which the server republishes changes.
            life_seconds: How long a record lives after it was written; None for ever.
        """
        self.news = f"{news}.>"
        self._stream = f"KV_{name}"
        self._subjects = f"$KV.{name}."
        self.config: Answer = {
            "name": self._stream,
            "subjects": [f"{self._subjects}>"],
            "discard": "new",
            "max_msgs_per_subject": 1,
            "max_age": int((life_seconds or 0) * _NANOSECONDS),
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
            "republish": {"src": f"{self._subjects}>", "dest": self.news},
        }

    async def find_life(self, link: Link) -> str:
        """Return the name of the bucket's present life. A life ends when the servers lose the content of the bucket.

        Revisions begin anew in each life. The name is a record that the first node writes into an empty bucket. The
        time of creation cannot name a life: when servers of a cluster restart, a bucket may keep it and be empty.

        Raises:
            BusDownError: The bucket does not exist, or the server did not answer.
        """
        found = await self.read(link, LIFE_KEY)
        if found is None or found.value is None:
            with suppress(ConflictError):
                await self.write(link, LIFE_KEY, secrets.token_hex(8).encode(), None)
            found = await self.read(link, LIFE_KEY)
        if found is None or found.value is None:
            raise BusDownError("NATS lost the records.")
        return found.value.decode()

    async def read(self, link: Link, key: str) -> Change | None:
        """Return the last change of a record from the leader of the bucket; None if there is none.

        Raises:
            BusDownError: The server did not answer.
        """
        question = json.dumps({"last_by_subj": self._subjects + key}).encode()
        try:
            found = (await _api(link, f"$JS.API.STREAM.MSG.GET.{self._stream}", question))["message"]
        except ApiError as error:
            if error.number == _NO_MESSAGE:
                return None
            raise
        is_deleted = any(name.encode() in base64.b64decode(found.get("hdrs", "")) for name in (_OPERATION, _REASON))
        return Change(key, found["seq"], None if is_deleted else base64.b64decode(found.get("data", "")))

    async def write(self, link: Link, key: str, value: bytes, revision: int | None) -> int:
        """Write a record, as `Bus.write` does."""
        try:
            return await self._put(link, key, value, {_EXPECTED: str(revision or 0)})
        except ConflictError:
            if revision is not None:
                raise
        # The conflict may be only with the mark of a deletion.
        last = await self.read(link, key)
        if last is None or last.value is not None:
            raise ConflictError(f"The record {key} exists already.")
        return await self._put(link, key, value, {_EXPECTED: str(last.revision)})

    async def delete(self, link: Link, key: str, revision: int) -> None:
        """Delete a record, as `Bus.delete` does."""
        await self._put(link, key, b"", {_EXPECTED: str(revision), _OPERATION: "DEL", _LIFE: f"{MARKER_SECONDS}s"})

    async def renew(self, link: Link, key: str, value: bytes) -> None:
        """Write a record, whatever its revision.

        Raises:
            BusDownError: The server did not confirm it within `RENEWAL_SECONDS`.
        """
        await _api(link, self._subjects + key, value, seconds=RENEWAL_SECONDS)

    async def leave(self, link: Link, key: str) -> None:
        """Delete a record, whatever its revision.

        Raises:
            BusDownError: The server did not confirm it within `RENEWAL_SECONDS`.
        """
        await _api(link, self._subjects + key, b"", {_OPERATION: "DEL"}, RENEWAL_SECONDS)

    async def read_changes(self, link: Link, after: int) -> list[Change]:
        """Return the last change of each record that changed after a revision; 0 for all records.

        A copy of the bucket that lags behind may lack the latest changes.

        Raises:
            BusDownError: The server did not answer.
        """
        async with _in_time("the records"):
            query: Answer = {"next_by_subj": f"{self._subjects}>", "seq": after + 1}
            return [self.take(message) for message in await _get_all(link, self._stream, query)]

    def take(self, message: Received) -> Change:
        """Return the change that a message on `news` reports."""
        headers = message.headers or {}
        is_deleted = _OPERATION in headers or _REASON in headers
        key = headers[_SUBJECT].removeprefix(self._subjects)
        return Change(key, _sequence(message), None if is_deleted else message.data)

    async def _put(self, link: Link, key: str, value: bytes, headers: Mapping[str, str]) -> int:
        try:
            return int((await _api(link, self._subjects + key, value, headers))["seq"])
        except ApiError as error:
            if error.number in _WRONG_REVISION:
                raise ConflictError(f"Another node wrote the record {key} first.") from error
            raise


async def say_goodbye(cluster: ClusterSettings, node_id: str) -> None:
    """Say goodbye for a node that ended without doing so. Others then take over its channels at once.

    Raises:
        BusDownError: NATS was not reached. The others find out after `LIFE_SECONDS`.
        ConfigurationError: NATS refuses this process, or the settings are unusable.
    """
    link = await open_link(Login.read(cluster, node_id), Replies())
    try:
        await _nodes_bucket(cluster.prefix).leave(link, node_id)
    finally:
        await link.close()


def _nodes_bucket(prefix: str) -> Bucket:
    """Return the bucket with the records of the nodes that are alive."""
    return Bucket(f"{prefix}_nodes", f"{prefix}.alive", LIFE_SECONDS)


async def _api(
    link: Link,
    subject: str,
    payload: bytes = b"",
    headers: Mapping[str, str] | None = None,
    seconds: float = REQUEST_SECONDS,
) -> Answer:
    """Ask JetStream.

    Raises:
        ApiError: It refused.
        BusDownError: It did not answer.
    """
    return _read(await link.request(subject, payload, seconds, headers))


async def _find(link: Link, stream: str) -> Answer:
    """Return the state of a stream, as `_api` does. Servers without a leader drop the question, so it is repeated."""
    answered: asyncio.Future[Received] = asyncio.get_running_loop().create_future()

    def take(message: Received) -> None:
        if not answered.done():
            answered.set_result(message)

    reply = link.replies.expect(take)
    try:
        async with _in_time("the state of a stream"):
            while not answered.done():
                await link.publish(f"$JS.API.STREAM.INFO.{stream}", b"", reply)
                await asyncio.wait([answered], timeout=_FIND_SECONDS)
    finally:
        link.replies.forget(reply)
    message = answered.result()
    if (message.headers or {}).get(STATUS) == _NOBODY:
        raise NobodyListensError("NATS did not answer: nobody listens to this subject.")
    return _read(message.data)


def _read(answer: bytes) -> Answer:
    try:
        parsed: Answer = json.loads(answer)
    except ValueError as error:
        raise BusDownError("NATS gave an answer that is not JSON.") from error
    if "error" in parsed:
        failure = ApiError(parsed["error"])
        raise NoStreamError(parsed["error"]) if failure.number == _NO_STREAM else failure
    return parsed


async def _ensure(link: Link, config: Answer) -> str:
    """Create a stream, or change its settings to these. Return when it was created."""
    name = config["name"]
    payload = json.dumps(config).encode()
    try:
        try:
            present = await _find(link, name)
        except NoStreamError:
            present = await _create(link, name, payload)
        if any(present["config"].get(key, 0) != wanted for key, wanted in config.items()):
            await _api(link, f"$JS.API.STREAM.UPDATE.{name}", payload)
        return str(present["created"])
    except NobodyListensError as error:
        raise NoJetStreamError(
            f"NATS at {link.address.url} has no JetStream. Start nats-server with --jetstream, or set jetstream in its "
            "configuration."
        ) from error
    except ApiError as error:
        if error.number == _NAME_IN_USE:
            # Another node was faster, and no server tells of its stream yet. The next attempt finds it.
            raise BusDownError(str(error)) from error
        if error.number in _NO_JETSTREAM:
            raise ConfigurationError(
                f"NATS at {link.address.url} has no JetStream for this user. Enable it for the account."
            ) from error
        if error.status in {400, 500}:
            raise ConfigurationError(
                f"NATS at {link.address.url} does not accept the stream {name} with cluster.replicas = "
                f"{config['num_replicas']}{_size_of(config)}: {error}"
            ) from error
        raise


async def _create(link: Link, name: str, payload: bytes) -> Answer:
    """Create a stream, or return it if another node is faster.

    While a server creates it for one node, it refuses it to another: its memory is reserved already.
    """
    try:
        return await _api(link, f"$JS.API.STREAM.CREATE.{name}", payload)
    except ApiError as refusal:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CREATION_SECONDS):
                while True:
                    await asyncio.sleep(_LOOK_SECONDS)
                    with suppress(NoStreamError):
                        return await _find(link, name)
        raise refusal from None


def _size_of(config: Answer) -> str:
    size = config.get("max_bytes")
    return "" if size is None else f" and cluster.max_audio_bytes = {size}"


@asynccontextmanager
async def _in_time(what: str) -> AsyncIterator[None]:
    """Limit the time of a series of requests."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            yield
    except TimeoutError as error:
        raise BusDownError(f"NATS did not return {what} in time.") from error


async def _last_sequence(link: Link, stream: str, subject: str) -> int:
    """Return the sequence number of a subject's last message, from the stream's leader; 0 if there is none."""
    try:
        question = json.dumps({"last_by_subj": subject}).encode()
        return int((await _api(link, f"$JS.API.STREAM.MSG.GET.{stream}", question))["message"]["seq"])
    except ApiError as error:
        if error.number == _NO_MESSAGE:
            return 0
        raise


async def _get_all(link: Link, stream: str, query: Answer) -> list[Received]:
    """Return the messages that a direct get finds, in as many batches as needed."""
    found: list[Received] = []
    while True:
        batch, is_last = await _get_batch(link, stream, {**query, "batch": _BATCH_MESSAGES})
        found += batch
        if is_last or not batch:
            return found
        query = {"next_by_subj": query["next_by_subj"], "seq": _sequence(batch[-1]) + 1}


async def _get_batch(link: Link, stream: str, query: Answer) -> tuple[list[Received], bool]:
    """Return one batch of a direct get, and whether it is the last one.

    Each answer has its sequence number in a header. A message with a status ends the batch: 204 after its last message,
    404 if nothing was found (NATS ADR-31).
    """
    found: list[Received] = []
    ended: asyncio.Future[Received] = asyncio.get_running_loop().create_future()

    def take(message: Received) -> None:
        if STATUS not in (message.headers or {}):
            found.append(message)
        elif not ended.done():
            ended.set_result(message)

    reply = link.replies.expect(take)
    try:
        await link.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), reply)
        end = (await ended).headers or {}
    finally:
        link.replies.forget(reply)
    if end[STATUS] == "404":
        return [], True
    if end[STATUS] != "204":
        raise BusDownError(f"NATS answered: {end[STATUS]} {end.get('Description', '')}.")
    return found, int(end.get("Nats-Num-Pending", 0)) == 0


def _sequence(message: Received) -> int:
    return int((message.headers or {})[_SEQUENCE])
