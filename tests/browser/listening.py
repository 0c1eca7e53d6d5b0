"""A player that hears the ruler signal over a faulty network, and a judge that allows for delays of the machine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from playwright.async_api import BrowserContext

from tests.browser.ear import Ear, open_ear
from tests.support.live_source import LiveSource, live
from tests.support.processes import RelayProcess
from tests.support.recording import Recording

SETTLED_SECONDS = 5
"""After this time, the player's delay is stable."""

TRIES = 3

_numbers = count()


@dataclass(frozen=True, repr=False)
class Heard:
    """The recording that a test judges.

    Attributes:
        recording: Everything since the sound began.
        mark: When the tested part began, in seconds of the recording: the network broke, or the player had settled.
    """

    recording: Recording
    mark: float

    @property
    def hiccups(self) -> list[str]:
        """Return the delays of the machine during the recording."""
        return [sentence for at, sentence in self.recording.hiccups if at > self.mark - 1]

    def story(self) -> Iterator[str]:
        """Describe what happened, for debugging; times are in seconds after the mark."""
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
        ear: The player's page.
        source: The broadcaster.
    """

    def __init__(self, ear: Ear, source: LiveSource) -> None:
        self.ear = ear
        self.source = source
        self._mark = 0.0

    def mark(self) -> None:
        """Mark the start of the part that the test judges."""
        self._mark = asyncio.get_running_loop().time()

    async def hear(self, seconds: float) -> Heard:
        """Listen until this many seconds after the mark, and return the whole recording."""
        await asyncio.sleep(self._mark + seconds - asyncio.get_running_loop().time())
        # A rendered sample is heard once the output latency has passed.
        recording = await self.ear.recording(self.source)
        return Heard(recording, recording.at(self._mark))

    async def hear_a_break(self, seconds: float) -> Heard:
        """Kill the connection, and listen until this many seconds after the mark."""
        self.ear.faults.kill()
        heard = await self.hear(seconds)
        self.ear.tab.forgive_break()
        return heard


@asynccontextmanager
async def listening(
    context: BrowserContext,
    relay: RelayProcess,
    *,
    rate: int = 16_000,
    frame_seconds: float = 0.02,
    pace: str = "live",
    through: str | None = None,
    files: Mapping[str, bytes] | None = None,
    prepare: Callable[[Ear], None] = lambda _: None,
    settled_seconds: float = SETTLED_SECONDS,
    **options: str,
) -> AsyncIterator[Listening]:
    """Broadcast the ruler to a player, and wait until it has settled.

    Args:
        context: The browser context of the page.
        relay: The relay between the two.
        rate: The broadcast's sample rate, in samples per second.
        frame_seconds: The length of each frame.
        pace: The broadcaster's pace.
        through: Where the player reaches the relay; by default at the relay's own address.
        files: What the page loads instead of the relay's files, by path.
        prepare: A function that impairs the network before Play is pressed.
        settled_seconds: How long to wait.
        options: The player's options.
    """
    session = f"ruler-{next(_numbers)}"
    async with (
        open_ear(context, through or relay.url, session, files, **options) as ear,
        live(relay.url, session, rate, frame_seconds, pace) as source,
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
    """Record and judge. Repeat if the verdict is bad and the machine was late during the recording.

    Args:
        listen: Makes one recording.
        judge: Fails if the recording is bad.
        say: Reports a repeated recording on the terminal.
        tries: The most recordings to make.
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
