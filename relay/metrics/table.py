"""All metrics of the relay, in one table. Prometheus, CloudWatch and docs/metrics.md are generated from it.

Invariants: Each metric is one attribute of one object. A counter begins when the relay starts, and only grows. A
counter outside this table is read elsewhere (`tests/unit/test_metrics_table.py` says where). The keys of counters with
labels are bounded, whatever peers send.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from relay.metrics.distribution import Distribution
from relay.metrics.metrics import Unit

Reading = int | Mapping[Any, int] | tuple[float, ...] | Distribution
"""A number, a number per key, several levels, or a distribution of values."""

UNIT_OF_TIME: Final = "Milliseconds"
"""CloudWatch's name for the unit of all times. Prometheus gets seconds, as is its custom."""


class Kind(StrEnum):
    """The kind of a metric's numbers."""

    COUNTER = "counter"
    GAUGE = "gauge"
    DISTRIBUTION = "distribution"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        source: `Class.attribute` that holds it.
        prometheus: Its Prometheus name, for a counter without `_total`; None to leave it out of the page.
        cloudwatch: Its CloudWatch name; None to not send it, because CloudWatch bills each metric.
        text: A description in one sentence.
        advice: More for the documentation. For a loss, its causes.
        kind: Whether it only grows, goes up and down, or has many values.
        unit: Its unit, as CloudWatch names it.
        labels: The meaning of the keys, for Prometheus; several for keys that are tuples.
        is_loss: Whether it stays at 0 in normal operation.
        is_sent_apart: Whether its source sends it to CloudWatch itself.
    """

    source: str
    prometheus: str | None
    cloudwatch: str | None
    text: str
    advice: str = ""
    kind: Kind = Kind.COUNTER
    unit: Unit = "Count"
    labels: tuple[str, ...] = ()
    is_loss: bool = False
    is_sent_apart: bool = False

    @property
    def is_time(self) -> bool:
        """Whether it is in milliseconds, so that Prometheus gets it in seconds."""
        return self.unit == UNIT_OF_TIME


_counter = partial(Metric, kind=Kind.COUNTER)
_loss = partial(Metric, kind=Kind.COUNTER, is_loss=True)
_loss_sent_apart = partial(_loss, is_sent_apart=True)
_level = partial(Metric, kind=Kind.GAUGE)
_times = partial(Metric, kind=Kind.DISTRIBUTION, unit=UNIT_OF_TIME)
_of_buffers = partial(Metric, "AudioBufferManager.emit_utilization_metrics", None, kind=Kind.GAUGE, is_sent_apart=True)

# fmt: off
METRICS = (
    _counter("Tally.released_frames", "relay_frames_in", "FramesIn",
             "Frames that broadcasters sent and that were released to listeners."),
    _counter("Tally.delivered_frames", "relay_frames_delivered", "FramesDelivered",
             "Frames given to sockets, once for each listener."),
    _counter("Tally.dropped_frames", "relay_frames_dropped", "FramesDropped",
             "Frames that slow listeners did not get, once for each listener."),
    _level("Vitals.listeners", "relay_listeners", "Listeners", "Listeners that are connected."),
    _level("Vitals.codec_listeners", "relay_codec_listeners", None, "Listeners that are connected, by what they get.",
           labels=("codec",)),
    _counter("Tally.delivered_bytes", "relay_bytes_delivered", None,
             "Bytes of messages with audio that were given to sockets.", labels=("codec",)),
    _level("Vitals.broadcasters", "relay_broadcasters", "Broadcasters", "Broadcasters that are connected."),
    _level("Vitals.sessions", "relay_sessions", "Sessions", "Sessions that have channels."),
    _level("Vitals.ingest_lead_ms", "relay_ingest_lead_seconds", "IngestLead",
           "How far the audio of the broadcaster that is furthest ahead reaches into the future.",
           "CloudWatch gets the lead of each broadcaster.", unit=UNIT_OF_TIME),
    _times("Tally.delivery_ms", "relay_delivery_latency_seconds", "DeliveryLatency",
           "Age of frames when they are written: how long the relay had them."),
    _times("Transcoding.encode_ms", "relay_transcoding_seconds", None,
           "How long a thread took to encode or decode a frame of a broadcaster."),
    _times("Vitals.listener_lag_ms", "relay_listener_lag_seconds", "ListenerLag",
           "Age of the oldest frame that a listener is owed, of each listener every 5 s.",
           "It is 0 for a listener that has everything."),
    _times("Vitals.loop_lag_ms", "relay_loop_lag_seconds", "LoopLag",
           "How late the event loop is, 20 times a second."),
    _times("Heard.buffer_ms", "relay_listener_buffer_seconds", "ListenerBuffer",
           "Audio that waits in players, as they report."),
    _times("Heard.playout_ms", "relay_listener_playout_seconds", "ListenerPlayout",
           "From a frame's due time until it is heard, as players report."),
    _counter("Heard.underruns", "relay_listener_underruns", "ListenerUnderruns",
             "How often players ran dry, as they report."),
    _counter("Heard.jumps", "relay_listener_jumps", "ListenerJumps",
             "How often players skipped or repeated audio, as they report."),
    _counter("LimitsInForce.counters", "relay_limits_applied", None,
             "How often a limit was applied.", "[Limits](limits.md) has all of them.", labels=("limit",)),
    _counter("Endings.closings", "relay_closings", None, "WebSockets and streams over HTTP that ended.",
             "The code is a [close code](protocol.md#close-codes), `1006` for no close frame, or `other` for a code of "
             "the client's own; the role is `listen` or `broadcast`. A stream has the code that a WebSocket would "
             "have, and `1001` if the client closed it. The log has "
             "[the reasons](guides/troubleshooting.md#why-a-connection-ended).", labels=("code", "role")),
    _counter("Endings.answers", "relay_http_responses", None,
             "Answers to HTTP requests that could be read; 101 is a WebSocket.", labels=("status",)),
    _counter("LimitsInForce.unreadable", "relay_requests_unreadable", None,
             "Requests that can't be read, by what is wrong with them.", labels=("fault",)),
    _counter("LimitsInForce.failed_handshakes", "relay_tls_handshakes_failed", None,
             "Connections that ended before TLS was agreed on.",
             "The log has [the faults](guides/https.md#failed-tls-handshakes). Those that a limit ended are counted "
             "under the limit.", labels=("fault",)),
    _counter("Access.refusals", "relay_refusals", None,
             "Tokens and keys that were refused, or that ceased to hold.", labels=("reason",)),
    _of_buffers("AverageBufferUtilization", "How full the listeners' buffers are, on average.", unit="Percent"),
    _of_buffers("MaxBufferUtilization", "How full the fullest of the listeners' buffers is.", unit="Percent"),
    _of_buffers("ActiveBuffers", "Buffers, one for each listener."),
    _loss_sent_apart("AudioBufferManager.overflow_count", "relay_buffer_overflows", "BufferOverflow",
                     "How often a listener's queue was full and lost its oldest audio.",
                     "Networks are too slow, or `listener.max_buffer_seconds` is too short. "
                     "`relay_frames_dropped_total` says how much was lost."),
    _loss_sent_apart("MetricsReporter.measurements_not_sent", "relay_measurements_not_sent", "MetricsNotSent",
                     "Measurements that CloudWatch did not get.",
                     "CloudWatch could not be reached for long, or refused them. The log says why."),
    _loss("Hub.ignored_messages", "relay_messages_ignored", None, "Control messages of an unknown type.",
          "A client is newer than the relay, or speaks another protocol."),
    _loss("ListenerReports.malformed", "relay_listener_reports_malformed", None,
          "Reports of players that can't be read.",
          "Somebody else's player has a fault, and the figures of what is heard lack its listeners."),
    _loss("ListenerReports.not_listed", "relay_listener_reports_not_listed", None,
          "Reports that the log's summaries of channels lack.",
          "More than 1000 channels had reports at once. The metrics have all of them."),
    _loss("Tally.unmade_frames", "relay_frames_not_transcoded", None,
          "Frames that a codec's listeners lack because the relay did not make them.",
          "The machine has too little CPU for its channels, or an encoder failed. The log says which."),
    _loss("Tally.transcoding_failures", "relay_transcoding_failures", None,
          "Frames of broadcasters that could not be encoded or decoded.",
          "A broadcaster sends Opus packets that are damaged. Listeners of PCM hear the decoder's concealment."),
    _loss("Tally.lost_taps", "relay_taps_lost", None,
          "Taps of channels that were closed because their readers were too slow.",
          "A recorder or an encoder can't keep up. What it makes of the channel ends there."),
    _loss("OverflowEpisodes.untracked_frames", "relay_frames_dropped_not_logged", None,
          "Dropped frames that the log's lines about losses lack.",
          "More than 1000 sessions lost audio at once. `relay_frames_dropped_total` has all of it."),
    _loss("AudioBufferManager.failed_metric_calls", "relay_metric_calls_failed", None,
          "Metrics that their client refused to take.",
          "The program that embeds `AudioBufferManager` has a fault."),
)
# fmt: on


def read_metrics(holders: Iterable[object]) -> Iterator[tuple[Metric, Reading]]:
    """Yield each metric that can be read now. A counter whose object is not among `holders` is 0."""
    of_class = {type(holder).__name__: holder for holder in holders}
    for metric in METRICS:
        name, _, attribute = metric.source.partition(".")
        if name in of_class and metric.prometheus is not None:
            yield metric, getattr(of_class[name], attribute)
        elif metric.kind is Kind.COUNTER:
            yield metric, {} if metric.labels else 0
