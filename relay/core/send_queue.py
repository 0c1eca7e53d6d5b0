"""What a broadcaster wants to send and can not send yet, and what it sent lately, which may have to be sent again.

Bound, of each: a duration, and one message more, since whoever finds it not full may put one. Drops: the oldest, when
`make_room` or `trim` is asked to; whoever would rather wait does not ask. Of what was sent, the oldest is forgotten.
Counter: `dropped`.

Invariant: what was put is exactly what was taken, dropped, cleared and is held.
"""

from collections import deque

from relay.core.amounts import AudioAmount
from relay.vocabulary.audio import AudioFormat


class SendQueue:
    """Audio of one format, oldest first.

    Attributes:
        taken: What was taken so far, and did not come back.
        dropped: What `make_room`, `trim` and `drop` dropped so far.
        cleared: What `clear` threw away so far.
    """

    def __init__(self, audio_format: AudioFormat, max_seconds: float) -> None:
        """Make an empty queue that is full when it holds `max_seconds` of audio."""
        self.taken = AudioAmount()
        self.dropped = AudioAmount()
        self.cleared = AudioAmount()
        self._audio_format = audio_format
        self._max_bytes = max_seconds * audio_format.bytes_per_second
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        self._taken: deque[bytes] = deque()
        self._taken_bytes = 0
        self._taken_count = 0

    def __len__(self) -> int:
        """Give how many messages wait."""
        return len(self._messages)

    @property
    def held_seconds(self) -> float:
        """How much audio waits."""
        return self._held_bytes / self._audio_format.bytes_per_second

    @property
    def is_full(self) -> bool:
        """Whether another message has to wait, or to push the oldest out."""
        return self._held_bytes >= self._max_bytes

    def put(self, audio: bytes) -> None:
        """Put whole samples at the end."""
        self._messages.append(audio)
        self._held_bytes += len(audio)

    def take(self) -> bytes:
        """Take the oldest message.

        Raises:
            IndexError: None waits.
        """
        audio, amount = self._remove()
        self.taken += amount
        self._taken.append(audio)
        self._taken_bytes += len(audio)
        self._taken_count += 1
        while self._taken_bytes - len(self._taken[0]) >= self._max_bytes:
            self._taken_bytes -= len(self._taken.popleft())
        return audio

    def begin(self, arrived: int | None = None) -> None:
        """Note that messages are taken for another connection from now on.

        Args:
            arrived: How many of those that were taken for the one before did arrive; the others come back to the front.
                None, or more than were taken: nobody knows, and none comes back.
        """
        missing = 0 if arrived is None else max(0, self._taken_count - arrived)
        for _ in range(min(missing, len(self._taken))):
            audio = self._taken.pop()
            self._messages.appendleft(audio)
            self._held_bytes += len(audio)
            self.taken -= self._amount(audio)
        self._taken.clear()
        self._taken_bytes = self._taken_count = 0

    def make_room(self) -> None:
        """Drop the oldest until it is not full."""
        while self._messages and self.is_full:
            self.dropped += self._remove()[1]

    def trim(self) -> None:
        """Drop the oldest until no more than the bound is held."""
        while self._held_bytes > self._max_bytes:
            self.dropped += self._remove()[1]

    def drop(self) -> None:
        """Drop all."""
        while self._messages:
            self.dropped += self._remove()[1]

    def clear(self) -> None:
        """Throw all away, since nobody wants it any more."""
        while self._messages:
            self.cleared += self._remove()[1]
        self._taken.clear()
        self._taken_bytes = 0

    def _remove(self) -> tuple[bytes, AudioAmount]:
        audio = self._messages.popleft()
        self._held_bytes -= len(audio)
        return audio, self._amount(audio)

    def _amount(self, audio: bytes) -> AudioAmount:
        return AudioAmount(1, len(audio), self._audio_format.flicks(len(audio)))
