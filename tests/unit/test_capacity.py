"""The arithmetic of `relay plan`: it agrees with the documented formulas, and it is monotonic."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.capacity.delivery import Delivery
from relay.capacity.figures import Figure, Figures, Measurement, choose_figures, read_measurement, remarks
from relay.capacity.plan import MOST_LISTENERS, Bound, Demand, Machines, Plan, Prices, make_plan
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import UserError

PCM = Delivery(Codec.PCM_S16LE, 256_000)
OPUS = Delivery(Codec.OPUS, 24_000)
OPUS_60 = replace(OPUS, packet_ms=60)
MACHINES = Machines(regions=1, cores=8, gbps=5.0, headroom_percent=50.0, spare=1)
NO_PRICES = Prices()


def demand(listeners: int, delivery: Delivery = PCM, **more: Any) -> Demand:
    values: dict[str, Any] = {"sessions": 1, "channels": 1, "source": PCM, "storm_seconds": 60.0} | more
    return Demand(listeners, delivery=delivery, **values)


def plan(wanted: Demand, machines: Machines = MACHINES, prices: Prices = NO_PRICES, **changed: Figure) -> Plan:
    figures = choose_figures(wanted.delivery, [], has_bitrate=False)
    return make_plan(wanted, machines, replace(figures, **changed), prices)


@pytest.mark.parametrize(
    ("delivery", "bytes_per_second"),
    [(PCM, 36_900), (OPUS, 7_800), (OPUS_60, 4_733), (replace(OPUS, packet_ms=100), 4_080)],
)
def test_the_bytes_are_those_of_the_guide(delivery: Delivery, bytes_per_second: int) -> None:
    assert math.floor(delivery.wire_bytes_per_second) == bytes_per_second


def test_frames_that_are_written_together_share_a_segment() -> None:
    together = replace(PCM, coalesce_ms=40)
    assert (together.writes_per_second, together.segments_per_second) == (25, 25)
    assert replace(PCM, coalesce_ms=60).segments_per_second == pytest.approx(2 * 50 / 3)
    assert together.wire_bytes_per_second == 36_900 - 25 * 78


def test_a_million_listeners_of_pcm() -> None:
    found = plan(demand(1_000_000), replace(MACHINES, headroom_percent=40.0, spare=0))
    assert found.out_gbps == pytest.approx(295.2)
    # listeners × writes per second × µs ÷ what 50 frames a second leave of 600 000
    assert found.machines == math.ceil(1_000_000 * 50 * 7.5 / (600_000 - 50 * 200) / 8)
    assert found.decided_by is Bound.CPU
    assert found.cpu_percent_per_worker_at_failure <= 60


@pytest.mark.parametrize(
    ("bound", "machines", "changed"),
    [
        (Bound.NETWORK, replace(MACHINES, gbps=0.1), {}),
        (Bound.CONNECTIONS, MACHINES, {"write_us": Figure(0.1, ""), "join_us": Figure(1.0, "")}),
        (Bound.JOINS, MACHINES, {"join_us": Figure(30_000.0, "")}),
    ],
)
def test_each_bound_decides_where_it_is_the_narrowest(
    bound: Bound, machines: Machines, changed: dict[str, Any]
) -> None:
    found = plan(demand(500_000, OPUS_60), machines, **changed)
    assert found.decided_by is bound
    assert found.listeners_per_worker_at_failure <= MOST_LISTENERS
    assert found.out_gbps_per_machine_at_failure <= machines.gbps
    assert found.join_cpu_percent_per_worker <= 50.1


def test_a_single_worker_needs_no_nats_and_one_machine_has_its_own() -> None:
    alone = replace(MACHINES, spare=0)
    one, several = plan(demand(100), alone), plan(demand(8000), alone)
    assert (one.machines, one.workers_per_machine, one.nats_servers, one.nats_out_mbps) == (1, 1, 0, 0)
    assert (several.machines, several.workers_per_machine, several.nats_servers) == (1, 7, 1)
    assert (plan(demand(100)).machines, plan(demand(100)).nats_servers) == (2, 3)


def test_each_region_has_leaf_servers_and_machines_to_spare() -> None:
    found = plan(demand(90_000), replace(MACHINES, regions=3))
    alone = plan(demand(30_000))
    assert (found.machines, found.nats_servers, found.leaf_servers) == (3 * alone.machines, 3, 4)
    assert found.nats_mbps_to_each_region == found.nats_in_mbps > 0
    assert alone.nats_mbps_to_each_region == 0


def test_a_worker_takes_in_only_channels_that_it_has_listeners_of() -> None:
    # Each of 1000 listeners hears a channel of its own, which its worker encodes for it alone.
    found = plan(demand(1000, OPUS, channels=1000))
    each = 50 * 7.5 + 50 * 60 + 12_800
    assert found.listeners_per_worker_at_failure <= 500_000 / each
    assert found.cpu_percent_per_worker_at_failure <= 50
    same_codec = plan(demand(1000, OPUS, channels=1000, source=OPUS))
    assert same_codec.machines < found.machines


def test_costs_need_prices() -> None:
    found = plan(demand(1000), prices=Prices(0.05, 0.02))
    assert found.traffic_cost_per_hour == pytest.approx(0.05 * 36_900 * 1000 * 3600 / 1e9)
    assert found.machine_cost_per_hour == pytest.approx(0.02 * 8 * found.machines)
    assert (plan(demand(1000)).traffic_cost_per_hour, plan(demand(1000)).machine_cost_per_hour) == (None, None)


@pytest.mark.parametrize(
    ("wanted", "machines", "words"),
    [
        (demand(1), replace(MACHINES, headroom_percent=99.99), "lower --headroom"),
        (demand(1), replace(MACHINES, gbps=1e-4), "raise --gbps"),
        (demand(1), replace(MACHINES, headroom_percent=0.0), "raise --headroom or --storm"),
    ],
)
def test_what_cannot_carry_one_listener_says_what_to_change(wanted: Demand, machines: Machines, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(wanted, machines)


numbers = st.integers(1, 3_000_000)
deliveries = st.builds(
    Delivery,
    st.just(Codec.OPUS),
    st.integers(6000, 256_000),
    st.sampled_from([20, 40, 60]),
    st.integers(0, 100),
    st.integers(0, 200),
)
demands = st.builds(
    Demand, numbers, st.integers(1, 50), st.integers(1, 50), deliveries, st.sampled_from([PCM, OPUS]), st.floats(1, 600)
)
machine_kinds = st.builds(
    Machines, st.integers(1, 5), st.integers(1, 64), st.floats(0.1, 100), st.floats(10, 90), st.integers(0, 3)
)
FIGURES = choose_figures(PCM, [], has_bitrate=True)


def planned(wanted: Demand, machines: Machines, figures: Figures | None = None) -> Plan:
    chosen = figures or choose_figures(wanted.delivery, [], has_bitrate=True)
    return make_plan(wanted, machines, chosen, Prices(1.0, 1.0))


@given(demands, machine_kinds)
def test_nothing_is_negative_and_everything_fits(wanted: Demand, machines: Machines) -> None:
    found = planned(wanted, machines)
    amounts = [getattr(found, field.name) for field in fields(found) if field.name != "decided_by"]
    assert all(amount >= 0 and math.isfinite(amount) for amount in amounts)
    assert found.machines % machines.regions == 0
    carrying = found.machines - machines.spare * machines.regions
    assert carrying * found.workers_per_machine * found.listeners_per_worker_at_failure >= wanted.listeners
    assert found.listeners_per_worker <= found.listeners_per_worker_at_failure <= MOST_LISTENERS
    assert found.cpu_percent_per_worker_at_failure <= 100 - machines.headroom_percent + 1e-6
    assert found.out_gbps_per_machine_at_failure <= machines.gbps + 1e-9
    assert found.workers_per_machine <= machines.cores


@given(demands, machine_kinds, numbers)
def test_more_listeners_never_need_less(wanted: Demand, machines: Machines, more: int) -> None:
    fewer, larger = planned(wanted, machines), planned(replace(wanted, listeners=wanted.listeners + more), machines)
    for name in ("machines", "workers_per_machine", "out_gbps", "out_gb_per_hour", "machine_cost_per_hour"):
        assert getattr(fewer, name) <= getattr(larger, name), name


@given(demands, machine_kinds, st.integers(1, 500))
def test_more_channels_never_need_fewer_machines(wanted: Demand, machines: Machines, more: int) -> None:
    larger = replace(wanted, channels=wanted.channels + more)
    assert planned(wanted, machines).machines <= planned(larger, machines).machines


@given(demands, machine_kinds, st.sampled_from([field.name for field in fields(Figures)]), st.floats(1, 3))
def test_a_worse_figure_never_needs_fewer_machines(
    wanted: Demand, machines: Machines, name: str, factor: float
) -> None:
    figures = choose_figures(wanted.delivery, [], has_bitrate=True)
    worse = replace(figures, **{name: Figure(getattr(figures, name).value * factor, "")})
    assert planned(wanted, machines, figures).machines <= planned(wanted, machines, worse).machines


def report(codec: str = "opus", packet_ms: int = 0, **metrics: float | None) -> dict[str, Any]:
    measured = {
        "delivered_frames": 1000,
        "server_cpu_us_per_delivery": 10.0,
        "server_cpu_us_per_join": 500.0,
        "server_kib_per_listener": 8.0,
        "kbps_per_listener": 40.0,
        "server_rss_before_mb": 70.0,
        "server_cpu_percent": 20.0,
    }
    wanted = {"codec": codec, "packet_ms": packet_ms, "frame_ms": 20, "listeners": 1000}
    return {"plan": wanted, "metrics": measured | metrics}


def measured(name: str, **values: Any) -> Measurement:
    return read_measurement(name, report(**values))


def test_a_report_replaces_what_it_measured() -> None:
    figures = choose_figures(OPUS_60, [measured("a.json", packet_ms=60)], has_bitrate=False)
    assert figures.write_us == Figure(30.0, "a.json: 1,000 listeners, opus in messages of 60 ms")
    assert (figures.join_us.value, figures.listener_kib.value, figures.worker_mb.value) == (500, 8, 70)
    assert figures.listener_bytes.value == pytest.approx(5000 + 78 * 50 / 3)
    assert figures.entry_us.source.startswith("docs/")
    assert choose_figures(OPUS_60, [measured("a.json", packet_ms=60)], has_bitrate=True).listener_bytes.value < 5000


def test_only_a_report_of_the_same_messages_counts_and_of_several_the_worst() -> None:
    pcm, opus = measured("pcm.json", codec="pcm_s16le", server_cpu_us_per_delivery=50.0), measured("opus.json")
    packed, slower = (
        measured("60.json", packet_ms=60),
        measured("60b.json", packet_ms=60, server_cpu_us_per_delivery=11),
    )
    assert choose_figures(OPUS_60, [pcm, opus, packed, slower], has_bitrate=False).write_us.value == 33
    # Reports of other messages say nothing about the writes, but something about joins.
    figures = choose_figures(OPUS_60, [pcm, opus], has_bitrate=False)
    assert figures.write_us.source.startswith("docs/performance.md: packed Opus")
    assert figures.join_us.source.startswith("pcm.json")


def test_what_a_report_lacks_comes_from_the_documentation() -> None:
    elsewhere = measured("a.json", server_cpu_us_per_delivery=None, server_cpu_us_per_join=None)
    figures = choose_figures(OPUS, [elsewhere], has_bitrate=False)
    assert figures.write_us.source.startswith("docs/performance.md")
    assert figures.join_us.source.startswith("docs/performance.md")
    assert figures.listener_kib.source.startswith("a.json")


def test_a_busy_relay_is_no_measure_for_a_calm_one() -> None:
    busy = [
        measured("a.json", server_cpu_percent=95.0),
        measured("b.json"),
        measured("c.json", server_cpu_percent=None),
    ]
    (sentence,) = remarks(OPUS, busy, 50.0)
    assert sentence.startswith("a.json is of a relay that used 95 % of a core.")


def test_reports_of_other_messages_are_remarked_upon() -> None:
    (sentence,) = remarks(OPUS_60, [measured("a.json")], 50.0)
    assert sentence.startswith("No report measured the CPU time of writes like these")
    assert remarks(OPUS_60, [measured("a.json", packet_ms=60)], 50.0) == remarks(OPUS_60, [], 50.0) == []


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"plan": 1, "metrics": {}},
        report(codec="mp3"),
        report(server_cpu_us_per_join=-1.0),
        report(server_cpu_us_per_join=float("nan")),
        report() | {"plan": {"codec": "opus", "packet_ms": 0, "frame_ms": 0, "listeners": 1}},
        report() | {"plan": {"codec": "opus", "packet_ms": "x", "frame_ms": 20, "listeners": 1}},
        report() | {"metrics": {}},
    ],
)
def test_what_is_no_report_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match=r"^a.json is not a report of a load test; write one with `relay loadtest"):
        read_measurement("a.json", wrong)


def test_a_test_that_delivered_nothing_measured_nothing() -> None:
    with pytest.raises(UserError, match="no listener received audio"):
        read_measurement("a.json", report(delivered_frames=0))
