"""The rows of the table: what each row measures and how it reports the result."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from relay.loadtest.plan import Profile
from relay.media.transcoding import OpusEncoding
from relay.vocabulary.audio import Codec
from tests.bench import nodes, opus
from tests.bench.age import ALLOWED_MS, BOUNDS_MS, SPEEDS, measure_ages
from tests.bench.bench import Bench, figures, spread
from tests.bench.beside import LARGE, SMALL, measure_beside
from tests.bench.bus import PER_SECOND, SUBJECTS, measure_bus
from tests.bench.measure import Measured
from tests.bench.renditions import CHANNELS, measure_channels
from tests.bench.report import Spread, ratios
from tests.bench.servers import Server, relay
from tests.bench.storm import CROWD, PRESENT, measure_storm
from tests.support.signals import SHIPPED_VOICE, read_wav

CPU = "server_cpu_us_per_delivery"
REFERENCE = "websockets.broadcast()"
COALESCING = "relay, coalescing 40 ms"
NEVER = {"RELAY_LISTENER_STALL_LIMIT_SECONDS": "never"}

OPUS = {"source_codec": Codec.OPUS, "codec": Codec.OPUS}

COUNTS = (2000, 4000, 6000, 8000, 10_000)
LATE_SHARE = 10.0
"""A server that delivers more than this percentage of frames late is not tested with more listeners."""


def row_cpu(bench: Bench) -> None:
    """CPU per delivery at 1000 listeners × 50/s against the others, and with frames that wait for each other."""
    servers = [*bench.relays, relay(COALESCING, RELAY_LISTENER_COALESCE_MS="40"), *bench.peers]
    runs = bench.alternate({server.name: partial(bench.measure, server, 1000) for server in servers})
    reference, plain = figures(runs[REFERENCE], CPU), figures(runs["relay"], CPU)
    for name, results in runs.items():
        cost = figures(results, CPU)
        share = ratios(cost, plain if name == COALESCING else reference)
        figure = (
            f"**{share.text(2)}**, {Spread(cost).text(1)} µs, p50 {spread(results, 'p50_ms').median:.0f} ms, "
            f"p99 {spread(results, 'p99_ms').text()} ms"
        )
        if name == COALESCING:
            what = "CPU per delivery, coalescing 40 ms against 0"
            bench.row(what, figure, share.median, [*results, *runs["relay"]], least=0.50, aim=0.40)
            continue
        what = f"CPU per delivery, 1000 × 50/s, against `{REFERENCE}`: {name}"
        targets = {"least": 0.80, "aim": 0.65} if name.startswith("relay") else {}
        bench.row(what, figure, share.median, [*results, *runs[REFERENCE]], **targets)


def row_capacity(bench: Bench) -> None:
    """From 2000 to 10,000 listeners on one core: who keeps up, for how many, and the memory of a listener."""
    runs: dict[str, dict[int, list[Measured]]] = {server.name: {} for server in [*bench.relays, *bench.peers]}
    tired: set[str] = set()
    for count in COUNTS:
        for server in [*bench.relays, *bench.peers]:
            if server.name not in tired:
                run = bench.measure(server, count)
                runs[server.name][count] = [run]
                late = run.result.metrics()["late_percent"]
                if (late is None or late > LATE_SHARE or run.lost) and not server.name.startswith("relay"):
                    tired.add(server.name)
    targets = {4000: (120, 60), 8000: (300, None), 10_000: (None, 250)}
    for _ in range(bench.rounds - 1):
        for count in targets:
            runs["relay"][count].append(bench.measure(relay(), count))
    bench.report.capacity = {
        name: {count: capacity_cell(results) for count, results in cells.items()} for name, cells in runs.items()
    }
    for server in bench.relays:
        for count, (least, aim) in targets.items():
            results = runs[server.name][count]
            lost = max(run.lost for run in results)
            p99 = spread(results, "p99_ms")
            figure = f"p99 **{p99.text()}** ms, p50 {spread(results, 'p50_ms').text()} ms, lost {lost:g}"
            value = math.inf if lost else p99.median
            what = f"{count:,} × 50/s on one core: {server.name}"
            bench.row(what, figure, value, results, least=least, aim=aim, unit=" ms")
    results = runs["relay"][4000]
    each = spread(results, "server_kib_per_listener")
    bench.row("memory per listener, of 4,000", f"**{each.text(1)}** KiB", each.median, results, least=20, aim=14)


def capacity_cell(runs: Sequence[Measured]) -> str:
    """Summarize the fate of all frames."""
    if trouble := next((run.trouble for run in runs if run.result.failures), None):
        return trouble
    late = spread(runs, "late_percent").median
    p99 = spread(runs, "p99_ms").median
    shown = f"p99 {p99:.0f} ms" if p99 < 1000 else f"p99 {p99 / 1000:.1f} s"
    lost = max(run.lost for run in runs)
    got = f"{lost:,.0f} lost" if lost else "all"
    # A frame that is more than 200 ms late leaves a hole in the audio of a player that buffers 200 ms.
    return f"{got}, {shown}" if late < 1 else f"{got}, {late:.0f} % late, {shown}"


def row_stalled(bench: Bench) -> None:
    """Healthy listeners beside one that does not read, and the memory of a hundred of them."""
    keeping = relay(**NEVER)

    def slow(percent: float) -> Callable[[], Measured]:
        return partial(bench.measure, keeping, 1000, profile=Profile.SLOW, slow_percent=percent)

    healthy: Callable[[], Measured] = partial(bench.measure, keeping, 1000)
    runs = bench.alternate({"none": healthy, "one": slow(0.1), "hundred": slow(10)})
    none, one, hundred = runs["none"], runs["one"], runs["hundred"]
    share = ratios(figures(one, "p99_ms"), figures(none, "p99_ms"))
    lost = max(run.lost for run in [*one, *hundred])
    figure = (
        f"**{share.text(2)}**, {spread(one, 'p99_ms').text()} against {spread(none, 'p99_ms').text()} ms; "
        f"the healthy lost {lost:g}"
    )
    what = "1 stalled + 999 healthy: p99 of the healthy against none stalled"
    bench.row(what, figure, math.inf if lost else share.median, [*one, *none], least=1.2, aim=1.05)
    peak = "server_uss_peak_mb"
    extra = Spread(tuple(a - b for a, b in zip(figures(hundred, peak), figures(none, peak), strict=True)))
    what = "100 stalled of 1000: extra memory"
    bench.row(what, f"**{extra.text(1)}** MB", extra.median, [*hundred, *none], least=10, aim=2, unit=" MB")


def row_joining(bench: Bench) -> None:
    """A thousand listeners come in the same moment to a channel that five hundred listen to."""

    def storm(server: Server) -> tuple[Measured, Measured]:
        bench.say(f"{server.name}: {CROWD} join {PRESENT}")
        return measure_storm(bench, server)

    for name, pairs in bench.alternate({server.name: partial(storm, server) for server in bench.relays}).items():
        inside, crowd = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        seconds = Spread(tuple(value / 1000 for value in figures(crowd, "join_max_ms")))
        late = max(figures(inside, "late_frames"))
        failed = max(figures(crowd, "join_failures"))
        figure = (
            f"**{seconds.text(2)}** s, {failed:g} failed; of those inside {late:g} frames later than 200 ms, "
            f"p99 {spread(inside, 'p99_ms').text()} ms"
        )
        what = f"{CROWD} listeners join at once during a broadcast to {PRESENT}: {name}"
        value = math.inf if late or failed else seconds.median
        bench.row(what, figure, value, inside, least=2, aim=0.5, unit=" s")


def row_beside(bench: Bench) -> None:
    """Ten listeners of a channel of their own, beside one that four thousand listen to."""

    def beside(server: Server) -> tuple[Measured, Measured]:
        bench.say(f"{server.name}: {SMALL} listeners beside {LARGE}")
        return measure_beside(bench, server)

    for name, pairs in bench.alternate({server.name: partial(beside, server) for server in bench.relays}).items():
        large, small = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        lost = max(run.lost for run in [*large, *small])
        p99 = spread(small, "p99_ms")
        figure = f"p99 **{p99.text()}** ms, of the large one {spread(large, 'p99_ms').text()} ms; lost {lost:g}"
        what = f"{SMALL} listeners beside a channel of {LARGE}: {name}"
        bench.row(what, figure, math.inf if lost else p99.median, [*large, *small], least=120, aim=60, unit=" ms")


def row_age(bench: Bench) -> None:
    """The oldest frame written to listeners that read too slowly, at several speeds, for each of several bounds."""
    for server in bench.relays:
        bench.say(f"{server.name}: listeners at {SPEEDS[0]:.0%} to {SPEEDS[-1]:.0%} of the speed")
        measured = measure_ages(server)
        for bound_ms in BOUNDS_MS:
            ages = [one for one in measured if one.bound_ms == bound_ms]
            oldest = max(ages, key=lambda one: one.written_ms)
            figure = (
                f"**{oldest.written_ms}** ms, at {oldest.speed:.0%} of the speed; "
                f"{sum(one.gaps for one in ages)} gaps, all accounted for"
            )
            over_ms = oldest.written_ms - bound_ms
            what = f"age of the oldest frame written, of a bound of {bound_ms} ms: {server.name}"
            bench.row(what, figure, over_ms, [], least=ALLOWED_MS, aim=0, unit=" ms over the bound")


def row_receiver(bench: Bench) -> None:
    """What a server is billed for waking the receiver: one that each frame wakes, and ones that nap."""
    naps = {"woken by each frame": 0.0, "naps of 0.5 ms": 0.5, "naps of 1 ms": 1.0, "naps of 2 ms": 2.0}
    servers = [bench.relays[0], *(peer for peer in bench.peers if peer.name == REFERENCE)]
    runs = bench.alternate(
        {
            f"{name}, {server.name}": partial(bench.measure, server, 1000, nap_ms=nap)
            for server in servers
            for name, nap in naps.items()
        }
    )
    for name, results in runs.items():
        kind, _, server = name.partition(", ")
        woken = figures(runs[f"woken by each frame, {server}"], CPU)
        cost = figures(results, CPU)
        figure = (
            f"**{ratios(cost, woken).text(2)}**, {Spread(cost).text(1)} µs, p50 {spread(results, 'p50_ms').text()} ms, "
            f"p99 {spread(results, 'p99_ms').text()} ms, generator {spread(results, 'generator_busy_percent').text()} %"
        )
        bench.row(f"CPU per delivery of {server}, receiver {kind}", figure, ratios(cost, woken).median, results)


def row_encoder(bench: Bench) -> None:
    """CPU of one channel's Opus encoder at 16 kHz, at each complexity."""
    voice, _ = read_wav(SHIPPED_VOICE.read_bytes())
    runs = bench.alternate({str(each): partial(opus.measure_cost, voice, each) for each in opus.COMPLEXITIES})
    usual = runs[str(OpusEncoding().complexity)]
    for complexity, costs in runs.items():
        share = ratios(costs, usual)
        percent = Spread(tuple(100 * cost for cost in costs)).text(2)
        what = f"CPU of an Opus encoder, complexity {complexity} against {OpusEncoding().complexity}"
        bench.row(what, f"**{share.text(2)}**, {percent} % of a core", share.median, [])


