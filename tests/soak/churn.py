"""Listeners who come, stall, die and go, behind good networks and bad ones, and a broadcaster who drops and returns."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack, suppress

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.protocol.json_messages import decode
from tests.reliability.storms import misbehave
from tests.support.fault_proxy import fault_proxy
from tests.support.live_session import MONO_BYTES, Broadcaster
from tests.support.processes import RelayProcess
from tests.support.wire_listener import SMALL_BUFFER_BYTES, WireListener, open_listener

STALL_LIMIT_SECONDS = 2.0
"""Short, so that a soak of a minute has cut off many."""

SETTINGS = {
    "RELAY_LISTENER_STALL_LIMIT_SECONDS": str(STALL_LIMIT_SECONDS),
    "RELAY_BROADCAST_GRACE_SECONDS": "1",
    "RELAY_LISTENER_HISTORY_SECONDS": "5",
}

BAD_NETWORKS = 3

FORMATS = {"": MONO_BYTES, "&rate=48000&channels=2": 3840}
"""Queries, and the bytes of 20 ms."""

BEHAVIOURS = ("read", "read", "read in pieces", "stall", "stall until it is cut off")
ENDINGS = ("close", "vanish", "stay")


class Churn:
    """Everything that happens to one relay.

    Attributes:
        counts: Of visits, of frames that came, of frames that gaps named, of drops of the broadcaster.
        steady: A listener who is there from the beginning to the end, and must lose nothing.
    """

    def __init__(self, relay: RelayProcess, steady: WireListener, lives: int) -> None:
        self._relay = relay
        self._lives = lives
        self._until = 0.0
        self.counts: Counter[str] = Counter()
        self.steady = steady

    async def run(self, seconds: float) -> None:
        """Let it happen for a time; then all have left but the steady listener and one broadcaster, who has ended."""
        self._until = asyncio.get_running_loop().time() + seconds
        async with AsyncExitStack() as stack:
            networks = [await stack.enter_async_context(fault_proxy(self._relay.url)) for _ in range(BAD_NETWORKS)]
            for network in networks:
                network.down.line_bytes = 16_384
            urls = [self._relay.url] * BAD_NETWORKS + [network.url for network in networks]
            async with asyncio.TaskGroup() as group:
                for number, network in enumerate(networks):
                    group.create_task(misbehave(network, _random(number), self._until))
                for number in range(self._lives):
                    group.create_task(self._live(urls[number % len(urls)], _random(number)))
                group.create_task(self._broadcast(_random(-1)))

    async def _live(self, url: str, choice: random.Random) -> None:
        """Visit again and again, sometimes going on where the last visit ended."""
        loop = asyncio.get_running_loop()
        place: tuple[int, int] | None = None
        while loop.time() < self._until:
            query = f"buffer_ms={choice.choice((200, 1000, 10_000))}&coalesce_ms={choice.choice((0, 0, 60))}"
            if place is not None and choice.random() < 0.5:
                query += f"&epoch={place[0]}&after={(place[1] - 1) % (1 << 32)}"
            small = SMALL_BUFFER_BYTES if choice.random() < 0.5 else None
            try:
                listener = await open_listener(url, f"/v1/listen/ev1?{query}", receive_buffer=small)
            except (AssertionError, ConnectionError, TimeoutError):
                await asyncio.sleep(0.1)  # the network failed
                continue
            try:
                await self._visit(listener, choice)
                place = self._count(listener)
            finally:
                listener.close()

    async def _visit(self, listener: WireListener, choice: random.Random) -> None:
        behaviour = choice.choice(BEHAVIOURS)
        seconds = choice.uniform(0.2, 3)
        if behaviour != "read":
            listener.pause()
        if behaviour == "stall until it is cut off":
            seconds = STALL_LIMIT_SECONDS + 2
        loop = asyncio.get_running_loop()
        until = min(loop.time() + seconds, self._until)
        while (left := until - loop.time()) > 0 and not listener.has_ended:
            if behaviour == "read in pieces":
                listener.read(choice.randint(1, 2000))
                left = min(left, 0.02)
            await asyncio.sleep(min(left, 0.5))
        if choice.choice(ENDINGS) == "stay":
            listener.resume()
            await asyncio.sleep(choice.uniform(0, 0.5))

    def _count(self, listener: WireListener) -> tuple[int, int]:
        """Check the account of a visit and add it up; gives where it ended."""
        accounted = listener.account()
        self.counts["visits"] += 1
        self.counts["frames"] += len(listener.frames)
        self.counts["gap frames"] += sum(gap["to_seq"] - gap["from_seq"] + 1 for gap in listener.gaps)
        epochs = [listener.hello["epoch"], *(told["epoch"] for told in listener.told if told["type"] == "format")]
        return epochs[-1], accounted[-1]

    async def _broadcast(self, choice: random.Random) -> None:
        """Broadcast with interruptions of all kinds, at last without, and end."""
        loop = asyncio.get_running_loop()
        query = ""
        while True:
            is_last = loop.time() >= self._until
            if choice.random() < 0.2:
                query = choice.choice(list(FORMATS))
            url = f"{self._relay.websocket_url}/v1/broadcast/ev1?takeover=1{query}"
            async with connect(
                url, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None, close_timeout=1
            ) as connection:
                hello = decode(str(await connection.recv()))
                source = Broadcaster(connection, hello["connection_id"], FORMATS[query], [hello["next_seq"]])
                await source.play(0.5 if is_last else choice.uniform(1, 5))
                if is_last:
                    await source.end()
                    return
                self.counts["broadcaster's drops"] += 1
                if choice.random() < 0.5:
                    connection.transport.abort()
                with suppress(ConnectionClosed):
                    await connection.close()
            await asyncio.sleep(choice.choice((0, 0.2, 1.5)))


def _random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same every time, which a secret must not be
