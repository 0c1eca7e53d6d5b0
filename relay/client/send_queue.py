"""What a broadcaster wants to send and can not send yet, and what it sent of which nobody knows yet whether it arrived.

Bound, of each: a duration, the messages that are held for so much (`frames_within`), and one message more, since
whoever finds it not full may put or take one. Drops: the oldest that waits, when `make_room`, `trim` or `shed` is asked
to; whoever would rather wait does not ask. Counter: `dropped`.

Invariant: what was put is exactly what was taken, dropped, cleared and is held.
"""

from collections import deque

from relay.audio.amounts import AudioAmount
from relay.vocabulary.audio import FLICKS_PER_SECOND, Piece, frames_within


class SendQueue:
    """Audio, oldest first.

    Attributes:
        taken: What was taken so far, and did not come back.
        dropped: What `make_room`, `trim`, `shed` and `drop` dropped so far.
        max_seconds: How much it holds when it is full.
        cleared: What `clear` threw away so far.
    """

    def __init__(self, max_seconds: float, max_under_way_seconds: float) -> None:
        """Make an empty queue, which is full when it holds `max_seconds` of audio.

        Nothing should be taken while `max_under_way_seconds` were and are not known to have arrived.
        """
        self.taken = AudioAmount()
        self.dropped = AudioAmount()
        self.cleared = AudioAmount()
        self.max_seconds = max_seconds
        self._max_flicks = round(max_seconds * FLICKS_PER_SECOND)
        self._max_messages = frames_within(max_seconds)
        self._max_messages_under_way = frames_within(max_under_way_seconds)
        self._max_under_way_flicks = round(max_under_way_seconds * FLICKS_PER_SECOND)
        self._messages: deque[Piece] = deque()
        self._held_flicks = 0
        self._under_way: deque[Piece] = deque()
        self._under_way_flicks = 0
        self._accepted = 0
        # How many of those under way nobody wants any more, and whether the `clear` that said so may be, too.
        self._unwanted = 0
        self._is_clear_under_way = False

    def __len__(self) -> int:
        """Give how many messages wait."""
        return len(self._messages)

    @property
    def held_seconds(self) -> float:
        """How much audio waits."""
        return self._held_flicks / FLICKS_PER_SECOND

    @property
    def is_full(self) -> bool:
        """Whether another message has to wait, or to push the oldest out."""
        return self._held_flicks >= self._max_flicks or len(self._messages) >= self._max_messages

    @property
    def has_under_way(self) -> bool:
        """Whether something was taken that is not known to have arrived."""
        return len(self._under_way) > 0

    @property
    def may_take(self) -> bool:
        """Whether a message waits, and not too much is under way."""
        has_room = self._under_way_flicks < self._max_under_way_flicks
        return len(self._messages) > 0 and has_room and len(self._under_way) < self._max_messages_under_way

    def put(self, piece: Piece) -> None:
        """Put audio at the end."""
        self._messages.append(piece)
        self._held_flicks += piece.flicks

    def take(self) -> Piece:
        """Take the oldest message; it is under way then.

        Raises:
            IndexError: None waits.
        """
        piece = self._remove()
        self.taken += _amount(piece)
        self._under_way.append(piece)
        self._under_way_flicks += piece.flicks
        return piece

    def note_accepted(self, ticks: int) -> None:
        """Note how much arrived of what was taken since `begin`, in ticks; a part of a message did not."""
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
        """Note that messages are taken for another connection from now on.

        Args:
            accepted: How much arrived of what was taken for the one before, in ticks; the rest comes back to the front,
                or counts as cleared when nobody wants it any more. None: nobody knows, and nothing comes back.

        Returns:
            Whether the last `clear` may not have arrived: nothing is known to have that was taken after it.
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
        """Drop the oldest until it is not full."""
        while self._messages and self.is_full:
            self.dropped += _amount(self._remove())

    def trim(self) -> None:
        """Drop the oldest until no more than the bound is held."""
        while self._held_flicks > self._max_flicks or len(self._messages) > self._max_messages:
            self.dropped += _amount(self._remove())

    def shed(self, seconds: float) -> None:
        """Drop the oldest, whole messages, no more than `seconds` of them."""
        shed_flicks = seconds * FLICKS_PER_SECOND
        while self._messages and (shed_flicks := shed_flicks - self._messages[0].flicks) >= 0:
            self.dropped += _amount(self._remove())

    def drop(self) -> None:
        """Drop all."""
        while self._messages:
            self.dropped += _amount(self._remove())

    def clear(self) -> None:
        """Throw all away, since nobody wants it any more; what is under way does not come back."""
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
