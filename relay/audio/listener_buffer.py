"""One listener's bounded queue of audio. When it is full, it drops the oldest audio.

Invariants: The queue never exceeds its bounds in duration, bytes and chunks, not even while a chunk is added. Chunks
leave in the order in which they arrived. A closed buffer holds nothing and accepts nothing.

Bound: `max_buffer_seconds` of audio; the bytes of that duration in the widest format held; and, if requested, as many
chunks as such audio has at most (`frames_within`). Drops: the oldest. Counters: `counters.dropped` and
`counters.overflows`.
"""

import sys
from collections import deque
from functools import lru_cache
from typing import Final

from relay.audio.amounts import AudioAmount, BufferCounters
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Chunk, frames_within

_NOTHING: Final[deque[Chunk]] = deque(maxlen=0)
"""Shared by all empty buffers. A deque takes 700 bytes, and most listeners never need their own."""

_NO_AUDIO: Final = AudioAmount()

_CLOSED = -1
"""A bound that nothing fits. It sends a closed buffer down the slow path without an extra test on the fast path."""


class ListenerBuffer:
    """A queue of shared chunks with exact accounting.

    `AudioBufferManager.fan_out` inlines the fast path of adding a chunk (the queue is not empty and does not overflow);
    `push` has the whole rule. Audio is counted when it leaves, so adding takes one append and two additions.

    Args:
        max_buffer_seconds: The bound in seconds; positive, and at least one sample of the format.
        is_bounded_in_chunks: Whether the number of chunks is bounded too. Otherwise each may be as short as one sample.

    Attributes:
        chunks: The queue, oldest first. The object may be replaced. Change it only through the methods.
        held_bytes: Bytes of audio in the queue.
        held_flicks: Duration of the queue.
        max_bytes: The bound in bytes, in the widest format that may be held.
        max_chunks: The bound in chunks.
        max_flicks: The bound in duration.
        session_id: The session of the audio, for metrics; None if unknown.
        audio_format: The format of plain bytes.
        overflows: How many times audio was pushed out or cut off because there was no room.

    Raises:
        ValueError: The bound is not a positive duration, or is shorter than one sample.
    """

    __slots__ = (
        "_dropped",
        "_taken_bytes",
        "_taken_chunks",
        "_taken_flicks",
        "audio_format",
        "chunks",
        "held_bytes",
        "held_flicks",
        "max_buffer_seconds",
        "max_bytes",
        "max_chunks",
        "max_flicks",
        "overflows",
        "session_id",
    )

    def __init__(
        self,
        max_buffer_seconds: float,
        audio_format: AudioFormat,
        session_id: str | None = None,
        *,
        is_bounded_in_chunks: bool = False,
    ) -> None:
        self.chunks = _NOTHING
        self.held_bytes = 0
        self.held_flicks = 0
        self.max_buffer_seconds = max_buffer_seconds
        self.max_bytes, self.max_flicks = bounds(max_buffer_seconds, audio_format)
        self.max_chunks = frames_within(max_buffer_seconds) if is_bounded_in_chunks else sys.maxsize
        self.session_id = session_id
        self.audio_format = audio_format
        self.overflows = 0
        self._taken_chunks = self._taken_bytes = self._taken_flicks = 0
        self._dropped = _NO_AUDIO

    @property
    def closed(self) -> bool:
        """Whether the buffer is closed."""
        return self.max_flicks == _CLOSED

    @property
    def counters(self) -> BufferCounters:
        """What became of all audio so far."""
        taken = AudioAmount(self._taken_chunks, self._taken_bytes, self._taken_flicks)
        return BufferCounters(taken, self._dropped, self._held, self.overflows)

    @property
    def _held(self) -> AudioAmount:
        return AudioAmount(len(self.chunks), self.held_bytes, self.held_flicks)

    @property
    def dropped_flicks(self) -> int:
        """Duration of all dropped audio. For many buffers, reading it is faster than `counters`."""
        return self._dropped.flicks

    @property
    def utilization_percent(self) -> float:
        """How full the buffer is, from 0 to 100, by the bound that is closest."""
        if self.closed:
            return 0.0
        held = (
            self.held_flicks / self.max_flicks,
            self.held_bytes / self.max_bytes,
            len(self.chunks) / self.max_chunks,
        )
        return 100.0 * max(held)

    def push(self, chunk: Chunk) -> AudioAmount | None:
        """Add the newest chunk. If it does not fit, drop the oldest chunks first.

        A chunk larger than the whole buffer is dropped itself, after all older chunks. (`AudioBufferManager.add_audio`
        cuts plain audio before it calls this.)

        Returns:
            What was dropped; None if nothing was dropped or the buffer is closed.
        """
        if self.closed:
            return None
        size, duration = len(chunk[0]), chunk.duration
        dropped = self._make_room(size, duration, 1)
        if size > self.max_bytes or duration > self.max_flicks:
            dropped = self._count_dropped(AudioAmount(1, size, duration)) + (dropped or _NO_AUDIO)
        else:
            if self.chunks is _NOTHING:
                self.chunks = deque()
            self.chunks.append(chunk)
            self.held_bytes += size
            self.held_flicks += duration
        if dropped is not None:
            self.overflows += 1
        return dropped

    def count_within(self, max_flicks: int) -> int:
        """Return how many of the oldest chunks fit into `max_flicks`; at least 1 if any is held."""
        if self.held_flicks <= max_flicks:
            return len(self.chunks)
        count = duration = 0
        for chunk in self.chunks:
            duration += chunk.duration
            if duration > max_flicks and count:
                break
            count += 1
        return count

    def take(self, count: int) -> None:
        """Remove the oldest `count` chunks, at most all, as taken. The caller has read them from `chunks`."""
        chunks = self.chunks
        if count == len(chunks):
            size, duration = self.held_bytes, self.held_flicks
            chunks.clear()
        else:
            size = duration = 0
            for _ in range(count):
                chunk = chunks.popleft()
                size += len(chunk[0])
                duration += chunk.duration
        self.held_bytes -= size
        self.held_flicks -= duration
        self._taken_chunks += count
        self._taken_bytes += size
        self._taken_flicks += duration

    def count_taken(self, amount: AudioAmount) -> None:
        """Count audio as taken that reached the listener without being held here."""
        self._taken_chunks += amount.chunks
        self._taken_bytes += amount.bytes
        self._taken_flicks += amount.flicks

    def hand_over(self) -> None:
        """Remove all chunks uncounted, because the caller counts them, and release the queue."""
        self.chunks = _NOTHING
        self.held_bytes = self.held_flicks = 0

    def drop_before(self, timestamp: float) -> AudioAmount | None:
        """Drop the chunks whose timestamp is before `timestamp`, in seconds of the relay's clock.

        Returns:
            What was dropped; None if nothing was. This is not an overflow.
        """
        chunks = self.chunks
        count = size = duration = 0
        while chunks and chunks[0][1] < timestamp:
            chunk = chunks.popleft()
            count += 1
            size += len(chunk[0])
            duration += chunk.duration
        if not count:
            return None
        self._leave(size, duration)
        return self._count_dropped(AudioAmount(count, size, duration))

    def cut(self, byte_count: int, flicks: int) -> AudioAmount:
        """Count the old part of a chunk that is larger than the buffer as dropped, and drop all chunks held.

        The caller then pushes the rest of the chunk, which fits. Both calls count as one overflow, here.
        """
        self.overflows += 1
        held = self._held
        self.chunks.clear()
        self._leave(held.bytes, held.flicks)
        return self._count_dropped(held + AudioAmount(0, byte_count, flicks))

    def rebound(self, max_buffer_seconds: float, audio_format: AudioFormat) -> AudioAmount | None:
        """Change the bound and the format. If the queue is now too long, drop the oldest audio.

        Audio of a wider format that is still held keeps its room in bytes.

        Returns:
            What was dropped, as an overflow; None if nothing was.
        """
        if self.closed:
            return None
        self.max_buffer_seconds = max_buffer_seconds
        self.audio_format = audio_format
        room_bytes = self.max_bytes if self.chunks else 0
        self.max_bytes, self.max_flicks = bounds(max_buffer_seconds, audio_format)
        self.max_bytes = max(self.max_bytes, room_bytes)
        if self.max_chunks != sys.maxsize:
            self.max_chunks = frames_within(max_buffer_seconds)
        dropped = self._make_room(0, 0, 0)
        if dropped is not None:
            self.overflows += 1
        return dropped

    def close(self) -> None:
        """Drop everything and accept nothing more. A second call changes nothing."""
        self.chunks.clear()
        self.held_bytes = self.held_flicks = 0
        self.max_bytes = self.max_flicks = _CLOSED

    def _make_room(self, size: int, duration: int, added: int) -> AudioAmount | None:
        chunks = self.chunks
        count = freed_bytes = freed_flicks = 0
        while chunks and (
            self.held_flicks - freed_flicks + duration > self.max_flicks
            or self.held_bytes - freed_bytes + size > self.max_bytes
            or len(chunks) + added > self.max_chunks
        ):
            oldest = chunks.popleft()
            count += 1
            freed_bytes += len(oldest[0])
            freed_flicks += oldest.duration
        if not count:
            return None
        self._leave(freed_bytes, freed_flicks)
        return self._count_dropped(AudioAmount(count, freed_bytes, freed_flicks))

    def _leave(self, size: int, duration: int) -> None:
        self.held_bytes -= size
        self.held_flicks -= duration

    def _count_dropped(self, amount: AudioAmount) -> AudioAmount:
        self._dropped += amount
        return amount


@lru_cache(64)  # all listeners with the same bound share these numbers
def bounds(max_buffer_seconds: float, audio_format: AudioFormat) -> tuple[int, int]:
    """Return the bound in bytes (whole samples) and in flicks.

    Raises:
        ValueError: The bound is not a positive number, or is shorter than one sample.
    """
    if not 0 < max_buffer_seconds < float("inf"):
        raise ValueError(f"max_buffer_seconds must be a positive number of seconds, not {max_buffer_seconds}")
    max_bytes = audio_format.bytes_within(max_buffer_seconds)
    if not max_bytes:
        raise ValueError(f"max_buffer_seconds {max_buffer_seconds} is shorter than one sample")
    return max_bytes, round(max_buffer_seconds * FLICKS_PER_SECOND)
