"""The figures on which a plan rests, each with its source: a report of `relay loadtest --json`, or this project's own.

Invariant: where several reports measured the same figure in the same way, the least favourable one counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.capacity.delivery import OPUS_BITS_PER_SECOND, PCM_BITS_PER_SECOND, Delivery
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import UserError

WRITE, JOIN, MEMORY, BYTES = (
    "server_cpu_us_per_delivery",
    "server_cpu_us_per_join",
    "server_kib_per_listener",
    "kbps_per_listener",
)
"""The metrics of a report that a plan reads."""

_IDLE_MEMORY, _CPU_SHARE = "server_rss_before_mb", "server_cpu_percent"
_HOW_TO_MEASURE = "write one with `relay loadtest --json FILE`"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from.

    Attributes:
        value: The number, in the unit of its field in `Figures`.
        source: For people: a report, a page of the documentation, or a formula.
    """

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The measured figures. Times are CPU time.

    Attributes:
        write_us: Microseconds of one write to one listener, with its share of pings and everything else.
        join_us: Microseconds of one join.
        entry_us: Microseconds for a worker to take in one frame, from a broadcaster or from NATS.
        encoder_us: Microseconds for a worker to encode one second of audio of one channel.
        nats_us: Microseconds for a NATS server to deliver one message to one worker.
        listener_kib: Memory of one listener, in KiB.
        worker_mb: Memory of a worker without listeners, in MB.
        listener_bytes: Bytes per second on the network for one listener.
    """

    write_us: Figure
    join_us: Figure
    entry_us: Figure
    encoder_us: Figure
    nats_us: Figure
    listener_kib: Figure
    worker_mb: Figure
    listener_bytes: Figure


PUBLISHED_WRITE = Figure(7.5, "docs/performance.md: PCM to 1000 listeners, on a slow virtual machine")
PUBLISHED_PACKED_WRITE = Figure(11.7, "docs/performance.md: packed Opus to 1000 listeners, on a slow virtual machine")
PUBLISHED_JOIN = Figure(760.0, "docs/performance.md: the slowest of eight runs with 1000 joins")
PUBLISHED_ENTRY = Figure(200.0, "docs/nats.md: a frame at its home, on a slow virtual machine")
PUBLISHED_ENCODER = Figure(12_800.0, "docs/performance.md: 1.28 % of a core at complexity 9")
PUBLISHED_NATS = Figure(31.0, "docs/scale.md: channels that are not in step")
PUBLISHED_MEMORY = Figure(7.1, "docs/performance.md: memory per listener of 4000, without TLS")
PUBLISHED_IDLE_MEMORY = Figure(62.0, "docs/loadtest.md: before the listeners joined")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One report of a load test.

    Attributes:
        name: The file, for people.
        listeners: How many listeners the test had.
        delivery: What they requested.
        metrics: The named figures; None where the run could not measure one.
    """

    name: str
    listeners: int
    delivery: Delivery
    metrics: Mapping[str, float | None]

    def __str__(self) -> str:
        packed = f" in messages of {self.delivery.packet_ms} ms" if self.delivery.frames_per_message > 1 else ""
        return f"{self.name}: {self.listeners:,} listeners, {self.delivery.codec}{packed}"


