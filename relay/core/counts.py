"""What the relay counts, and the names by which operators read it: one table, for Prometheus and for CloudWatch.

Invariants: each count is one attribute of one object, begins at the start of the relay, and only grows. A counter that
is not in this table is read elsewhere (`tests/unit/test_counts.py` says where). The keys of counts with labels are
bounded, whatever peers send.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Count:
    """One count.

    Attributes:
        counted_in: `Class.attribute` that holds it: a number, or a number for each key.
        prometheus: Its name there, without `_total`.
        text: What is counted, in one sentence.
        labels: What the keys are, for Prometheus; several for keys that are tuples.
        cloudwatch: Its name there; None where it is not sent, since CloudWatch bills each metric.
    """

    counted_in: str
    prometheus: str
    text: str
    labels: tuple[str, ...] = ()
    cloudwatch: str | None = None


Counted = int | Mapping[Any, int]

COUNTS = (
    Count("Tally.released_frames", "relay_frames_in", "Frames released to listeners.", cloudwatch="FramesIn"),
    Count(
        "Tally.delivered_frames",
        "relay_frames_delivered",
        "Frames given to sockets, once for each listener.",
        cloudwatch="FramesDelivered",
    ),
    Count(
        "Tally.dropped_frames",
        "relay_frames_dropped",
        "Frames that slow listeners did not get.",
        cloudwatch="FramesDropped",
    ),
    Count(
        "Heard.underruns",
        "relay_listener_underruns",
        "How often players ran dry, as they report.",
        cloudwatch="ListenerUnderruns",
    ),
    Count(
        "Heard.jumps", "relay_listener_jumps", "How often players jumped, as they report.", cloudwatch="ListenerJumps"
    ),
    Count("LimitsInForce.counters", "relay_limits_applied", "How often a limit was applied.", ("limit",)),
    Count("Endings.closings", "relay_closings", "WebSockets that ended.", ("code", "role")),
    Count("Endings.answers", "relay_http_responses", "Answers to HTTP requests; 101 is a WebSocket.", ("status",)),
    Count("LimitsInForce.unreadable", "relay_requests_unreadable", "Requests that can't be read.", ("fault",)),
    Count("LimitsInForce.failed_handshakes", "relay_tls_handshakes_failed", "TLS that was not agreed on.", ("fault",)),
    Count("Access.refusals", "relay_refusals", "Tokens and keys that were refused.", ("reason",)),
    Count("Hub.ignored_messages", "relay_messages_ignored", "Control messages of an unknown type."),
    Count("ListenerReports.malformed", "relay_listener_reports_malformed", "Reports of players that can't be read."),
    Count(
        "ListenerReports.not_listed",
        "relay_listener_reports_not_listed",
        "Reports that the log's summaries of channels lack.",
    ),
    Count("AudioBufferManager.overflow_count", "relay_buffer_overflows", "How often a listener's queue was full."),
    Count(
        "OverflowEpisodes.untracked_frames",
        "relay_frames_dropped_not_logged",
        "Dropped frames that the log's lines about losses lack.",
    ),
    Count(
        "AudioBufferManager.failed_metric_calls",
        "relay_metric_calls_failed",
        "Metrics that their client refused to take.",
    ),
    Count(
        "MetricsReporter.measurements_not_sent",
        "relay_measurements_not_sent",
        "Measurements that CloudWatch did not get.",
    ),
)


def read_counts(holders: Iterable[object]) -> dict[Count, Counted]:
    """Read each count; one whose object is not among `holders` is 0."""
    of_class = {type(holder).__name__: holder for holder in holders}
    found: dict[Count, Counted] = {}
    for count in COUNTS:
        name, _, attribute = count.counted_in.partition(".")
        found[count] = getattr(of_class[name], attribute) if name in of_class else {} if count.labels else 0
    return found
