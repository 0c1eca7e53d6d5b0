"""A broadcaster in real time and its listeners, with checks of what each listener received."""

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
"""The most that audio may be late for a listener that reads, whatever others do."""

STALL_MS = 1000
"""How much later frames may be when the machine did not run the relay for a moment."""

PROMPT_MS = 100
"""The time limit for a pong, whatever others do."""


class Broadcaster:
    """A source of numbered frames in real time.

    Attributes:
        connection_id: The relay's id of the connection.
        published: Frames sent so far in each epoch of the channel.
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
        """Publish one frame every 20 ms, at the end of its time; catch up if this process was delayed."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for count in range(1, round(seconds / FRAME_SECONDS) + 1):
            # If the first frame left at once, repeated calls would exceed real time, and the relay would slow them
            # down.
            await asyncio.sleep(began + count * FRAME_SECONDS - loop.time())
            self.sent_ms.append(wire_clock())
            await self._connection.send(numbered_audio(self.published[-1], self._frame_bytes))
            self.published[-1] += 1

    async def send(self, frames: int) -> None:
        """Publish frames as fast as the relay accepts them."""
        for _ in range(frames):
            await self._connection.send(numbered_audio(self.published[-1], self._frame_bytes))
            self.published[-1] += 1

    def send_together(self, frames: int) -> None:
        """Publish frames in one write, so that they arrive together even on a busy machine."""
        for _ in range(frames):
            self._connection.protocol.send_binary(numbered_audio(self.published[-1], self._frame_bytes))
            self.published[-1] += 1
        self._connection.send_data()

    async def end(self) -> None:
        """End the session; every listener then receives its remaining frames and close code 1000."""
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
    """Broadcast to a session and continue the counts in `published`; append a 0 to begin a new epoch."""
    offered = ["relay.v1"] if key is None else ["relay.v1", f"relay.token.{key}"]
    async with connect(
        f"{relay.websocket_url}/v1/broadcast/{session}{query}",
        subprotocols=[Subprotocol(name) for name in offered],
        compression=None,
        proxy=None,
        # Nobody reads these messages. With a bound, the library would stop reading and miss pongs and the close.
        max_queue=None,
    ) as connection:
        hello = json.loads(await connection.recv())
        yield Broadcaster(connection, hello["connection_id"], frame_bytes, list(published))


@asynccontextmanager
async def greeted(url: str, target: str, trusting: ssl.SSLContext | None) -> AsyncIterator[ClientConnection]:
    """Connect a client, wait for its greeting, and send no pings of its own."""
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
    """Run a scenario against a relay on each event loop, both at once; the scenario should mostly wait."""
    async with (
        relay_process(module=module, RELAY_SERVER_LOOP=LOOPS[0], **settings) as first,
        relay_process(module=module, RELAY_SERVER_LOOP=LOOPS[1], **settings) as second,
        asyncio.TaskGroup() as group,
    ):
        for relay in (first, second):
            group.create_task(scenario(relay))


class Lateness:
    """How late this test process was, which would otherwise look like lateness of the relay.

    Attributes:
        most_ms: The worst delay.
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
    """Wait until every listener is closed with 1000, and compare what each received with what was published."""
    for listener in listeners:
        await listener.until_ended()
        assert listener.close_code == 1000, f"closed with {listener.close_code}; last came {listener.events[-3:]}"
        account = listener.account()
        assert account == broadcaster.published[-len(account) :]


def check_untouched(
    listeners: Iterable[WireListener], broadcaster: Broadcaster, lateness: Lateness, late_ms: float = LATE_MS
) -> None:
    """Check that listeners that read lost nothing, and that no frame of this broadcaster reached them late."""
    for listener in listeners:
        assert listener.gaps == []
        ways_ms = ways_of(listener, broadcaster)
        check_in_time(percentile(ways_ms, 90), late_ms, "most of the frames")
        check_in_time(max(ways_ms), late_ms + STALL_MS + lateness.most_ms, "the slowest frame")


def ways_of(listener: WireListener, broadcaster: Broadcaster) -> list[int]:
    """Return how long each frame of this broadcaster took to the listener, in milliseconds."""
    return [milliseconds_between(broadcaster.sent_ms[frame.number], frame.read_ms) for frame in listener.frames]


def end_age_ms(listener: WireListener) -> float:
    """Return the median age of the last half second of frames. A listener that stays behind gets all of them late."""
    return percentile((frame.age_ms for frame in listener.frames[-25:]), 50)


def check_prompt(took_ms: Sequence[float], lateness: Lateness) -> None:
    """Check that answers came soon, including most of those that a busy machine delayed."""
    check_in_time(percentile(took_ms, 50), PROMPT_MS, "half of the answers")
    check_in_time(percentile(took_ms, 95), LATE_MS + lateness.most_ms, "most of the answers")


async def listen_beside(relay: RelayProcess, session: str, count: int) -> list[WireListener]:
    """Connect listeners that read everything as it arrives."""
    return [await open_listener(relay.url, f"/v1/listen/{session}") for _ in range(count)]


async def ask_repeatedly(listener: WireListener, times: int) -> list[float]:
    """Ping this many times, on alternating layers, and return how long each answer took in milliseconds."""
    loop = asyncio.get_running_loop()
    took_ms: list[float] = []
    while len(took_ms) < times:
        asked = loop.time()
        await ask(listener, len(took_ms))
        took_ms.append((loop.time() - asked) * 1000)
        await asyncio.sleep(0.03)
    return took_ms


async def ask(listener: WireListener, number: int) -> None:
    """Send a ping as a control message or on the WebSocket layer, and wait for the answer."""
    if number % 2:
        before = len(listener.told)
        listener.send_text("ping", id=number)
        # Another message may follow right behind the answer.
        await listener.until(lambda: any(told.get("id") == number for told in listener.told[before:]))
    else:
        payload = b"%d" % number
        listener.send_ping(payload)
        await listener.until(lambda: listener.last_pong == payload)


def percentile(values: Iterable[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def applied_limits(relay: RelayProcess) -> dict[str, int]:
    """Stop a relay and return how often it applied each limit. Its log summarizes them only now and then."""
    assert await relay.terminate() == 0
    applied: Counter[str] = Counter()
    for record in relay.log:
        if record["event"] == "limits were applied":
            applied.update({name: count for name, count in record.items() if isinstance(count, int)})
    return dict(applied)


def resident_bytes(relay: RelayProcess) -> int:
    """Return the relay's resident memory, in bytes."""
    return int(Path(f"/proc/{relay.pid}/statm").read_text().split()[1]) * resource.getpagesize()
