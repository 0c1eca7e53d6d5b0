"""A broadcaster's audio that waits to be sent, or is under way: sent, but not yet confirmed.

Bound of each: a duration, the number of messages for this duration (`frames_within`), and one message more, because a
caller may put or take one whenever the bound is not reached. Drops: the oldest waiting audio, but only in `make_room`,
`trim`, `shed` and `drop`; a caller that prefers to wait does not call them. Counter: `dropped`.

Invariant: the audio put equals the audio taken, dropped, cleared and held.
"""

from collections import deque

from relay.audio.amounts import AudioAmount
from relay.vocabulary.audio import FLICKS_PER_SECOND, Piece, frames_within


class SendQueue:
    """Audio, oldest first.

    Attributes:
        taken: Audio taken so far that did not come back.
        dropped: Audio that `make_room`, `trim`, `shed` and `drop` have dropped.
        max_seconds: Duration of a full queue.
        cleared: Audio that `clear` has discarded.
    """

    def __init__(self, max_seconds: float, max_under_way_seconds: float) -> None:
        """Create an empty queue.

        Args:
            max_seconds: Duration of audio at which the queue is full.
            max_under_way_seconds: Duration of unconfirmed audio from which nothing more should be taken.
        """
        self.taken = AudioAmount()
        self.dropped = AudioAmount()
        self.cleared = AudioAmount()
        self.limit(max_seconds)
        self._max_messages_under_way = frames_within(max_under_way_seconds)
        self._max_under_way_flicks = round(max_under_way_seconds * FLICKS_PER_SECOND)
        self._messages: deque[Piece] = deque()
        self._held_flicks = 0
        self._under_way: deque[Piece] = deque()
        self._under_way_flicks = 0
        self._accepted = 0
        # How many messages under way `clear` has discarded, and whether the `clear` itself may still be under way.
        self._unwanted = 0
        self._is_clear_under_way = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def held_seconds(self) -> float:
        """Duration of the waiting audio."""
        return self._held_flicks / FLICKS_PER_SECOND

    @property
    def is_full(self) -> bool:
        """Whether another message has to wait or to push the oldest out."""
        return self._held_flicks >= self._max_flicks or len(self._messages) >= self._max_messages

    @property
    def under_way_seconds(self) -> float:
        """Duration of the audio that is under way."""
        return self._under_way_flicks / FLICKS_PER_SECOND

    @property
    def may_take(self) -> bool:
        """Whether a message waits, and not too much is under way."""
        has_room = self._under_way_flicks < self._max_under_way_flicks
        return len(self._messages) > 0 and has_room and len(self._under_way) < self._max_messages_under_way

    def limit(self, max_seconds: float) -> None:
        """Set the duration of audio at which the queue is full. This drops nothing."""
        self.max_seconds = max_seconds
        self._max_flicks = round(max_seconds * FLICKS_PER_SECOND)
        self._max_messages = frames_within(max_seconds)

    def put(self, piece: Piece) -> None:
        """Put audio at the end."""
        self._messages.append(piece)
        self._held_flicks += piece.flicks

    def take(self) -> Piece:
        """Take the oldest message, which is then under way.

        Raises:
            IndexError: No message waits.
        """
        piece = self._remove()
        self.taken += _amount(piece)
        self._under_way.append(piece)
        self._under_way_flicks += piece.flicks
        return piece

    def note_accepted(self, ticks: int) -> None:
        """Confirm the messages taken since `begin` that have arrived whole within the first `ticks` ticks."""
        while self._under_way:
            accepted = self._accepted + self._under_way[0].ticks
            if accepted > ticks:
                return
            self._accepted = accepted
            self._under_way_flicks -= self._under_way.popleft().flicks
            if self._unwanted:
                self._unwanted -= 1
            else:
                self._is_clear_under_way = False

    def begin(self, accepted: int | None = None) -> bool:
        """Start a new connection, for which messages are taken from now on.

        Args:
            accepted: How much of the audio taken for the previous connection arrived, in ticks. The rest returns to the
                front, or counts as cleared if `clear` discarded it. None if unknown: nothing returns.

        Returns:
            Whether the last `clear` may not have arrived: nothing taken after it is confirmed.
        """
        if accepted is None:
            self._under_way.clear()
        else:
            self.note_accepted(accepted)
        while self._under_way:
            piece = self._under_way.pop()
            self.taken -= _amount(piece)
            if len(self._under_way) < self._unwanted:
                self.cleared += _amount(piece)
            else:
                self._messages.appendleft(piece)
                self._held_flicks += piece.flicks
        self._under_way_flicks = self._accepted = self._unwanted = 0
        return self._is_clear_under_way

    def make_room(self) -> None:
        """Drop the oldest messages until the queue is not full."""
        while self._messages and self.is_full:
            self.dropped += _amount(self._remove())

    def trim(self) -> None:
        """Drop the oldest messages until the queue is within its bound."""
        while self._held_flicks > self._max_flicks or len(self._messages) > self._max_messages:
            self.dropped += _amount(self._remove())

    def shed(self, seconds: float) -> None:
        """Drop the oldest whole messages, at most `seconds` of them."""
        shed_flicks = seconds * FLICKS_PER_SECOND
        while self._messages and (shed_flicks := shed_flicks - self._messages[0].flicks) >= 0:
            self.dropped += _amount(self._remove())

    def drop(self) -> None:
        """Drop all messages."""
        while self._messages:
            self.dropped += _amount(self._remove())

    def clear(self) -> None:
        """Discard all messages on purpose. Audio under way does not come back."""
        while self._messages:
            self.cleared += _amount(self._remove())
        self._unwanted = len(self._under_way)
        self._is_clear_under_way = True

    def _remove(self) -> Piece:
        piece = self._messages.popleft()
        self._held_flicks -= piece.flicks
        return piece


def _amount(piece: Piece) -> AudioAmount:
    return AudioAmount(1, len(piece.audio), piece.flicks)