def row_quality(bench: Bench) -> None:
    """Quality of speech in Opus, by wideband PESQ (needs `pip install pesq` and eSpeak NG)."""
    for name, voice in opus.voices().items():
        for complexity in opus.COMPLEXITIES:
            encodings = [OpusEncoding(bitrate, complexity) for bitrate in opus.BITRATES]
            heard = [opus.measure_quality(voice, encoding) for encoding in encodings]
            figure = ", ".join(f"**{each.mos:.2f}** ({each.kilobits:.0f} kb/s)" for each in heard)
            rates = ", ".join(f"{bitrate // 1000}" for bitrate in opus.BITRATES)
            what = f"MOS at {rates} kb/s, complexity {complexity}: {name}"
            bench.row(what, figure, heard[0].mos, [])


def row_opus(bench: Bench) -> None:
    """Listeners of Opus on one core: their CPU against PCM, their bytes, and 10,000 of them."""
    asked: dict[str, dict[str, Any]] = {"PCM": {}, "Opus": OPUS}
    asked |= {f"Opus, {ms} ms a message": {**OPUS, "packet_ms": ms} for ms in (40, 60)}
    runs = bench.alternate({name: partial(bench.measure, relay(), 1000, **ask) for name, ask in asked.items()})
    for name in list(asked)[1:]:
        cost = ratios(figures(runs[name], CPU), figures(runs["PCM"], CPU))
        figure = (
            f"**{cost.text(2)}**, {spread(runs[name], CPU).text(1)} µs, lost {max(run.lost for run in runs[name]):g}"
        )
        what = f"CPU of a frame for a listener, 1000 × 50/s, against PCM: {name}"
        bench.row(what, figure, cost.median, [*runs[name], *runs["PCM"]])
    packed = runs["Opus, 60 ms a message"]
    size = ratios(figures(packed, "kbps_per_listener"), (8.0,) * len(packed))
    figure = f"**{size.text(1)}** kB a second, of PCM {spread(runs['PCM'], 'kbps_per_listener').median / 8:.1f} kB"
    bench.row("bytes of a listener of Opus, 60 ms in a message", figure, size.median, packed, aim=4.5, unit=" kB")
    crowd = [bench.measure(relay(), 10_000, **OPUS, packet_ms=60) for _ in range(bench.rounds)]
    lost = max(run.lost for run in crowd)
    p99 = spread(crowd, "p99_ms")
    figure = f"p99 **{p99.text()}** ms, {spread(crowd, 'server_cpu_percent').text()} % of the core, lost {lost:g}"
    what = "10,000 listeners of Opus, 60 ms in a message, on one core"
    bench.row(what, figure, math.inf if lost else p99.median, crowd, least=250, unit=" ms")


