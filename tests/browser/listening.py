"""A broadcast of the ruler, heard by a player over a network with faults, and judged when the machine let it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from playwright.async_api import BrowserContext

from tests.browser.ear import Ear, open_ear
from tests.support.live_source import LiveSource, live
from tests.support.processes import RelayProcess
from tests.support.recording import Recording

SETTLED_SECONDS = 5
"""After so long the player has found its delay."""

TRIES = 3

_numbers = count()


@dataclass(frozen=True, repr=False)
class Heard:
    """What a test judges.

    Attributes:
        recording: From the beginning of the sound on.
        mark: When the part began that the test is about, in its seconds: the network broke, or the player had settled.
    """

    recording: Recording
    mark: float

    @property
    def hiccups(self) -> list[str]:
        """What the machine did late meanwhile."""
        return [sentence for at, sentence in self.recording.hiccups if at > self.mark - 1]

    def story(self) -> Iterator[str]:
        """Tell what happened, for somebody who looks for a fault: times are seconds behind the mark."""
        recording = self.recording
        notes = [(event["at"], str(event)) for event in recording.of("state") + recording.of("stats")[::4]]
        for at, sentence in sorted(notes + recording.hiccups):
            yield f"{at - self.mark:7.2f} {sentence}"
        whole = recording.between(recording.onset(), recording.seconds)
        start = whole.start - self.mark
        for kind, found in (("jump", whole.path.jumps), ("click", whole.verdict.clicks)):
            yield from (f"{start + one.at:7.2f} {kind} {one}" for one in found[:50])
        yield from (f"{start + silence.at:7.2f} {silence}" for silence in whole.verdict.silences[:50])


class Listening:
    """A player that has settled.

    Attributes:
        ear: Its page.
        source: The broadcaster.
    """

    def __init__(self, ear: Ear, source: LiveSource) -> None:
        self.ear = ear
        self.source = source
        self._mark = 0.0

    def mark(self) -> None:
        """Note that now begins what the test is about."""
        self._mark = asyncio.get_running_loop().time()

    async def hear(self, seconds: float) -> Heard:
        """Go on listening until so long behind the mark; gives everything from the beginning on."""
        await asyncio.sleep(self._mark + seconds - asyncio.get_running_loop().time())
        # What is rendered now is heard when the latency of the output is over.
        recording = await self.ear.recording(self.source)
        return Heard(recording, recording.at(self._mark))


@asynccontextmanager
async def listening(
    context: BrowserContext,
    relay: RelayProcess,
    *,
    rate: int = 16_000,
    frame_seconds: float = 0.02,
    prepare: Callable[[Ear], None] = lambda _: None,
    settled_seconds: float = SETTLED_SECONDS,
    **options: str,
) -> AsyncIterator[Listening]:
    """Broadcast the ruler to a player, and wait until it has settled.

    Args:
        context: Where to open its page.
        relay: The relay between.
        rate: Of the broadcast, in samples a second.
        frame_seconds: How long its frames are.
        prepare: Called before Play is pressed, to spoil the network.
        settled_seconds: How long to wait.
        options: Of the player.
    """
    session = f"ruler-{next(_numbers)}"
    async with (
        open_ear(context, relay.url, session, **options) as ear,
        live(relay.url, session, rate, frame_seconds) as source,
    ):
        prepare(ear)
        await ear.play()
        await ear.state("playing")
        await asyncio.sleep(settled_seconds)
        here = Listening(ear, source)
        here.mark()
        yield here


async def judged(
    listen: Callable[[], Awaitable[Heard]],
    judge: Callable[[Heard], None],
    say: Callable[[str], None],
    tries: int = TRIES,
) -> None:
    """Listen and judge; again, at most twice, when what was heard is bad and the machine was late meanwhile.

    Args:
        listen: Makes one recording.
        judge: Fails when it is bad.
        say: Tells whoever runs the tests that a recording was made again.
        tries: How many recordings are made at most.
    """
    for attempt in range(1, tries + 1):
        heard = await listen()
        try:
            judge(heard)
        except AssertionError as error:
            if attempt == tries or not heard.hiccups:
                error.add_note("\n".join(heard.story()))
                raise
            say(f"listening again, because meanwhile {'; '.join(heard.hiccups[:3])}")
        else:
            return
