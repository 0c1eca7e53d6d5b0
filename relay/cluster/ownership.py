"""The record of a channel on the bus: which node is its home, and how the home last described it.

Invariant: A record changes only by compare-and-set, and its fence never decreases.
"""

import json
from dataclasses import dataclass, replace
from typing import Self

from relay.hub.channel_record import ChannelRecord
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress

_ESCAPED = {".": "=2E", "~": "=7E"}


class RecordError(RelayError):
    """A record of the cluster that this version can't read."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The record of a channel.

    Attributes:
        fence: Grows with each claim. Entries with a lower fence are void. The first one is the time of day in
            milliseconds, so that it exceeds those of an earlier record that was deleted.
        home: The node that numbers the channel's audio; empty if the last one gave the channel up.
        connection: The broadcaster's connection; None while there is none.
        channel: The channel when its home last described it, with wall-clock times.
        as_of: The fence and the index of the first entry after that description. A node that is about to become the
            home keeps the description of the last home.
        speaker: The broadcaster's connection at that time; None if there was none.
        described_at: The home's time of day at that time.
    """

    fence: int
    home: str
    connection: str | None
    channel: ChannelRecord
    as_of: tuple[int, int]
    speaker: str | None
    described_at: float

    @property
    def has_ended(self) -> bool:
        """Whether the channel ended."""
        return self.channel.timeline.state == ChannelState.ENDED

    def pack(self) -> bytes:
        """Return its bytes."""
        members = {
            "fence": self.fence,
            "home": self.home,
            "connection": self.connection,
            "channel": self.channel.to_json(),
            "as_of": self.as_of,
            "speaker": self.speaker,
            "described_at": self.described_at,
        }
        return json.dumps(members, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a record.

        Raises:
            RecordError: It is not a record of this version.
        """
        try:
            members = json.loads(data)
            return cls(
                members["fence"],
                members["home"],
                members["connection"],
                ChannelRecord.from_json(members["channel"]),
                (int(members["as_of"][0]), int(members["as_of"][1])),
                members["speaker"],
                float(members["described_at"]),
            )
        except (ValueError, LookupError, TypeError) as error:
            raise RecordError(f"A record of the cluster can't be read: {error}.") from error


def key_of(address: ChannelAddress) -> str:
    """Return the name under which the bus knows a channel. It has only characters that the bus allows."""
    return f"{_escape(address.session)}.{_escape(address.channel)}"


def address_of(key: str) -> ChannelAddress:
    """Return the channel that has this name on the bus."""
    session, _, channel = key.partition(".")
    return ChannelAddress(_unescape(session), _unescape(channel))


def shifted(record: ChannelRecord, seconds: float) -> ChannelRecord:
    """Return a record with all its times moved by `seconds`, from one clock to another."""
    timeline, ingest = record.timeline, record.ingest
    return replace(
        record,
        timeline=replace(
            timeline,
            over_at=None if timeline.over_at is None else timeline.over_at + seconds,
            lost_at=timeline.lost_at + seconds,
        ),
        ingest=ingest
        if ingest is None
        else replace(
            ingest,
            not_before=None if ingest.not_before is None else ingest.not_before + seconds,
            covered_until=None if ingest.covered_until is None else ingest.covered_until + seconds,
        ),
        departed_at=record.departed_at + seconds,
    )


def _escape(name: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in name)


def _unescape(name: str) -> str:
    for character, escaped in _ESCAPED.items():
        name = name.replace(escaped, character)
    return name
