"""What a process writes down of a channel, so that another one can go on with it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from relay.audio.history import NumbersRecord
from relay.audio.ingest import IngestRecord
from relay.audio.timeline import TimelineRecord
from relay.vocabulary.names import ChannelAddress


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """The state of a channel without its audio and connections, as plain values that can be written as JSON.

    A process that restores it continues with the same numbers, so listeners and the broadcaster can resume there. The
    audio that waits for its release is not included; see `Channel.waiting`. Times are in seconds of the relay's clock.
    On a machine with another clock, shift them first.

    Attributes:
        session: The name of its session.
        channel: The name of the channel.
        name: The name that people see; None when it has none.
        lang: BCP 47 tag; None when unknown.
        session_name: The session's name as given by a broadcaster; None when it has none.
        is_listed: Whether the list of channels shows it.
        timeline: State and numbering.
        ingest: Its pace, and its audio's position in real time; None before the first broadcaster.
        accepted: Ticks accepted from each of the latest broadcasters, by connection id.
        farewell: How the broadcaster left whose audio still waits; None when there is no such broadcaster.
        departed_at: When that broadcaster left.
    """

    session: str
    channel: str
    name: str | None
    lang: str | None
    session_name: str | None
    is_listed: bool
    timeline: TimelineRecord
    ingest: IngestRecord | None
    accepted: Mapping[str, int] = field(default_factory=dict)
    farewell: str | None = None
    departed_at: float = 0.0

    @property
    def address(self) -> ChannelAddress:
        """The address of the channel."""
        return ChannelAddress(self.session, self.channel)

    def to_json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the record that `to_json` wrote."""
        members = json.loads(text)
        timeline, ingest = members.pop("timeline"), members.pop("ingest")
        numbers = NumbersRecord(**{name: _frozen(value) for name, value in timeline.pop("numbers").items()})
        return cls(
            timeline=TimelineRecord(**{name: _frozen(value) for name, value in timeline.items()}, numbers=numbers),
            ingest=None if ingest is None else IngestRecord(**ingest),
            **members,
        )


def _frozen(value: Any) -> Any:  # noqa: ANN401 - whatever JSON held
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
