"""Counts what each session puts into the memory of the bus, so that none takes the room of the others.

The audio of a session is counted in generations. When the present one has `generation_bytes`, the memory is asked to
forget the one before, and a new one begins. A session that sends much is therefore remembered for a shorter time.

Bound: One session has at most `SHARE` of the memory, as two whole generations and a third one that has begun. It may
exceed this by what it sends while the bus answers. Accounts of sessions that sent nothing for `max_seconds` are
dropped, because the memory has nothing of them. Drops: audio that only waits for its release, if a session sends faster
than the bus forgets. `not_kept_messages` counts it.

Source: docs/nats.md, "What a cluster keeps there".
"""

from dataclasses import dataclass

SHARE = 0.5
"""The part of the memory that one session may have. The rest is enough for others at any time."""

_GENERATIONS = 3

MESSAGE_BYTES = 16
"""What NATS counts for a message besides its subject and its content: nats-server, server/memstore.go."""


@dataclass(slots=True)
class Account:
    """What one session has sent.

    Attributes:
        used_at: When it sent something last.
        sent_bytes: The size of the present generation.
        first: The number of the first message of the present generation in the memory; 0 if none was forgotten yet.
        is_turning: Whether the bus is about to begin another generation.
    """

    used_at: float
    sent_bytes: int = 0
    first: int = 0
    is_turning: bool = False


class Shares:
    """See the module's docstring.

    Attributes:
        not_kept_messages: How many messages were dropped, because their session had too much.
    """

    def __init__(self, max_bytes: int, max_seconds: float) -> None:
        """Count nothing yet.

        Args:
            max_bytes: The size of the memory.
            max_seconds: How long the memory keeps a message.
        """
        self.not_kept_messages = 0
        self._share_bytes = int(max_bytes * SHARE)
        self._max_seconds = max_seconds
        self._accounts: dict[str, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def generation_bytes(self, nodes: int) -> int:
        """Return the size of a generation. The nodes divide a session's share equally."""
        return self._share_bytes // (_GENERATIONS * max(1, nodes))

    def find(self, session: str, now: float) -> Account:
        """Return the account of a session that sends something now."""
        account = self._accounts.get(session)
        if account is None:
            account = self._accounts[session] = Account(now)
        account.used_at = now
        return account

    def expire(self, now: float) -> None:
        """Drop the accounts of sessions of which the memory has nothing."""
        for session in [key for key, each in self._accounts.items() if each.used_at < now - self._max_seconds]:
            del self._accounts[session]

    def clear(self) -> None:
        """Begin anew, because the memory was lost."""
        self._accounts.clear()