def row_renditions(bench: Bench) -> None:
    """64 channels that are encoded at once: CPU of a channel, bytes of a listener, and the lag of the event loop."""
    runs = bench.alternate({codec: partial(measure_channels, bench, codec) for codec in Codec})
    coded, plain = runs[Codec.OPUS], runs[Codec.PCM_S16LE]
    lost = sum(run.lost for run in coded)
    lag = Spread(tuple(run.lag_p99_ms for run in coded))
    figure = f"p99 **{lag.text()}** ms, of PCM {Spread(tuple(run.lag_p99_ms for run in plain)).text()} ms, lost {lost}"
    what = f"{CHANNELS} channels encoded at once: lag of the event loop"
    bench.row(what, figure, math.inf if lost else lag.median, [], least=5, unit=" ms")
    cost = Spread(tuple(one.cpu_percent - other.cpu_percent for one, other in zip(coded, plain, strict=True)))
    bench.row("encoding a channel", f"**{cost.text(2)}** % of a core", cost.median, [], least=1.2, aim=0.8, unit=" %")
    size = ratios(tuple(run.bytes_per_second for run in coded), tuple(run.bytes_per_second for run in plain))
    figure = f"**{size.text(2)}**, {Spread(tuple(run.bytes_per_second for run in coded)).text()} bytes a second"
    bench.row("bytes of a listener of Opus against PCM, 20 ms in a message", figure, size.median, [], least=0.25)


