"""A tap: a reader of a channel inside the relay that is not a listener.

A recorder, an encoder, a bus or captions reads a channel through a tap. The channel only puts frames into the tap, and
the reader takes them in its own task. A slow or failing reader therefore cannot delay any audio.

Invariants: A reader gets everything that the channel released and sent since the tap was opened, in order and complete.
A tap that overflows is closed. Its reader gets what came before that, then an error.

Bound: `max_seconds` of audio, and as many items as such audio has frames at most (`frames_within`). Drops: nothing; the
tap is closed instead. Counter: `Tally.lost_taps`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, Self

from relay.hub.listener import Note
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame, Place, frames_within
from relay.vocabulary.errors import RelayError

TAP_SECONDS = 10.0
"""How far the reader of a tap may fall behind: as much audio as a listener's buffer holds."""


class Reader(Protocol):
    """What a channel hands its frames and notes to, besides its streams.

    Attributes:
        name: Its purpose, for the log.
        is_passive: Whether it is not a subscriber. A passive reader does not keep the channel, and is no reason to
            fetch or encode its audio.
    """

    name: str
    is_passive: bool

    def put(self, item: Frame | Note) -> bool:
        """Take the next frame or note, at once. Return False if there is no room; then the reader is removed."""
        ...

    def finish(self) -> None:
        """Called when the channel hands on nothing more."""
        ...


class TapOverflowError(RelayError):
    """The reader of a tap fell too far behind. The tap is closed; a new one can be opened."""


class Tap:
    """Frames of one channel and the notes between them, as an asynchronous iterator and a context manager.

    `Channel.open_tap` creates taps. The iteration ends when the channel ends or is forgotten. Leaving the context
    closes the tap.

    Args:
        max_seconds: How much audio it holds.
        remove: Removes it from its channel.

    Attributes:
        name: Its purpose, for the log.
        start: The place of its first frame.
        audio_format: The format of the frames from there on, until a note changes it; None before the first
            broadcaster.
        is_passive: See `Reader`.
        is_open: Whether the channel still puts frames and notes into it.
    """

    def __init__(
        self,
        name: str,
        start: Place,
        audio_format: AudioFormat | None,
        max_seconds: float,
        remove: Callable[["Tap"], None],
        *,
        is_passive: bool,
    ) -> None:
        self.name = name
        self.start = start
        self.audio_format = audio_format
        self.is_passive = is_passive
        self.is_open = True
        self._max_flicks = round(max_seconds * FLICKS_PER_SECOND)
        self._max_items = frames_within(max_seconds)
        self._remove = remove
        self._items: deque[Frame | Note] = deque()
        self._held_flicks = 0
        self._has_overflowed = False
        self._has_news = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame | Note:
        """Wait for the next frame or note, and return it. Cancelling the wait loses nothing.

        Raises:
            TapOverflowError: The reader fell too far behind; it has received everything up to that moment.
        """
        while not self._items:
            if self._has_overflowed:
                raise TapOverflowError(f"The tap {self.name!r} was closed because its reader was too slow.")
            if not self.is_open:
                raise StopAsyncIteration
            self._has_news.clear()
            await self._has_news.wait()
        item = self._items.popleft()
        if isinstance(item, Frame):
            self._held_flicks -= item.duration
        return item

    def put(self, item: Frame | Note) -> bool:
        """Add a frame or note. Return False if there is no room; the caller then removes the tap."""
        flicks = item.duration if isinstance(item, Frame) else 0
        if len(self._items) >= self._max_items or self._held_flicks + flicks > self._max_flicks:
            self._has_overflowed = True
            return False
        self._items.append(item)
        self._held_flicks += flicks
        self._has_news.set()
        return True

    def finish(self) -> None:
        """Accept nothing more. The reader can still read what waits."""
        self.is_open = False
        self._has_news.set()

    def close(self) -> None:
        """Stop reading and drop what waits. A second call changes nothing."""
        self._items.clear()
        self._held_flicks = 0
        if self.is_open:
            self._remove(self)
