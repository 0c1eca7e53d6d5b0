"""What listeners say of what they hear (`stats`), as a few numbers for each channel, however many listeners there are.

A listener reports how much audio waits in its player, how long a frame takes until it is heard, and how often it ran
dry or jumped since it began. The counts are totals, so each is held against the report before, which whoever reads the
connection keeps; nothing here grows with the number of listeners.

Invariants: at most `MAX_SUMMARIES` channels have numbers of their own, of further ones only the sum over all is kept;
whatever a report contains, noting it takes constant time and raises nothing.

Source: docs/protocol.md, "Control messages".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.metrics.distribution import Distribution
from relay.protocol.json_messages import ControlMessage
from relay.protocol.messages import ListenerReport
from relay.vocabulary.errors import PolicyError
from relay.vocabulary.names import ChannelAddress

MAX_SUMMARIES = 1000
"""Channels in one interval's summary: more than a relay carries, and 2 MB at most."""

MAX_EVENTS = 1000
"""A player that reports more underruns or jumps since the report before counts as reporting this."""


@dataclass(slots=True)
class Heard:
    """What listeners reported, summed up.

    Attributes:
        buffer_ms: One value for each report.
        playout_ms: Likewise.
        underruns: How often players ran dry.
        jumps: How often they jumped.
    """

    buffer_ms: Distribution = field(default_factory=Distribution)
    playout_ms: Distribution = field(default_factory=Distribution)
    underruns: int = 0
    jumps: int = 0

    def note(self, report: ListenerReport, underruns: int, jumps: int) -> None:
        """Add a report, with what happened since the one before."""
        self.buffer_ms.note(report.buffer_ms)
        self.playout_ms.note(report.playout_ms)
        self.underruns += underruns
        self.jumps += jumps

    def fields(self) -> dict[str, int | float | None]:
        """Give the summary for the log."""
        return {
            "reports": len(self.buffer_ms),
            "underruns": self.underruns,
            "jumps": self.jumps,
            "playout_p50_ms": self.playout_ms.percentile(50),
            "playout_p95_ms": self.playout_ms.percentile(95),
            "buffer_p5_ms": self.buffer_ms.percentile(5),
            "buffer_p50_ms": self.buffer_ms.percentile(50),
        }


class ListenerReports:
    """Takes reports and gives one summary for each channel and interval.

    Attributes:
        everywhere: Of all channels, since the relay started.
        malformed: Reports that could not be read.
        not_listed: Reports of channels beyond `MAX_SUMMARIES`; they are in `everywhere` only.
    """

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.everywhere = Heard()
        self.malformed = 0
        self.not_listed = 0
        self._channels: dict[ChannelAddress, Heard] = {}

    def note(
        self, address: ChannelAddress, message: ControlMessage, before: ListenerReport | None
    ) -> ListenerReport | None:
        """Take a listener's `stats` message.

        Args:
            address: The channel that it listens to.
            message: Of the listener.
            before: What this gave for its report before; None for its first one.

        Returns:
            What to give as `before` the next time.
        """
        try:
            report = ListenerReport.read(message)
        except PolicyError:
            self.malformed += 1
            return before
        # A total that went down is of a player that began anew.
        underruns = _increase(report.underruns, before.underruns if before else 0)
        jumps = _increase(report.jumps, before.jumps if before else 0)
        self.everywhere.note(report, underruns, jumps)
        heard = self._channels.get(address)
        if heard is None:
            if len(self._channels) >= MAX_SUMMARIES:
                self.not_listed += 1
                return report
            heard = self._channels[address] = Heard()
        heard.note(report, underruns, jumps)
        return report

    def take(self) -> Iterator[tuple[ChannelAddress, Heard]]:
        """Give what was heard on each channel since the last time, and begin anew."""
        channels, self._channels = self._channels, {}
        return iter(channels.items())


def _increase(now: int, before: int) -> int:
    return min(now - before if now >= before else now, MAX_EVENTS)
