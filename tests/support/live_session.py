"""A broadcaster in real time, listeners beside it, and what they are owed; parts of the tests of a running relay."""

import asyncio
import json
import resource
import ssl
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.protocol.json_messages import decode
from tests.support.processes import RelayProcess, relay_process
from tests.support.tries import check_in_time
from tests.support.wire_listener import (
    WireListener,
    milliseconds_between,
    numbered_audio,
    open_listener,
    wire_clock,
)

FRAME_SECONDS = 0.02
MONO_BYTES = 640
"""A frame of 16 kHz mono."""

LOOPS = ("asyncio", "uvloop")

LATE_MS = 250
"""What reaches one who reads must not be later than this, whatever others do."""

STALL_MS = 1000
"""How much later the frames of a moment may be in which the machine did not let the relay run."""

PROMPT_MS = 100
"""How soon a ping is answered, whatever others do."""


class Broadcaster:
    """A source of numbered frames in real time.

    Attributes:
        connection_id: The relay's name of it.
        published: Frames sent so far, for each epoch of the channel.
        sent_ms: When this broadcaster sent each of its frames, by the relay's clock.
    """

    def __init__(
        self, connection: ClientConnection, connection_id: str, frame_bytes: int, published: list[int]
    ) -> None:
        self._connection = connection
        self._frame_bytes = frame_bytes
        self.connection_id = connection_id
        self.published = published
        self.sent_ms: list[int] = []

    async def play(self, seconds: float) -> None:
        """Publish one frame every 20 ms, each when it is over, catching up when this process was held up."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for count in range(1, round(seconds / FRAME_SECONDS) + 1):
            # Were the first one sent at once, calls in a row would be faster than real time, and be held back.
            await asyncio.sleep(began + count * FRAME_SECONDS - loop.time())
            self.sent_ms.append(wire_clock())
            await self._connection.send(numbered_audio(self.published[-1], self._frame_bytes))
            self.published[-1] += 1

    async def send(self, frames: int) -> None:
        """Publish frames as fast as the relay takes them."""
        for _ in range(frames):
            await self._connection.send(numbered_audio(self.published[-1], self._frame_bytes))
            self.published[-1] += 1

    def send_together(self, frames: int) -> None:
        """Publish frames in one write, so that they come together however busy this machine is."""
        for _ in range(frames):
            self._connection.protocol.send_binary(numbered_audio(self.published[-1], self._frame_bytes))
            self.published[-1] += 1
        self._connection.send_data()

    async def end(self) -> None:
        """End the session: all listeners get what they are owed and are closed with 1000."""
        await self._connection.send('{"type":"end"}')
        await self._connection.wait_closed()


@asynccontextmanager
async def broadcasting(
    relay: RelayProcess,
    session: str,
    query: str = "",
    *,
    frame_bytes: int = MONO_BYTES,
    published: Sequence[int] = (0,),
    key: str | None = None,
) -> AsyncIterator[Broadcaster]:
    """Broadcast to a session, from `published` on; a new epoch is a 0 more at its end."""
    offered = ["relay.v1"] if key is None else ["relay.v1", f"relay.token.{key}"]
    async with connect(
        f"{relay.websocket_url}/v1/broadcast/{session}{query}",
        subprotocols=[Subprotocol(name) for name in offered],
        compression=None,
        proxy=None,
        # Nobody takes what it is told; with a bound the library would read nothing more after some, no pong, no close.
        max_queue=None,
    ) as connection:
        hello = json.loads(await connection.recv())
        yield Broadcaster(connection, hello["connection_id"], frame_bytes, list(published))


@asynccontextmanager
async def greeted(url: str, target: str, trusting: ssl.SSLContext | None) -> AsyncIterator[ClientConnection]:
    """A client that was greeted, and asks nothing by itself."""
    async with connect(
        url.replace("http", "ws", 1) + target,
        ssl=trusting,
        subprotocols=[Subprotocol("relay.v1")],
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=0.1,
        max_queue=None,
    ) as connection:
        assert decode(str(await connection.recv()))["type"] == "hello"
        yield connection


async def on_both_loops(
    scenario: Callable[[RelayProcess], Coroutine[None, None, None]], module: str = "relay", **settings: str
) -> None:
    """Run a scenario that mostly waits against a relay on each event loop, both at once."""
    async with (
        relay_process(module=module, RELAY_SERVER_LOOP=LOOPS[0], **settings) as first,
        relay_process(module=module, RELAY_SERVER_LOOP=LOOPS[1], **settings) as second,
        asyncio.TaskGroup() as group,
    ):
        for relay in (first, second):
            group.create_task(scenario(relay))


class Lateness:
    """How late this process itself was, which looks like lateness of the relay.

    Attributes:
        most_ms: At worst.
    """

    def __init__(self) -> None:
        self.most_ms = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            self.most_ms = max(self.most_ms, (loop.time() - before) * 1000 - 5)


async def check_accounts(listeners: Iterable[WireListener], broadcaster: Broadcaster) -> None:
    """Wait until the end of the session has closed all, and hold what they got against what was published."""
    for listener in listeners:
        await listener.until_ended()
        assert listener.close_code == 1000, f"closed with {listener.close_code}; last came {listener.events[-3:]}"
        account = listener.account()
        assert account == broadcaster.published[-len(account) :]


def check_untouched(
    listeners: Iterable[WireListener], broadcaster: Broadcaster, lateness: Lateness, late_ms: float = LATE_MS
) -> None:
    """Listeners who read lost nothing and got nothing late, on the way from the broadcaster that sent it all."""
    for listener in listeners:
        assert listener.gaps == []
        ways_ms = ways_of(listener, broadcaster)
        check_in_time(percentile(ways_ms, 90), late_ms, "most of the frames")
        check_in_time(max(ways_ms), late_ms + STALL_MS + lateness.most_ms, "the slowest frame")


def ways_of(listener: WireListener, broadcaster: Broadcaster) -> list[int]:
    """Give how long each frame took from the broadcaster that sent it, in milliseconds."""
    return [milliseconds_between(broadcaster.sent_ms[frame.number], frame.read_ms) for frame in listener.frames]


def end_age_ms(listener: WireListener) -> float:
    """Give how old the last half second was that came; the median, as whoever is kept behind gets all of it late."""
    return percentile((frame.age_ms for frame in listener.frames[-25:]), 50)


def check_prompt(took_ms: Sequence[float], lateness: Lateness) -> None:
    """Answers came soon, also most of those for which the machine was late."""
    check_in_time(percentile(took_ms, 50), PROMPT_MS, "half of the answers")
    check_in_time(percentile(took_ms, 95), LATE_MS + lateness.most_ms, "most of the answers")


async def listen_beside(relay: RelayProcess, session: str, count: int) -> list[WireListener]:
    """Listeners who read whatever comes."""
    return [await open_listener(relay.url, f"/v1/listen/{session}") for _ in range(count)]


async def ask_repeatedly(listener: WireListener, times: int) -> list[float]:
    """Ping so often, on both layers in turn; gives how long each answer took, in milliseconds."""
    loop = asyncio.get_running_loop()
    took_ms: list[float] = []
    while len(took_ms) < times:
        asked = loop.time()
        await ask(listener, len(took_ms))
        took_ms.append((loop.time() - asked) * 1000)
        await asyncio.sleep(0.03)
    return took_ms


async def ask(listener: WireListener, number: int) -> None:
    """Ping, by a control message or on the WebSocket layer, and wait for the answer."""
    if number % 2:
        before = len(listener.told)
        listener.send_text("ping", id=number)
        # Something else may be told right behind the answer.
        await listener.until(lambda: any(told.get("id") == number for told in listener.told[before:]))
    else:
        payload = b"%d" % number
        listener.send_ping(payload)
        await listener.until(lambda: listener.last_pong == payload)


def percentile(values: Iterable[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def applied_limits(relay: RelayProcess) -> dict[str, int]:
    """Stop a relay, and give how often it applied each limit; its log has a summary once in a while."""
    assert await relay.terminate() == 0
    applied: Counter[str] = Counter()
    for record in relay.log:
        if record["event"] == "limits were applied":
            applied.update({name: count for name, count in record.items() if isinstance(count, int)})
    return dict(applied)


def resident_bytes(relay: RelayProcess) -> int:
    """Memory of the relay."""
    return int(Path(f"/proc/{relay.pid}/statm").read_text().split()[1]) * resource.getpagesize()