def read_measurement(name: str, report: object) -> Measurement:
    """Read the JSON of a report.

    Raises:
        UserError: It is no report of `relay loadtest`, or of a test that delivered nothing.
    """
    try:
        plan, metrics = _mapping(report, "plan"), _mapping(report, "metrics")
        codec = Codec(plan["codec"])
        delivery = Delivery(
            codec,
            PCM_BITS_PER_SECOND if codec is Codec.PCM_S16LE else OPUS_BITS_PER_SECOND,
            _positive(plan["frame_ms"]),
            int(plan["packet_ms"]),
        )
        listeners = _positive(plan["listeners"])
        read = {
            metric: _figure(metrics.get(metric)) for metric in (WRITE, JOIN, MEMORY, BYTES, _IDLE_MEMORY, _CPU_SHARE)
        }
        delivered = _figure(metrics["delivered_frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name} is not a report of a load test; {_HOW_TO_MEASURE}.") from error
    if not delivered:
        raise UserError(f"{name} is the report of a load test in which no listener received audio; {_HOW_TO_MEASURE}.")
    return Measurement(name, listeners, delivery, read)


def _mapping(report: object, key: str) -> Mapping[str, Any]:
    if not isinstance(report, Mapping) or not isinstance(report[key], Mapping):
        raise TypeError(key)
    return report[key]  # type: ignore[no-any-return] # from JSON


def _positive(value: Any) -> int:  # noqa: ANN401 - from JSON
    if not isinstance(value, int) or value <= 0:
        raise ValueError(value)
    return value


def _figure(value: Any) -> float | None:  # noqa: ANN401 - from JSON
    if value is not None and (not isinstance(value, int | float) or not 0 <= value < float("inf")):
        raise ValueError(value)
    return value


def choose_figures(delivery: Delivery, measurements: Sequence[Measurement], *, has_bitrate: bool) -> Figures:
    """Choose the figures for what the listeners will request.

    Args:
        delivery: What the listeners will request.
        measurements: The reports; without any, this project's own figures count.
        has_bitrate: Whether the user named a bit rate. A report does not contain one.
    """
    alike = _alike(delivery, measurements)
    published = PUBLISHED_WRITE if delivery.frames_per_message == 1 else PUBLISHED_PACKED_WRITE
    return Figures(
        write_us=_worst(alike, WRITE, _write_us) or published,
        join_us=_worst(measurements, JOIN) or PUBLISHED_JOIN,
        entry_us=PUBLISHED_ENTRY,
        encoder_us=PUBLISHED_ENCODER,
        nats_us=PUBLISHED_NATS,
        listener_kib=_worst(measurements, MEMORY) or PUBLISHED_MEMORY,
        worker_mb=_worst(measurements, _IDLE_MEMORY) or PUBLISHED_IDLE_MEMORY,
        listener_bytes=(None if has_bitrate else _worst(alike, BYTES, _wire_bytes))
        or Figure(delivery.wire_bytes_per_second, "docs/guides/large-audiences.md: the formula of the bill"),
    )


def remarks(delivery: Delivery, measurements: Sequence[Measurement], cpu_percent: float) -> list[str]:
    """Return warnings about reports that do not fit the plan.

    Args:
        delivery: What the listeners will request.
        measurements: The reports.
        cpu_percent: How much of a core a worker of the plan may use.
    """
    sentences = [
        f"{each.name} is of a relay that used {share:.0f} % of a core. A busy relay writes several frames at once, so "
        f"at {cpu_percent:g} % each write may cost more."
        for each in measurements
        if (share := each.metrics[_CPU_SHARE]) is not None and share > cpu_percent
    ]
    if measurements and not any(each.metrics[WRITE] for each in _alike(delivery, measurements)):
        sentences.append(
            "No report measured the CPU time of writes like these, so a published figure counts. Measure them with the "
            "same --codec, --frame-ms and --packet-ms, on the machine of the relay."
        )
    return sentences


def _alike(delivery: Delivery, measurements: Iterable[Measurement]) -> list[Measurement]:
    """Return the reports about the same messages. Others would mislead, because rarer writes cost more each."""

    def shape(of: Delivery) -> tuple[Codec, int, int]:
        return of.codec, of.frame_ms, of.frames_per_message

    return [each for each in measurements if shape(each.delivery) == shape(delivery)]


def _write_us(measurement: Measurement, value: float) -> float:
    return value * measurement.delivery.frames_per_write


def _wire_bytes(measurement: Measurement, value: float) -> float:
    shape = measurement.delivery
    return value * 1000 / 8 + shape.wire_bytes_per_second - shape.message_bytes_per_second


def _worst(
    measurements: Iterable[Measurement],
    metric: str,
    convert: Callable[[Measurement, float], float] = lambda _measurement, value: value,
) -> Figure | None:
    """Return the largest value, if any report has one. A test that was too short to measure it reports zero."""
    found = [Figure(convert(each, value), str(each)) for each in measurements if (value := each.metrics[metric])]
    return max(found, key=lambda figure: figure.value, default=None)
