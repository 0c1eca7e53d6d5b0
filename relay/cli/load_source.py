"""The broadcasters of a load test: ordinary clients of the relay that send quiet noise on time."""

import asyncio
import random
from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from relay.client import Broadcaster, broadcast
from relay.core.load.plan import LoadPlan, frame_count, send_seconds
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress

_LOUDEST = 64
"""Of 32 767: whoever listens by mistake is not hurt."""


class Source(Protocol):
    """Whoever sends the frames of a load test; a benchmark of another server brings its own."""

    @property
    def published(self) -> list[int]:
        """How many frames were sent to each target's channel, in the order of the targets; each begins at seq 0."""
        ...

    def take_late_ms(self) -> float:
        """Give how late a frame was sent at worst since this was asked last."""
        ...

    async def play(self, begins_at: float) -> None:
        """Send all frames of the plan, the first at `begins_at` (seconds of this machine's clock).

        Cancelling it ends the audio early.

        Raises:
            RelayError: A channel's connection was lost.
        """
        ...

    async def end(self) -> None:
        """End the sessions, so that listeners get what they are owed and are closed.

        Raises:
            RelayError: The server does not confirm it.
        """
        ...


class RelaySource:
    """Broadcasters at a relay, one for each address; an async context manager."""

    def __init__(self, plan: LoadPlan, url: str, addresses: Sequence[ChannelAddress], key: str | None) -> None:
        """Prepare broadcasters.

        Args:
            plan: What to send when.
            url: Of the relay.
            addresses: One channel for each session of the plan.
            key: The relay's broadcast key, if it has one.
        """
        self.published = [0] * len(addresses)
        self._plan = plan
        self._url = url
        self._addresses = addresses
        self._key = key
        self._broadcasters: list[Broadcaster] = []
        self._problem: RelayError | None = None
        self._late_seconds = 0.0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Claim all channels.

        Raises:
            UserError: No relay answers.
            RelayError: The relay refused.
        """
        async with AsyncExitStack() as stack:
            for address in self._addresses:
                # A test that went on after a lost connection would measure the pause.
                broadcaster = broadcast(
                    self._url, address.session, channel=address.channel, token=self._key, reconnect=None
                )
                self._broadcasters.append(await stack.enter_async_context(broadcaster))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; sessions that were not ended stay as they are."""
        await self._stack.aclose()

    def take_late_ms(self) -> float:
        """Give how late a frame was sent at worst since this was asked last."""
        late_seconds, self._late_seconds = self._late_seconds, 0.0
        return late_seconds * 1000

    async def play(self, begins_at: float) -> None:
        """Send all frames; sessions take turns within a frame, so that they do not all send at once.

        Raises:
            RelayError: A connection was lost.
        """
        apart = 1 / self._plan.fps / len(self._broadcasters)
        async with asyncio.TaskGroup() as tasks:
            for number, broadcaster in enumerate(self._broadcasters):
                tasks.create_task(self._send(number, broadcaster, begins_at + number * apart))
        if self._problem is not None:
            raise self._problem

    async def end(self) -> None:
        """End all sessions.

        Raises:
            RelayError: The relay does not confirm it.
        """
        for broadcaster in self._broadcasters:
            await broadcaster.end()

    async def _send(self, number: int, broadcaster: Broadcaster, begins_at: float) -> None:
        frame = quiet_noise(AudioFormat(), self._plan.frame_ms)
        for index in range(frame_count(self._plan)):
            due = begins_at + send_seconds(self._plan, index)
            wait_seconds = due - relay_clock()
            await asyncio.sleep(max(0.0, wait_seconds))
            if wait_seconds > 0:
                # Only waking up late is this process's fault: the rest of a burst can not be on time, nor can what
                # comes after the relay took no more for a while.
                self._late_seconds = max(self._late_seconds, relay_clock() - due)
            try:
                await broadcaster.send(frame)
            except RelayError as error:
                self._problem = self._problem or error
            if self._problem is not None:
                return
            self.published[number] += 1


def quiet_noise(audio_format: AudioFormat, milliseconds: int) -> bytes:
    """Give noise that is no burden to an ear, whole samples."""
    generator = random.Random(0)  # noqa: S311 - audio, not a secret
    samples = audio_format.rate * milliseconds // 1000 * audio_format.channels
    return array("h", [generator.randint(-_LOUDEST, _LOUDEST) for _ in range(samples)]).tobytes()
