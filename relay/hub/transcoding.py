"""Transcoding: a few threads make the streams of all channels that need another codec than their source.

Invariants: The event loop never waits for a codec. A call in a thread works on all feeds that have work, up to
`ITEMS_AT_ONCE`, so many channels need few calls. Feeds have their turns in the order in which they were woken.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from relay.hub.drain import Drain
from relay.hub.feed import Feed, Item, Made
from relay.hub.programme_feed import ProgrammeFeed
from relay.hub.rendition import Renditions
from relay.hub.rendition_feed import RenditionFeed
from relay.hub.stream import Stream
from relay.media.programme import ProgrammeSettings, check_container, open_programme
from relay.metrics.distribution import Distribution
from relay.vocabulary.audio import AudioFormat, Frame
from relay.vocabulary.clock import Clock
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import NotServedError, UserError

ITEMS_AT_ONCE = 64
"""The most frames and notes that one call works on. A thread encodes 64 frames in 10 ms, for which the first of them
wait. The event loop hands them on in less than 1 ms."""

ENCODE_MS_BOUNDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Upper bounds for the time that a frame takes: fine around what Opus needs, up to what no encoder may need."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Caller(Protocol):
    """Runs a function elsewhere, one at a time."""

    async def call(self, function: Callable[[], T]) -> T:
        """Return the function's result."""
        ...


class Transcoding:
    """The feeds of all channels; `run` is the task of each thread.

    Args:
        renditions: What this relay can make.
        drain: Woken when a stream has got frames.
        clock: Returns seconds.
        programmes: How programmes for HTTP are encoded; None to make none.

    Attributes:
        renditions: The renditions.
        encode_ms: How long a thread took for each frame of a source, in milliseconds.
    """

    def __init__(
        self, renditions: Renditions, drain: Drain, clock: Clock, programmes: ProgrammeSettings | None = None
    ) -> None:
        self.renditions = renditions
        self._programmes = programmes
        self._missing: dict[Container, str | None] = {}
        self.encode_ms = Distribution(ENCODE_MS_BOUNDS)
        self._drain = drain
        self._clock = clock
        self._ready: dict[Feed, None] = {}
        self._has_work = asyncio.Event()
        self._calls = 0

    @property
    def is_idle(self) -> bool:
        """Whether all that was put into feeds has been made."""
        return not self._ready and not self._calls

    def open_feed(self, stream: Stream, source: AudioFormat | None) -> RenditionFeed:
        """Let a stream be made of a channel's audio, which has the format `source` at first."""
        rendition = None if source is None else self.renditions.find(source, stream.codec)
        stream.feed = feed = RenditionFeed(stream, rendition, self.renditions, self._wake)
        return feed

    @property
    def makes_programmes(self) -> bool:
        """Whether the settings allow HTTP streams."""
        return self._programmes is not None

    def find_missing(self, container: Container) -> str | None:
        """Return why programmes in a container cannot be made, in one sentence. None if they can."""
        if self._programmes is None:
            return "This relay serves no HTTP streams; its operator can set stream.enabled."
        if container not in self._missing:
            try:
                check_container(container, self._programmes)
            except UserError as error:
                self._missing[container] = str(error)
            else:
                self._missing[container] = None
        return self._missing[container]

    def open_programme(
        self, stream: Stream, container: Container, source: AudioFormat | None, *, is_live: bool
    ) -> ProgrammeFeed:
        """Let a new stream be a programme of a channel's audio, which has the format `source` at first.

        Raises:
            NotServedError: The relay cannot make it.
        """
        missing = self.find_missing(container)
        if self._programmes is None or missing is not None:
            raise NotServedError(missing)
        programme = open_programme(container, source, stream.place.epoch, self._programmes)
        feed = ProgrammeFeed(stream, programme, self._wake, self._clock, is_live=is_live)
        stream.feed = feed
        return feed

    async def run(self, thread: Caller) -> None:
        """Work on the feeds in a thread, forever."""
        while True:
            while not self._ready:
                self._has_work.clear()
                await self._has_work.wait()
            work = self._take()
            self._calls += 1
            try:
                made, seconds = await thread.call(partial(self._make, work))
            finally:
                self._calls -= 1
            frames = sum(isinstance(item, Frame) for _, items in work for item in items)
            if frames:
                self.encode_ms.note(seconds * 1000 / frames, frames)
            for (feed, _), results in zip(work, made, strict=True):
                self._hand_on(feed, results)

    def _wake(self, feed: Feed) -> None:
        self._ready[feed] = None
        self._has_work.set()

    def _take(self) -> list[tuple[Feed, list[Item]]]:
        work: list[tuple[Feed, list[Item]]] = []
        room = ITEMS_AT_ONCE
        for feed in list(self._ready):
            del self._ready[feed]
            work.append((feed, feed.take(room)))
            room -= len(work[-1][1])
            if room <= 0:
                break
        return work

    def _make(self, work: Sequence[tuple[Feed, Sequence[Item]]]) -> tuple[list[list[Made]], float]:
        began = self._clock()
        made = [feed.make(items) for feed, items in work]
        return made, self._clock() - began

    def _hand_on(self, feed: Feed, made: Sequence[Made]) -> None:
        stream = feed.stream
        try:
            feed.hand_on(made)
        except Exception:
            logger.exception("a stream was ended because of a bug in the relay", extra=stream.names)
            feed.stop()
            stream.is_over = True
            for listener in stream.listeners:
                listener.port.abort("Its stream failed.")
        for group in stream.groups.values():
            self._drain.wake_in_time(group)
