"""Summarizes what players report about their playback (`stats`): a few numbers per channel for any number of listeners.

A listener reports how much audio waits in its player, how long a frame takes to be heard, and how often the player ran
dry or jumped since it started. These counts are totals, so each is compared with the previous report. The caller that
reads the connection keeps that report, so nothing here grows with the number of listeners.

Invariants: At most `MAX_SUMMARIES` channels have their own numbers; further channels count only in the total. Recording
a report takes constant time and raises nothing, whatever the report contains.

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
"""The most channels in one interval's summary: more than a relay carries, and 2 MB at most."""

MAX_EVENTS = 1000
"""The most underruns or jumps that one report can add."""


@dataclass(slots=True)
class Heard:
    """Sums of listeners' reports.

    Attributes:
        buffer_ms: Audio waiting in the player, one value per report.
        playout_ms: Time until a frame is heard, one value per report.
        underruns: How often players ran dry.
        jumps: How often players skipped or repeated audio.
    """

    buffer_ms: Distribution = field(default_factory=Distribution)
    playout_ms: Distribution = field(default_factory=Distribution)
    underruns: int = 0
    jumps: int = 0

    def note(self, report: ListenerReport, underruns: int, jumps: int) -> None:
        """Add a report, with the underruns and jumps since the previous one."""
        self.buffer_ms.note(report.buffer_ms)
        self.playout_ms.note(report.playout_ms)
        self.underruns += underruns
        self.jumps += jumps

    def fields(self) -> dict[str, int | float | None]:
        """Return the summary for the log."""
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
    """Collects reports, and summarizes them for each channel and interval.

    Attributes:
        everywhere: The sums of all channels since the relay started.
        malformed: Number of reports that could not be read.
        not_listed: Number of reports of channels beyond `MAX_SUMMARIES`. They count only in `everywhere`.
    """

    def __init__(self) -> None:
        self.everywhere = Heard()
        self.malformed = 0
        self.not_listed = 0
        self._channels: dict[ChannelAddress, Heard] = {}

    def note(
        self, address: ChannelAddress, message: ControlMessage, before: ListenerReport | None
    ) -> ListenerReport | None:
        """Record a listener's `stats` message.

        Args:
            address: The listener's channel.
            message: The message.
            before: The return value for the listener's previous report; None for its first.

        Returns:
            The value for `before` in the next call.
        """
        try:
            report = ListenerReport.read(message)
        except PolicyError:
            self.malformed += 1
            return before
        # A total that decreased comes from a restarted player.
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
        """Return what was reported for each channel since the last call, and start again."""
        channels, self._channels = self._channels, {}
        return iter(channels.items())


def _increase(now: int, before: int) -> int:
    return min(now - before if now >= before else now, MAX_EVENTS)