def row_bus(bench: Bench) -> None:
    """Messages between two nodes, through NATS: their latency, and the CPU time of each."""
    runs = bench.alternate({"bus": partial(measure_bus, bench.seconds)})["bus"]
    lost = sum(run.lost for run in runs)
    p50, p99 = Spread(tuple(run.p50_ms for run in runs)), Spread(tuple(run.p99_ms for run in runs))
    figure = f"p50 **{p50.text(2)}** ms, p99 {p99.text(1)} ms, lost {lost}"
    what = f"the bus, {SUBJECTS} channels × {PER_SECOND}/s: from one node to another"
    bench.row(what, figure, math.inf if lost else p50.median, [], least=1, unit=" ms")
    costs = {
        name: Spread(tuple(getattr(run, f"{name}_us") for run in runs)) for name in ("sender", "receiver", "server")
    }
    figure = ", ".join(f"{name} **{cost.text()}** µs" for name, cost in costs.items())
    bench.row("the bus: CPU of a message", figure, costs["sender"].median, [], least=60, unit=" µs")


def row_nodes(bench: Bench) -> None:
    """Two nodes of a cluster: how much later the listeners of the other one hear, and what a frame costs both."""
    counts = (nodes.FEW_CHANNELS, nodes.CHANNELS)
    both = bench.alternate({str(count): partial(nodes.measure_nodes, bench.seconds, count) for count in counts})
    alone = bench.alternate({str(count): partial(nodes.measure_alone, bench.seconds, count) for count in (1, 2)})
    for count, runs in both.items():
        lost = sum(run.lost for run in runs)
        what = f"{count} channels × {nodes.PER_SECOND}/s: how much later another node's listeners hear"
        for percent, least in ((50, 1.0), (99, 5.0)):
            later = Spread(tuple(run.later_ms[len(run.later_ms) * percent // 100] for run in runs))
            figure = f"p{percent} **{later.text(2)}** ms, lost {lost}"
            bench.row(what, figure, math.inf if lost else later.median, [], least=least, unit=" ms")
    one = Spread(tuple(alone["1"]))
    delivery = Spread(tuple(two - first for two, first in zip(alone["2"], alone["1"], strict=True)))
    runs = both[str(nodes.CHANNELS)]
    for node, cost, rest, name in (
        ("at its home", Spread(tuple(run.home_us for run in runs)), one, "a relay without a cluster"),
        ("at another node", Spread(tuple(run.other_us for run in runs)), delivery, "its delivery to a listener"),
    ):
        figure = f"**{cost.text()}** µs, of which {name} takes {rest.text()} µs"
        bench.row(f"CPU of a frame {node}", figure, cost.median - rest.median, [], least=60, unit=" µs")


ROWS: dict[str, Callable[[Bench], None]] = {
    "cpu": row_cpu,
    "stalled": row_stalled,
    "joining": row_joining,
    "beside": row_beside,
    "age": row_age,
    "opus": row_opus,
    "renditions": row_renditions,
    "capacity": row_capacity,
    "encoder": row_encoder,
}
"""The rows that run by default."""

WITHOUT_SERVERS = frozenset({"bus", "encoder", "nodes", "quality"})
"""Rows that do not measure a server."""

WITHOUT_PEERS = frozenset({"stalled", "joining", "beside", "age", "opus", "renditions"}) | WITHOUT_SERVERS
"""Rows that measure only the relay."""

MORE_ROWS: dict[str, Callable[[Bench], None]] = {
    "bus": row_bus,
    "nodes": row_nodes,
    "receiver": row_receiver,
    "quality": row_quality,
}
"""Rows that run only on request."""
