"""A tap: what a channel gives its listeners, for a part of the relay that is not one.

A recorder, an encoder, a bus or captions reads a channel through a tap. The channel only puts frames into it; the
reader takes them in a task of its own. So a reader that fails or is slow can not delay anybody's audio.

Invariants: what is read is what the channel released and told since the tap was opened, in order and complete; a tap
that can not hold it all is closed, and its reader gets what came before that, then an error.

Bound: `max_seconds` of audio, in the frames that are held for so much (`frames_within`). Drops: nothing; the tap is
closed. Counter: `Tally.lost_taps`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from relay.hub.listener import Note
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Frame, Place, frames_within
from relay.vocabulary.errors import RelayError

TAP_SECONDS = 10.0
"""How far the reader of a tap may fall behind: as much audio as a listener's buffer holds."""


class TapOverflowError(RelayError):
    """The reader of a tap fell further behind than the tap holds. The tap is closed; a new one can be opened."""


class Tap:
    """Frames of one channel, with the notes between them; an asynchronous iterator and a context manager.

    The iteration ends when the channel ends or is forgotten. Leaving the context closes the tap.

    Attributes:
        name: Says in the log what the tap is for.
        start: The place of the first frame that it gets.
        audio_format: Of the frames from there on, until a note brings another; None before the first broadcaster.
        is_passive: Whether it only passes on what there is. A passive tap is no subscriber: it neither keeps the
            channel nor is it a reason to fetch or encode its audio.
        is_open: Whether the channel still puts something into it.
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
        """Make an empty tap; `Channel.open_tap` is the way to get one. `remove` takes it out of its channel."""
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
        """Give the tap, which is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the tap."""
        self.close()

    def __len__(self) -> int:
        """Give how many frames and notes wait for the reader."""
        return len(self._items)

    def __aiter__(self) -> Self:
        """Give the iterator, which is the tap."""
        return self

    async def __anext__(self) -> Frame | Note:
        """Give the next frame or note; waits for it. Cancelling the wait loses nothing.

        Raises:
            TapOverflowError: The reader fell too far behind; it has got everything up to that moment.
        """
        while not self._items:
            if self._has_overflowed:
                raise TapOverflowError(f"The tap {self.name!r} held more than its reader took.")
            if not self.is_open:
                raise StopAsyncIteration
            self._has_news.clear()
            await self._has_news.wait()
        item = self._items.popleft()
        if isinstance(item, Frame):
            self._held_flicks -= item.duration
        return item

    def put(self, item: Frame | Note) -> bool:
        """Add what the channel released or told; False when there is no room, and then the tap is to be removed."""
        flicks = item.duration if isinstance(item, Frame) else 0
        if len(self._items) >= self._max_items or self._held_flicks + flicks > self._max_flicks:
            self._has_overflowed = True
            return False
        self._items.append(item)
        self._held_flicks += flicks
        self._has_news.set()
        return True

    def finish(self) -> None:
        """Note that nothing more will be put; what waits can still be read."""
        self.is_open = False
        self._has_news.set()

    def close(self) -> None:
        """Read no more; done twice, it changes nothing."""
        self._items.clear()
        self._held_flicks = 0
        if self.is_open:
            self._remove(self)
