"""The broadcasters of a load test: ordinary clients of the relay that send quiet audio on time."""

import asyncio
import random
from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from relay.client import Broadcaster, broadcast
from relay.loadtest.plan import LoadPlan, frame_count, send_seconds
from relay.loadtest.target import stamp, stamp_opus
from relay.protocol.wire import HEADER_BYTES
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress

_LOUDEST = 64
"""The largest sample, of 32 767, so that it hurts nobody who listens by mistake."""

OPUS_BITS_PER_SECOND = 24_000
"""The size of the Opus packets: that of speech as a relay encodes it by default."""


_PADDED = 0x40
_MOST_PADDING_HEAD_BYTES = 2


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
        self._audio = quiet_audio(plan.source_codec, plan.frame_ms)
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
    """Broadcasters at a relay.

    Each frame carries its time of sending, for `Expect.RELAY_V1_STAMPED`, unless the relay converts the audio.
    """

    def __init__(self, plan: LoadPlan, broadcasters: Sequence[Broadcaster]) -> None:
        """Use one connected broadcaster for each session of the plan."""
        super().__init__(plan)
        self._broadcasters = broadcasters

    async def send(self, channel: int, seq: int) -> None:
        """Send the next frame of a channel, stamped with the present time if the stamp reaches a listener."""
        audio = self._audio
        if not self._plan.is_converted:
            put_stamp = stamp_opus if self._plan.source_codec is Codec.OPUS else stamp
            audio = put_stamp(seq, relay_clock(), audio)
        await self._broadcasters[channel].send(audio)

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
    audio_format = AudioFormat(plan.source_codec)
    async with AsyncExitStack() as stack:
        # A test that continued after a lost connection would measure the pause.
        broadcasters = [
            await stack.enter_async_context(
                broadcast(
                    url,
                    address.session,
                    channel=address.channel,
                    audio_format=audio_format,
                    token=key,
                    reconnect=None,
                )
            )
            for address in addresses
        ]
        yield RelaySource(plan, broadcasters)


def quiet_audio(codec: Codec, milliseconds: int) -> bytes:
    """Return a frame that is gentle to the ear: noise as PCM, or a silent Opus packet of the usual size.

    Raises:
        ValueError: No Opus packet lasts so long.
    """
    if codec is Codec.PCM_S16LE:
        generator = random.Random(0)  # noqa: S311 - audio, not a secret
        samples = AudioFormat().rate * milliseconds // 1000
        return array("h", [generator.randint(-_LOUDEST, _LOUDEST) for _ in range(samples)]).tobytes()
    silent = opus_packet.silence(opus_packet.CLOCK_RATE * milliseconds // 1000, channels=1)
    whole_bytes = OPUS_BITS_PER_SECOND // 8 * milliseconds // 1000
    return _pad(silent, max(whole_bytes, len(silent) + _MOST_PADDING_HEAD_BYTES + HEADER_BYTES))


def _pad(silent: bytes, whole_bytes: int) -> bytes:
    """Pad a silent packet to a size; RFC 6716, section 3.2.5, has the form."""
    is_single = silent[0] & 3 == 0
    count, frames = (1, silent[1:]) if is_single else (silent[1], silent[2:])
    longest, rest = divmod(whole_bytes - 2 - len(frames) - 1, 255)
    lengths = b"\xff" * longest + bytes([rest])
    return bytes([silent[0] | 3, count | _PADDED]) + lengths + frames + bytes(254 * longest + rest)
