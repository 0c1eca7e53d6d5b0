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
             "Number of frames that the relay accepted from broadcasters and released to listeners."),
    _counter("Tally.delivered_frames", "relay_frames_delivered", "FramesDelivered",
             "Number of frames written to listeners. A frame counts once for each listener."),
    _counter("Tally.dropped_frames", "relay_frames_dropped", "FramesDropped",
             "Number of frames that slow listeners lost. A frame counts once for each listener."),
    _level("Vitals.listeners", "relay_listeners", "Listeners", "Number of connected listeners."),
    _level("Vitals.codec_listeners", "relay_codec_listeners", None,
           "Number of connected listeners, by the codec that they get.", labels=("codec",)),
    _counter("Tally.delivered_bytes", "relay_bytes_delivered", None,
             "Bytes of audio messages that the relay wrote, headers included.", labels=("codec",)),
    _level("Vitals.broadcasters", "relay_broadcasters", "Broadcasters", "Number of connected broadcasters."),
    _level("Vitals.sessions", "relay_sessions", "Sessions", "Number of sessions that have channels."),
    _level("Vitals.ingest_lead_ms", "relay_ingest_lead_seconds", "IngestLead",
           "How far the audio of the broadcaster that is furthest ahead reaches into the future.",
           "CloudWatch gets the lead of each broadcaster.", unit=UNIT_OF_TIME),
    _times("Tally.delivery_ms", "relay_delivery_latency_seconds", "DeliveryLatency",
           "Age of frames when the relay writes them: how long it had them."),
    _times("Transcoding.encode_ms", "relay_transcoding_seconds", None,
           "Time that a thread took to encode or decode a frame of a broadcaster."),
    _times("Vitals.listener_lag_ms", "relay_listener_lag_seconds", "ListenerLag",
           "Age of the oldest frame that the relay owes a listener, measured for each listener every 5 s.",
           "It is 0 for a listener that has everything."),
    _times("Vitals.loop_lag_ms", "relay_loop_lag_seconds", "LoopLag",
           "Delay of the event loop, measured 20 times a second."),
    _times("Heard.buffer_ms", "relay_listener_buffer_seconds", "ListenerBuffer",
           "Audio that waits in the buffers of players, as they report."),
    _times("Heard.playout_ms", "relay_listener_playout_seconds", "ListenerPlayout",
           "Time from a frame's due time until it is heard, as players report."),
    _counter("Heard.underruns", "relay_listener_underruns", "ListenerUnderruns",
             "Number of times that players ran out of audio, as they report."),
    _counter("Heard.jumps", "relay_listener_jumps", "ListenerJumps",
             "Number of times that players skipped or repeated audio, as they report."),
    _counter("LimitsInForce.counters", "relay_limits_applied", None,
             "Number of times that the relay applied a limit.",
             "[Limits](limits.md) explains each one.", labels=("limit",)),
    _counter("Endings.closings", "relay_closings", None, "Number of WebSockets and HTTP streams that ended.",
             "`code` is a [close code](protocol.md#close-codes), `1006` without a close frame, or `other` for a code "
             "that the client invented. An HTTP stream has the code that a WebSocket would have, and `1001` if the "
             "client closed it. `role` is `listen` or `broadcast`. The log has "
             "[the reasons](guides/troubleshooting.md#why-a-connection-ended).", labels=("code", "role")),
    _counter("Endings.answers", "relay_http_responses", None,
             "Number of answers to readable HTTP requests. 101 is a WebSocket.", labels=("status",)),
    _counter("LimitsInForce.unreadable", "relay_requests_unreadable", None,
             "Number of unreadable requests. The label says what was wrong with them.", labels=("fault",)),
    _counter("LimitsInForce.failed_handshakes", "relay_tls_handshakes_failed", None,
             "Number of failed TLS handshakes.",
             "The log has [the reasons](guides/https.md#failed-tls-handshakes). A handshake that a limit ended counts "
             "under that limit instead.", labels=("fault",)),
    _counter("Access.refusals", "relay_refusals", None,
             "Number of tokens and keys that were refused or withdrawn.", labels=("reason",)),
    _of_buffers("AverageBufferUtilization", "How full the buffers of the listeners are, on average.", unit="Percent"),
    _of_buffers("MaxBufferUtilization", "How full the fullest buffer of a listener is.", unit="Percent"),
    _of_buffers("ActiveBuffers", "Number of buffers. There is one for each listener."),
    _loss_sent_apart("AudioBufferManager.overflow_count", "relay_buffer_overflows", "BufferOverflow",
                     "Number of times that a listener's buffer overflowed and lost its oldest audio.",
                     "A network is too slow, or `listener.max_buffer_seconds` is too short. "
                     "`relay_frames_dropped_total` says how much was lost."),
    _loss_sent_apart("MetricsReporter.measurements_not_sent", "relay_measurements_not_sent", "MetricsNotSent",
                     "Number of measurements that CloudWatch did not get.",
                     "CloudWatch was out of reach for long, or refused them. The log says why."),
    _loss("Hub.ignored_messages", "relay_messages_ignored", None,
          "Number of control messages of an unknown type.",
          "A client is newer than the relay, or speaks another protocol."),
    _loss("ListenerReports.malformed", "relay_listener_reports_malformed", None,
          "Number of unreadable reports of players.",
          "A player from elsewhere sends malformed reports. The figures of what people hear lack its listeners."),
    _loss("ListenerReports.not_listed", "relay_listener_reports_not_listed", None,
          "Number of reports that are missing in the log's summaries of channels.",
          "More than 1000 channels had reports at once. The metrics have all reports."),
    _loss("Tally.unmade_frames", "relay_frames_not_transcoded", None,
          "Number of frames that the relay did not encode or decode, so that the listeners of a codec lack them.",
          "The machine has too little CPU for its channels, or an encoder failed. The log says which."),
    _loss("Tally.transcoding_failures", "relay_transcoding_failures", None,
          "Number of frames from broadcasters that could not be encoded or decoded.",
          "A broadcaster sends Opus packets that are damaged. Listeners of PCM hear the decoder's concealment."),
    _loss("Tally.lost_taps", "relay_taps_lost", None,
          "Number of taps that were closed because their readers were too slow.",
          "A recorder or an encoder cannot keep up. Its recording or stream ends there."),
    _counter("ClusterTally.repairs", "relay_cluster_repairs", None,
             "Number of times that audio of another node was missing, or may have been, and was fetched from the bus."),
    _counter("ClusterTally.adoptions", "relay_cluster_adoptions", None,
             "Number of channels that this node took over because their node was gone."),
    _loss("ClusterTally.lost_entries", "relay_cluster_entries_lost", None,
          "Number of times that audio of another node was lost for good, so that listeners got a gap.",
          "The bus was out of reach for more than 6 s longer than `listener.history_seconds`, or lost its memory."),
    _loss("BusOutbox.dropped_messages", "relay_bus_messages_dropped", None,
          "Number of messages for other nodes that the relay gave up.",
          "NATS did not confirm them in time. It was out of reach for more than 6 s longer than "
          "`listener.history_seconds`, or has too little memory. Listeners at other nodes lack that audio."),
    _loss("Shares.not_kept_messages", "relay_bus_messages_not_kept", None,
          "Number of messages with audio of pace `speech` that waits, which the relay did not keep in NATS.",
          "A session sends much faster than in real time, or NATS is out of reach. If the home of its channel fails, "
          "listeners lack that audio."),
    _loss("OverflowEpisodes.untracked_frames", "relay_frames_dropped_not_logged", None,
          "Number of dropped frames that are missing in the log's lines about lost audio.",
          "More than 1000 sessions lost audio at once. `relay_frames_dropped_total` has all frames."),
    _loss("SharedSeats.not_kept", "relay_seats_not_shared", None,
          "Number of times that a node could not keep how many seats a session or an address has on another node.",
          "A node has more than 10 000 sessions and addresses. The limits of those above count on each node alone."),
    _loss("AudioBufferManager.failed_metric_calls", "relay_metric_calls_failed", None,
          "Number of metrics that the metric client refused.",
          "The client that a program gave to `AudioBufferManager` raises an exception."),
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
