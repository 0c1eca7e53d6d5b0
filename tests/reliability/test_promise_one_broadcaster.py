"""Promise 7: a channel has one broadcaster at a time. tests/integration/test_access.py tests who may broadcast."""

import asyncio
import random
from itertools import groupby

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.protocol.json_messages import decode
from tests.reliability.conftest import Figure
from tests.reliability.loads import Load
from tests.support.live_session import MONO_BYTES, on_both_loops
from tests.support.processes import RelayProcess
from tests.support.wire_listener import closing, numbered_audio, open_listener

pytestmark = pytest.mark.timed

RIVALS = 12
"""Broadcasters that claim the channel at the same time."""

FRAMES_EACH = 4


class Channel:
    """The channel's history, as its broadcasters know it.

    Attributes:
        wanted: How often a broadcaster claimed it.
        closes: The close codes of its broadcasters.
    """

    def __init__(self, relay: RelayProcess, takeovers: int) -> None:
        self._url = f"{relay.websocket_url}/v1/broadcast/ev1"
        self._takeovers = takeovers
        self.wanted = 0
        self.closes: list[int] = []

    async def rival(self, choice: random.Random) -> None:
        """Claim the channel again and again, and send audio that names the sender while holding it."""
        while self.wanted < self._takeovers:
            self.wanted += 1
            name = self.wanted
            query = "" if choice.random() < 0.1 else "?takeover=1"
            async with connect(
                self._url + query, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None
            ) as connection:
                try:
                    if decode(str(await connection.recv()))["type"] == "hello":
                        await self._speak(connection, name, choice)
                    await connection.wait_closed()
                except ConnectionClosed:
                    pass
            assert connection.close_code is not None
            self.closes.append(connection.close_code)

    async def take_over(self, *, end: bool = False) -> None:
        """Take the channel over, and leave it."""
        async with connect(
            f"{self._url}?takeover=1", subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None
        ) as connection:
            await connection.recv()
            if end:
                await connection.send('{"type":"end"}')
                await connection.wait_closed()

    async def _speak(self, connection: ClientConnection, name: int, choice: random.Random) -> None:
        for number in range(FRAMES_EACH):
            await connection.send(numbered_audio(name * FRAMES_EACH + number, MONO_BYTES))
            if choice.random() < 0.3:
                await asyncio.sleep(0)
        if choice.random() < 0.1:
            await connection.close()


async def test_one_broadcaster_at_a_time_through_many_take_overs(load: Load, figure: Figure) -> None:
    sources = []

    async def scenario(relay: RelayProcess) -> None:
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            channel = Channel(relay, load.takeovers)
            async with asyncio.TaskGroup() as group:
                rivals = [group.create_task(channel.rival(random.Random(number))) for number in range(RIVALS)]  # noqa: S311 - repeatable, not a secret
                while not all(rival.done() for rival in rivals):
                    # Otherwise the last broadcaster would hold it forever.
                    await asyncio.wait(rivals, timeout=1)
                    if channel.wanted >= load.takeovers:
                        await channel.take_over()
            await channel.take_over(end=True)
            await listener.until_ended()
        assert listener.close_code == 1000
        assert listener.gaps == []
        assert [frame.seq for frame in listener.frames] == list(range(len(listener.frames)))
        assert len({frame.epoch for frame in listener.frames}) == 1
        heard = [(name, list(frames)) for name, frames in groupby(listener.frames, lambda f: f.number // FRAMES_EACH)]
        names = [name for name, _ in heard]
        assert len(set(names)) == len(names), "one who was replaced was heard again"
        for name, frames in heard:
            numbers = [frame.number - name * FRAMES_EACH for frame in frames]
            assert numbers == list(range(len(numbers))), "it was not heard from its beginning, or not in order"
        assert set(channel.closes) <= {1000, 4500, 4503}
        assert channel.closes.count(4500) > load.takeovers // 4, "there were no races"
        sources.append(len(names))

    await on_both_loops(scenario)
    figure(f"{2 * load.takeovers} wanted a channel, {RIVALS} at a time; {sum(sources)} were heard, each in one piece")
