"""Listeners and broadcasters that roam over a cluster, with an exact account of what was said and what was heard.

The audio says who sent it and which frame it is. So a test can check the content beside the numbers: each broadcaster
in one piece, nothing of one who was replaced behind one who came later, the same content under the same number.
"""

import asyncio
import base64
import json
import os
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from relay.client import ConnectionLostError, Reconnect, RelayError, broadcast
from relay.loadtest.account import ListenerAccount
from relay.protocol.messages import Gap
from relay.protocol.wire import HEADER_BYTES, SUBPROTOCOL, WORD_MASK, Header
from relay.vocabulary.audio import AudioFormat, Pace

FRAME_SECONDS = 0.02

JOIN_SECONDS = 10.0
"""How long a handshake may take before a listener tries another relay."""

AWAY_SECONDS = 0.5
"""A listener waits at most this long before it tries again."""

CLAIM_SECONDS = 15.0
"""A broadcaster gives up after this time. A cluster of NATS servers may take seconds to elect who leads."""

NORMAL = 1000
_TEXT, _BINARY, _CLOSE, _PING = 0x1, 0x2, 0x8, 0x9
_SOURCE_SHIFT = 24
_RATE = 16_000
_SPEECH_LEAD_SECONDS = 3.0


def content_of(source: int, number: int, length: int) -> bytes:
    """Return a frame of audio that names its broadcaster and its number."""
    return (source << _SOURCE_SHIFT | number).to_bytes(4) * (length // 4)


class Ledger:
    """What a channel released, put together from what all its listeners heard.

    Attributes:
        contents: The broadcaster and the number of each frame, by epoch and seq.
        disputed: Numbers that two broadcasters had, because a relay that was cut off went on with them.
        different: Numbers under which listeners heard different frames of one broadcaster.
    """

    def __init__(self) -> None:
        self.contents: dict[tuple[int, int], tuple[int, int]] = {}
        self.disputed: set[tuple[int, int]] = set()
        self.different: list[str] = []

    def note(self, epoch: int, seq: int, source: int, number: int) -> None:
        known = self.contents.setdefault((epoch, seq), (source, number))
        if known == (source, number):
            return
        if known[0] == source:
            self.different.append(f"{epoch}/{seq} is frame {known[1]} and frame {number} of broadcaster {source}")
        self.disputed.add((epoch, seq))

    def numbers_of(self, source: int) -> list[int]:
        """Return the frames of a broadcaster that anybody heard, in the order of their release."""
        return [number for _, (said, number) in sorted(self.contents.items()) if said == source]


class Ear:
    """A listener that returns to any relay whenever its connection ends, until the channel ends.

    Attributes:
        account: Every frame since it first joined.
        heard: The broadcasters that it heard, in turn.
        faults: What was wrong, in words.
        visits: The number of its connections.
        resumed: How many of them went on where the one before had ended.
        lost_place: Connections that could not, with the number that was asked for.
        hello_ms: How long each greeting took from the beginning of the connection.
        longest_pause: The longest time between two frames, in seconds.
        last_at: When the last frame came.
        closes: How its connections ended, by close code.
        refused: Why connections failed.
        url: The relay of its latest connection.
        is_over: Whether the channel ended.
        is_there: Set while it is connected.
    """

    def __init__(
        self, ledger: Ledger, target: str, where: Callable[[], str], *, choice: random.Random, query: str = ""
    ) -> None:
        self._ledger = ledger
        self._target = target
        self._where = where
        self._choice = choice
        self._query = query
        self._last_number = -1
        self._had_gap = False
        self._loop = asyncio.get_running_loop()
        self._visit: _Visit | None = None
        self.account = ListenerAccount()
        self.heard: list[int] = []
        self.faults: list[str] = []
        self.visits = 0
        self.resumed = 0
        self.lost_place: list[str] = []
        self.hello_ms: list[float] = []
        self.closes = Counter[int | None]()
        self.refused: list[str] = []
        self.url = ""
        self.longest_pause = 0.0
        self.last_at: float | None = None
        self.is_over = False
        self.is_there = asyncio.Event()

    async def listen(self) -> None:
        """Listen until the channel ends."""
        while not self.is_over:
            began = self._loop.time()
            try:
                await self._connect(began)
            except (OSError, TimeoutError) as error:
                self.closes[None] += 1
                self.refused.append(str(error))
            except Exception as error:
                self.faults.append(repr(error))
                self.is_there.set()
                raise
            self.is_there.clear()
            if not self.is_over:
                await asyncio.sleep(self._choice.random() * AWAY_SECONDS)

    def __str__(self) -> str:
        """Describe it for a failed test."""
        place = f"{self.account.epoch}/{self.account.next_seq}"
        there = "connected" if self.is_there.is_set() else "away"
        return f"{there} {self.url}, at {place}, closes {dict(self.closes)}, refused {self.refused[-2:]}"

    async def visit(self, url: str) -> None:
        """Wait until it listens at a relay, to which it goes now."""
        self._where = lambda: url
        self.leave()
        self.is_there.clear()
        async with asyncio.timeout(60):
            await self.is_there.wait()

    def leave(self) -> None:
        """Drop the connection."""
        if self._visit is not None:
            self._visit.abort()

    async def _connect(self, began: float) -> None:
        self.url = self._where()
        url = urlsplit(self.url)
        visit = self._visit = _Visit(self, self._request(url.netloc), began)
        async with asyncio.timeout(JOIN_SECONDS):
            transport, _ = await self._loop.create_connection(lambda: visit, url.hostname or "", url.port or 0)
            try:
                await visit.greeted
            except BaseException:
                transport.abort()
                raise
        try:
            code = await visit.ended
        finally:
            transport.abort()
        self.closes[code] += 1
        self.is_over = code == NORMAL

    def _request(self, host: str) -> bytes:
        query = self._query
        if self.account.epoch is not None:
            after = (self.account.next_seq - 1) & WORD_MASK
            query = f"{query}&epoch={self.account.epoch}&after={after}".lstrip("&")
        return (
            f"GET {self._target}?{query} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        ).encode()

    def take_hello(self, hello: dict[str, object], took: float) -> None:
        """Go on with the account, or begin it."""
        account = self.account
        epoch, seq = int(str(hello["epoch"])), int(str(hello["next_seq"]))
        self.visits += 1
        self.hello_ms.append(took * 1000)
        if account.epoch is None:
            account.begin(epoch, seq)
        elif hello["resumed"]:
            self.resumed += 1
            if (epoch, seq) != (account.epoch, account.next_seq):
                self.faults.append(f"resumed at {epoch}/{seq} instead of {account.epoch}/{account.next_seq}")
        else:
            self.lost_place.append(f"{account.epoch}/{account.next_seq} became {epoch}/{seq}")
            account.begin(epoch, seq)
            self._had_gap = True
        self.is_there.set()

    def take_text(self, message: dict[str, object]) -> None:
        """Take a control message."""
        account = self.account
        if message["type"] == "gap":
            gap = Gap.read(message)
            if (gap.epoch, gap.from_seq) != (account.epoch, account.next_seq):
                self.faults.append(f"{message} came, {account.epoch}/{account.next_seq} was due")
            account.gap(gap)
            self._had_gap = True
        elif message["type"] == "format" and message["epoch"] != account.epoch:
            account.begin(int(str(message["epoch"])), 0)

    def take_audio(self, payload: memoryview) -> None:
        """Take a frame."""
        header = Header.unpack(bytes(payload[:HEADER_BYTES]))
        account = self.account
        if (header.epoch, header.seq) != (account.epoch, account.next_seq):
            self.faults.append(f"{header.epoch}/{header.seq} came, {account.epoch}/{account.next_seq} was due")
        account.frame(header.epoch, header.seq)
        word = int.from_bytes(payload[HEADER_BYTES : HEADER_BYTES + 4])
        source, number = word >> _SOURCE_SHIFT, word & ((1 << _SOURCE_SHIFT) - 1)
        self._ledger.note(header.epoch, header.seq, source, number)
        if not self.heard or self.heard[-1] != source:
            self.heard.append(source)
        elif number <= self._last_number:
            self.faults.append(f"frame {number} of broadcaster {source} came after {self._last_number}")
        elif number != self._last_number + 1 and not self._had_gap:
            self.faults.append(f"frame {number} of broadcaster {source} follows {self._last_number} without a gap")
        self._last_number, self._had_gap = number, False
        now = self._loop.time()
        if self.last_at is not None:
            self.longest_pause = max(self.longest_pause, now - self.last_at)
        self.last_at = now


class _Visit(asyncio.Protocol):
    """One connection of an ear. It parses WebSocket itself, because hundreds of them share a process."""

    def __init__(self, ear: Ear, request: bytes, began: float) -> None:
        loop = asyncio.get_running_loop()
        self.greeted = loop.create_future()
        self.ended: asyncio.Future[int | None] = loop.create_future()
        self._ear = ear
        self._request = request
        self._began = began
        self._loop = loop
        self._buffer = bytearray()
        self._is_upgraded = False
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature of asyncio
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError("The relay closed the connection before its greeting."))
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        buffer = self._buffer
        buffer += data
        if not self._is_upgraded and not self._upgrade(buffer):
            return
        position = 0
        with memoryview(buffer) as view:
            while (frame := _next_frame(view, position)) is not None:
                opcode, start, position = frame
                self._take(opcode, view[start:position])
        del buffer[:position]

    def _upgrade(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not buffer.startswith(b"HTTP/1.1 101"):
            self.greeted.set_exception(ConnectionError(buffer[:200].decode(errors="replace")))
            self.abort()
            return False
        del buffer[: end + 4]
        self._is_upgraded = True
        return True

    def _take(self, opcode: int, payload: memoryview) -> None:
        if opcode == _BINARY:
            self._ear.take_audio(payload)
        elif opcode == _TEXT:
            message = json.loads(bytes(payload))
            if message["type"] == "hello":
                self._ear.take_hello(message, self._loop.time() - self._began)
                self.greeted.set_result(None)
            else:
                self._ear.take_text(message)
        elif opcode == _CLOSE:
            if not self.greeted.done():
                self.greeted.set_exception(ConnectionError(bytes(payload[2:]).decode()))
            if not self.ended.done():
                self.ended.set_result(int.from_bytes(payload[:2]))
        elif opcode == _PING and self._transport is not None:
            # Masked with zeros, which changes nothing.
            self._transport.write(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)


def _next_frame(view: memoryview, position: int) -> tuple[int, int, int] | None:
    """Return the opcode of the frame at a position, and where its payload begins and ends; None if it is incomplete."""
    held = len(view) - position
    if held < 2:
        return None
    length, start = view[position + 1], position + 2
    if length == 126:
        if held < 4:
            return None
        (length,) = struct.unpack_from("!H", view, start)
        start += 2
    elif length == 127:
        if held < 10:
            return None
        (length,) = struct.unpack_from("!Q", view, start)
        start += 8
    return None if start + length > len(view) else (view[position] & 0x0F, start, start + length)


class Mouth:
    """A broadcaster that returns through any relay.

    Attributes:
        source: Its number.
        sent: The number of its frames.
        ended: Why it stopped against its will.
        reconnects: How often it returned.
    """

    def __init__(self, source: int, *, pace: Pace = Pace.LIVE, frame_seconds: float = FRAME_SECONDS) -> None:
        self.source = source
        self.sent = 0
        self.ended: RelayError | None = None
        self.ended_at = 0.0
        self.reconnects = 0
        self.dropped_frames = 0
        self._pace = pace
        self._frame_seconds = frame_seconds
        self._frame_bytes = round(_RATE * frame_seconds) * 2
        self._should_end = asyncio.Event()
        self.is_on = asyncio.Event()

    async def speak(self, url: str, session: str, *, takeover: bool = False) -> None:
        """Send audio until `stop`, then end the session. A broadcaster that is replaced stops by itself.

        A relay that can't reach its cluster asks it to try again in a few seconds, so it does.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + CLAIM_SECONDS
        while True:
            await self._speak(url, session, takeover=takeover)
            if not isinstance(self.ended, ConnectionLostError) or self.sent or loop.time() >= until:
                self.is_on.set()
                return
            self.ended = None
            await asyncio.sleep(AWAY_SECONDS)

    async def _speak(self, url: str, session: str, *, takeover: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with broadcast(
                url,
                session,
                audio_format=AudioFormat(rate=_RATE),
                pace=self._pace,
                takeover=takeover,
                reconnect=Reconnect(first_seconds=0.5, max_seconds=1.0),
                queue_seconds=15.0,
                dropping="never" if self._pace is Pace.SPEECH else "in-cuts",
            ) as broadcaster:
                self.is_on.set()
                began = loop.time()
                early = _SPEECH_LEAD_SECONDS if self._pace is Pace.SPEECH else 0.0
                while not self._should_end.is_set():
                    await asyncio.sleep(began - early + self.sent * self._frame_seconds - loop.time())
                    await broadcaster.send(content_of(self.source, self.sent, self._frame_bytes))
                    self.sent += 1
                    self.reconnects = broadcaster.stats.reconnects
                await broadcaster.end()
                self.reconnects = broadcaster.stats.reconnects
                self.dropped_frames = broadcaster.stats.dropped.chunks
        except RelayError as error:
            self.ended, self.ended_at = error, loop.time()

    def stop(self) -> None:
        """Say nothing more."""
        self._should_end.set()


@asynccontextmanager
async def listening(ears: Iterable[Ear]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Let listeners listen while the block runs; all have been greeted when it begins."""
    loop = asyncio.get_running_loop()
    ears = list(ears)
    tasks = [loop.create_task(ear.listen()) for ear in ears]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(ear.is_there.wait() for ear in ears))
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_ears(ears: Iterable[Ear], ledger: Ledger, *, may_lose_place: bool = False) -> None:
    """Check that every account is exact: each frame was delivered or told once, in order, with the right content."""
    ears = list(ears)
    for number, ear in enumerate(ears):
        assert not ear.faults, f"listener {number}: {ear.faults[:5]}"
        assert ear.account.unaccounted == 0, number
        assert may_lose_place or not ear.lost_place, f"listener {number}: {ear.lost_place}"
        assert len(set(ear.heard)) == len(ear.heard), f"a broadcaster who was replaced was heard again: {ear.heard}"
    assert not ledger.different, ledger.different[:5]
    ends = {(ear.account.epoch, ear.account.next_seq) for ear in ears}
    assert len(ends) == 1, f"the listeners disagree where the channel ended: {ends}"
    released = max(seq for epoch, seq in ledger.contents if epoch == ears[0].account.epoch) + 1
    assert ends == {(ears[0].account.epoch, released)}


def told(ears: Iterable[Ear]) -> str:
    """Return the sum of accounts, in words."""
    ears = list(ears)
    frames, gaps = (sum(getattr(ear.account, name) for ear in ears) for name in ("delivered", "gap_frames"))
    lost = sum(len(ear.lost_place) for ear in ears)
    visits = sum(ear.visits for ear in ears)
    return f"{len(ears)} listeners, {visits} connections: {frames} frames, {gaps} named by gaps, {lost} lost places"
