"""`relay plan`: how many machines an audience needs, and on which assumptions this depends."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from relay.capacity.delivery import OPUS_BITS_PER_SECOND, PCM_BITS_PER_SECOND, SEGMENT_BYTES, Delivery
from relay.capacity.figures import Figures, Measurement, choose_figures, read_measurement, remarks
from relay.capacity.plan import ENTRY_BYTES, MOST_LISTENERS, Demand, Machines, Plan, Prices, make_plan
from relay.cli.options import FiniteRange, codec_option
from relay.cli.output import say, show
from relay.cli.sessions import render_table
from relay.loadtest.source import quiet_audio
from relay.settings.settings import LimitSettings
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import UserError

MOST_PLANNED = 1_000_000_000

_UNKNOWN = "–"


class _Counts(click.ParamType[tuple[int, ...]]):
    """One or several numbers of listeners, separated by commas."""

    name = "number[,number…]"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(word.isascii() and word.isdecimal() and 1 <= int(word) <= MOST_PLANNED for word in words):
            self.fail(f"{value!r} must be numbers from 1 to {MOST_PLANNED}, separated by commas.", param, ctx)
        return tuple(map(int, words))


@click.command("plan")
@click.option(
    "--listeners", "audiences", type=_Counts(), required=True, help="Concurrent listeners. Each number is a column."
)
@click.option("--sessions", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Sessions at a time.")
@click.option(
    "--channels", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Live channels of each session."
)
@codec_option("The codec that the listeners request.", default=Codec.OPUS)
@codec_option("The codec that the broadcasters send. If it is another one, each worker converts it.", "--source-codec")
@click.option(
    "--bitrate",
    type=click.IntRange(6_000, 1_536_000),
    help="Bits per second of the listeners' audio. By default, those of 16 kHz mono PCM, or opus.bitrate.",
)
@click.option(
    "--frame-ms", type=click.IntRange(1, 250), default=20, show_default=True, help="Length of a frame, in milliseconds."
)
@click.option(
    "--packet-ms",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="With Opus: how much audio the listeners request in a message, in milliseconds.",
)
@click.option(
    "--coalesce-ms",
    type=click.IntRange(0, 200),
    default=0,
    show_default=True,
    help="listener.coalesce_ms: how long frames wait so that several are written together.",
)
@click.option(
    "--headroom",
    "headroom_percent",
    type=FiniteRange(0, 100, max_open=True),
    default=50.0,
    show_default=True,
    help="Share of each core that stays free for joins and surprises, in percent.",
)
@click.option("--cores", type=click.IntRange(1, 1024), default=8, show_default=True, help="Cores of one machine.")
@click.option(
    "--gbps",
    type=FiniteRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Gigabits per second that one machine may send.",
)
@click.option("--regions", type=click.IntRange(1, 1000), default=1, show_default=True, help="Regions with machines.")
@click.option(
    "--spare",
    type=click.IntRange(0, 1000),
    default=1,
    show_default=True,
    help="Machines of each region that may be down while the others carry all listeners.",
)
@click.option(
    "--storm",
    "storm_seconds",
    metavar="SECONDS",
    type=FiniteRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="The time within which all listeners join, or join again after a failure.",
)
@click.option("--price-per-gb", type=FiniteRange(0), help="What a gigabyte of traffic costs. Without it: no cost.")
@click.option("--price-per-core-hour", type=FiniteRange(0), help="What a core costs for an hour. Without it: no cost.")
@click.option(
    "--measured",
    "reports",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A report of `relay loadtest --json FILE` on such a machine. Repeat it for several.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def plan_command(
    context: click.Context,
    /,
    *,
    audiences: tuple[int, ...],
    reports: Sequence[Path],
    as_json: bool,
    price_per_gb: float | None,
    price_per_core_hour: float | None,
    **chosen: Any,  # noqa: ANN401 - the options that click read
) -> None:
    """Compute the machines, the traffic and the cost of an audience.

    \b
    relay plan --listeners 10000,1000000 --codec opus --packet-ms 60
    relay loadtest --listeners 1000 --codec opus --packet-ms 60 --json report.json
    relay plan --listeners 10000,1000000 --codec opus --packet-ms 60 --measured report.json

    The command prints each assumption with its source. Figures that no report contains come from
    this project's documentation, which measured another machine. Counts are rounded up.
    """  # noqa: D301 - \b is click's mark for lines that are kept
    measurements = [_read_report(path) for path in reports]
    source_codec, bitrate = Codec(chosen["source_codec"]), chosen["bitrate"]
    delivery = _delivery(
        Codec(chosen["codec"]), bitrate, chosen["frame_ms"], chosen["packet_ms"], chosen["coalesce_ms"]
    )
    source = _delivery(source_codec, bitrate if source_codec is delivery.codec else None, chosen["frame_ms"])
    figures = choose_figures(delivery, measurements, has_bitrate=bitrate is not None)
    machines = Machines(**{field.name: chosen[field.name] for field in fields(Machines)})
    prices = Prices(price_per_gb, price_per_core_hour)
    demands = [
        Demand(listeners, chosen["sessions"], chosen["channels"], delivery, source, chosen["storm_seconds"])
        for listeners in audiences
    ]
    plans = [make_plan(demand, machines, figures, prices) for demand in demands]
    assumptions = list(_assumptions(context, demands[0], machines, prices, figures))
    notes = remarks(delivery, measurements, 100 - machines.headroom_percent)
    if as_json:
        columns = [
            asdict(plan) | {"settings": _settings(demand, plan)} for demand, plan in zip(demands, plans, strict=True)
        ]
        lines = [asdict(assumption) for assumption in assumptions]
        show(json.dumps({"plans": columns, "assumptions": lines, "notes": notes}, indent=1))
        return
    settings = [_settings(demand, plan) for demand, plan in zip(demands, plans, strict=True)]
    show(render_table(_aligned(list(_rows(plans, settings)))) + "\n")
    show(render_table([("assumption", "value", "source"), *(assumption.row for assumption in assumptions)]))
    for note in notes:
        say(note)


def _delivery(codec: Codec, bitrate: int | None, frame_ms: int, packet_ms: int = 0, coalesce_ms: int = 0) -> Delivery:
    """Check the options about a codec.

    Raises:
        UserError: They contradict each other.
    """
    if packet_ms and codec is not Codec.OPUS:
        raise UserError("--packet-ms is for listeners of Opus; add --codec opus.")
    try:
        quiet_audio(codec, frame_ms)
    except ValueError as error:
        raise UserError(f"--frame-ms {frame_ms}: an Opus packet lasts a multiple of 5 ms, up to 120 ms.") from error
    usual = PCM_BITS_PER_SECOND if codec is Codec.PCM_S16LE else OPUS_BITS_PER_SECOND
    return Delivery(codec, bitrate or usual, frame_ms, packet_ms, coalesce_ms)


def _read_report(path: Path) -> Measurement:
    try:
        report = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"--measured {path} cannot be read: {error.strerror}.") from error
    except ValueError:
        report = None
    return read_measurement(path.name, report)


@dataclass(frozen=True, slots=True)
class Assumption:
    """One value on which the plan depends.

    Attributes:
        name: What the value is.
        value: The value; None if it is not given.
        unit: Its unit; empty for a count.
        source: Where it comes from.
    """

    name: str
    value: float | str | None
    unit: str
    source: str

    @property
    def row(self) -> tuple[str, str, str]:
        """The assumption as a line of the table."""
        if self.value is None:
            return self.name, _UNKNOWN, self.source
        text = self.value if isinstance(self.value, str) else f"{float(f'{self.value:.6g}'):,g}"
        return self.name, f"{text} {self.unit}".rstrip(), self.source


def _assumptions(
    context: click.Context, demand: Demand, machines: Machines, prices: Prices, figures: Figures
) -> Iterator[Assumption]:
    """Yield everything on which the plan depends, except the numbers of listeners."""

    def option(name: str, value: float | str | None, unit: str, parameter: str, flag: str) -> Assumption:
        is_default = context.get_parameter_source(parameter) is ParameterSource.DEFAULT
        return Assumption(name, value, unit, f"default of {flag}" if is_default else flag)

    delivery = demand.delivery
    yield option("sessions", demand.sessions, "", "sessions", "--sessions")
    yield option("channels of a session", demand.channels, "", "channels", "--channels")
    yield option("codec of listeners", delivery.codec.value, "", "codec", "--codec")
    yield option("codec of broadcasters", demand.source.codec.value, "", "source_codec", "--source-codec")
    yield option("audio of a listener", delivery.bits_per_second, "b/s", "bitrate", "--bitrate")
    yield option("frame", delivery.frame_ms, "ms", "frame_ms", "--frame-ms")
    yield option("packed message", delivery.packet_ms, "ms", "packet_ms", "--packet-ms")
    yield option("wait of a write", delivery.coalesce_ms, "ms", "coalesce_ms", "--coalesce-ms")
    yield option("free share of a core", machines.headroom_percent, "%", "headroom_percent", "--headroom")
    yield option("cores of a machine", machines.cores, "", "cores", "--cores")
    yield option("network of a machine", machines.gbps, "Gb/s", "gbps", "--gbps")
    yield option("regions, alike", machines.regions, "", "regions", "--regions")
    yield option("machines down, each region", machines.spare, "", "spare", "--spare")
    yield option("all join within", demand.storm_seconds, "s", "storm_seconds", "--storm")
    yield option("price of a gigabyte", prices.per_gb, "", "price_per_gb", "--price-per-gb")
    yield option("price of a core hour", prices.per_core_hour, "", "price_per_core_hour", "--price-per-core-hour")
    yield Assumption(
        "most listeners of a worker", MOST_LISTENERS, "", "limits.max_connections, and docs/performance.md"
    )
    yield Assumption("writes to a listener", delivery.writes_per_second, "/s", "frame, packed message, and wait")
    yield Assumption("bytes beside an entry", ENTRY_BYTES, "", "docs/scale.md: numbers, subject and protocol, at most")
    yield Assumption("headers of a segment", SEGMENT_BYTES, "", "IPv4, TCP with timestamps, Ethernet; TLS adds 22")
    for name, unit, figure in (
        ("bytes to a listener", "/s", figures.listener_bytes),
        ("CPU of a write", "µs", figures.write_us),
        ("CPU of a join", "µs", figures.join_us),
        ("CPU of a frame taken in", "µs", figures.entry_us),
        *((("CPU of encoding a channel", "µs/s", figures.encoder_us),) if demand.is_encoded else ()),
        ("CPU of NATS, each message", "µs", figures.nats_us),
        ("memory of a listener", "KiB", figures.listener_kib),
        ("memory of an idle worker", "MB", figures.worker_mb),
    ):
        yield Assumption(name, figure.value, unit, figure.source)
    yield Assumption("TLS and load balancers", None, "", "not counted: measure yours")


def _settings(demand: Demand, plan: Plan) -> dict[str, int]:
    """Return the settings whose defaults the plan exceeds, with the values that it needs."""
    needed = {
        "max_listeners_per_session": math.ceil(demand.listeners / demand.sessions),
        "max_broadcasters_per_session": demand.channels,
        "max_joins_per_second": math.ceil(plan.joins_per_second_per_worker),
    }
    limits = LimitSettings()
    return {f"limits.{name}": value for name, value in needed.items() if value > (getattr(limits, name) or math.inf)}


def _text(value: float | str, digits: int) -> str:
    """Format a value. Numbers that are not whole are rounded up to that many significant digits."""
    if isinstance(value, str):
        return value
    if value == int(value):
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(value)))
    scale = 10**decimals
    return f"{math.ceil(round(value * scale, 6)) / scale:,.{decimals}f}"


_ROWS = (
    ("machines", "machines", "", 3),
    ("  decided by", "decided_by", "", 0),
    ("  workers on each", "workers_per_machine", "", 3),
    ("  memory of each", "memory_gb_per_machine", "GB", 2),
    ("  most traffic of each", "out_gbps_per_machine_at_failure", "Gb/s", 3),
    ("  addresses of proxies for each", "proxy_addresses_per_machine", "", 3),
    ("listeners of a worker", "listeners_per_worker", "", 3),
    ("  with machines down", "listeners_per_worker_at_failure", "", 3),
    ("CPU of a worker", "cpu_percent_per_worker", "%", 2),
    ("  with machines down", "cpu_percent_per_worker_at_failure", "%", 2),
    ("  more, while all listeners join", "join_cpu_percent_per_worker", "%", 2),
    ("joins of a worker, if all join", "joins_per_second_per_worker", "/s", 3),
    ("open files of a worker", "files_per_worker", "", 3),
    ("to listeners", "out_gbps", "Gb/s", 3),
    ("  in an hour", "out_gb_per_hour", "GB", 3),
    ("to the machines, at most", "in_gbps", "Gb/s", 3),
    ("NATS servers", "nats_servers", "", 3),
    ("  leaf servers elsewhere", "leaf_servers", "", 3),
    ("  CPU of all", "nats_cores", "cores", 2),
    ("  memory of each", "nats_memory_mb", "MB", 2),
    ("  from homes", "nats_in_mbps", "Mb/s", 2),
    ("  to workers", "nats_out_mbps", "Mb/s", 2),
    ("  to each other region", "nats_mbps_to_each_region", "Mb/s", 2),
    ("cost of traffic in an hour", "traffic_cost_per_hour", "", 3),
    ("cost of machines in an hour", "machine_cost_per_hour", "", 3),
)
"""The lines of the table: a label, an attribute of the plan, its unit, and the number of significant digits."""


def _rows(plans: Sequence[Plan], settings: Sequence[Mapping[str, int]]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table, except those without a value for any audience."""
    yield ("listeners", *(f"{plan.listeners:,}" for plan in plans))
    for label, attribute, unit, digits in _ROWS:
        values = [getattr(plan, attribute) for plan in plans]
        if any(values):
            yield (label, *(f"{_text(value, digits)} {unit}".rstrip() for value in values))
    for name in dict.fromkeys(name for needed in settings for name in needed):
        yield (name, *(f"{needed[name]:,}" if name in needed else "default" for needed in settings))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Align the texts of each column but the first to the right."""
    names, *columns = zip(*rows, strict=True)
    right = [[text.rjust(max(map(len, column))) for text in column] for column in columns]
    return list(zip(names, *right, strict=True))
