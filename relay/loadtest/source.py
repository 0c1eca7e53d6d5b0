"""The broadcasters of a load test: ordinary clients of the relay that send quiet noise on time."""

import asyncio
import random
from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from relay.client import Broadcaster, broadcast
from relay.loadtest.plan import LoadPlan, frame_count, send_seconds
from relay.loadtest.target import stamp
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress

_LOUDEST = 64
"""The largest sample, of 32 767, so that it hurts nobody who listens by mistake."""


class Source(Protocol):
    """Sends the frames of a load test. A benchmark of another server brings its own source."""

    @property
    def published(self) -> list[int]:
        """How many frames each target's channel got, in the order of the targets. Each begins at seq 0."""

    def take_late_ms(self) -> float:
        """Return the longest delay with which a frame was sent since the last call."""

    async def play(self, begins_at: float) -> None:
        """Send all frames of the plan, the first at `begins_at` (seconds of this machine's clock).

        Cancellation ends the audio early.

        Raises:
            RelayError: A channel's connection was lost.
        """

    async def end(self) -> None:
        """End the sessions, so that listeners get all owed frames and are closed.

        Raises:
            RelayError: The server does not confirm it.
        """


class PacedSource(ABC):
    """Sends the frames of a plan when they are due. A subclass defines how to send one.

    Attributes:
        published: Frames sent to each channel so far.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self.published = [0] * plan.sessions
        self._plan = plan
        self._audio = quiet_noise(AudioFormat(), plan.frame_ms)
        self._problem: RelayError | None = None
        self._late_seconds = 0.0

    @abstractmethod
    async def send(self, channel: int, seq: int) -> None:
        """Send the next frame of a channel.

        Raises:
            RelayError: The connection is lost.
        """

    def take_late_ms(self) -> float:
        """Return the longest delay with which a frame was sent since the last call."""
        late_seconds, self._late_seconds = self._late_seconds, 0.0
        return late_seconds * 1000

    async def play(self, begins_at: float) -> None:
        """Send all frames. Channels take turns within a frame, so that they do not all send at once.

        Raises:
            RelayError: A connection was lost.
        """
        apart = 1 / self._plan.fps / self._plan.sessions
        async with asyncio.TaskGroup() as tasks:
            for channel in range(self._plan.sessions):
                tasks.create_task(self._send_all(channel, begins_at + channel * apart))
        if self._problem is not None:
            raise self._problem

    async def _send_all(self, channel: int, begins_at: float) -> None:
        for seq in range(frame_count(self._plan)):
            due = begins_at + send_seconds(self._plan, seq)
            wait_seconds = due - relay_clock()
            await asyncio.sleep(max(0.0, wait_seconds))
            if wait_seconds > 0:
                # Count only late wake-ups, which are this process's fault. The rest of a burst cannot be on time,
                # nor can frames that follow a pause in which the relay accepted none.
                self._late_seconds = max(self._late_seconds, relay_clock() - due)
            try:
                await self.send(channel, seq)
            except RelayError as error:
                self._problem = self._problem or error
            if self._problem is not None:
                return
            self.published[channel] += 1


class RelaySource(PacedSource):
    """Broadcasters at a relay. Each frame carries its time of sending, for `Expect.RELAY_V1_STAMPED`."""

    def __init__(self, plan: LoadPlan, broadcasters: Sequence[Broadcaster]) -> None:
        """Use one connected broadcaster for each session of the plan."""
        super().__init__(plan)
        self._broadcasters = broadcasters

    async def send(self, channel: int, seq: int) -> None:
        """Send the next frame of a channel, stamped with the present time."""
        await self._broadcasters[channel].send(stamp(seq, relay_clock(), self._audio))

    async def end(self) -> None:
        """End all sessions.

        Raises:
            RelayError: The relay does not confirm it.
        """
        for broadcaster in self._broadcasters:
            await broadcaster.end()


@asynccontextmanager
async def relay_source(
    plan: LoadPlan, url: str, addresses: Sequence[ChannelAddress], key: str | None
) -> AsyncIterator[RelaySource]:
    """Claim a channel for each session of the plan. Leaving the block does not end the sessions.

    Args:
        plan: The plan of frames.
        url: The relay's address.
        addresses: The channels.
        key: The relay's broadcast key, if it has one.

    Raises:
        UserError: No relay answers.
        RelayError: The relay refused.
    """
    async with AsyncExitStack() as stack:
        # A test that continued after a lost connection would measure the pause.
        broadcasters = [
            await stack.enter_async_context(
                broadcast(url, address.session, channel=address.channel, token=key, reconnect=None)
            )
            for address in addresses
        ]
        yield RelaySource(plan, broadcasters)


def quiet_noise(audio_format: AudioFormat, milliseconds: int) -> bytes:
    """Generate noise that is gentle to the ear, in whole samples."""
    generator = random.Random(0)  # noqa: S311 - audio, not a secret
    samples = audio_format.rate * milliseconds // 1000 * audio_format.channels
    return array("h", [generator.randint(-_LOUDEST, _LOUDEST) for _ in range(samples)]).tobytes()
