"""The benchmarks at a small size: every installed server and every measurement of the relay."""

from collections.abc import Callable

import pytest

from relay.loadtest.plan import LoadPlan
from relay.vocabulary.audio import Codec
from tests.bench import beside, renditions, storm
from tests.bench.age import measure_ages
from tests.bench.bench import Bench
from tests.bench.bus import measure_bus
from tests.bench.measure import measure
from tests.bench.servers import GENERATOR_CPU, SERVER_CPU, Server, StartError, peers, relay, serving

pytestmark = pytest.mark.timed

PLAN = LoadPlan("", listeners=10, duration_seconds=0.5, nap_ms=1)
FRAMES = 25

INSTALLED = {server.name: server for server in [relay(), *peers()] if server.missing is None}


def test_what_needs_nothing_is_there() -> None:
    assert {"relay", "websockets.broadcast()", "a task for each listener"} <= set(INSTALLED)


@pytest.mark.parametrize("server", INSTALLED.values(), ids=INSTALLED.keys())
def test_every_listener_of_every_server_gets_every_frame(server: Server) -> None:
    measured = measure(server, PLAN)
    assert (measured["published_frames"], measured["joins"]) == (FRAMES, 10)
    assert (measured["delivered_frames"], measured.lost) == (10 * FRAMES, 0)
    assert measured["server_cpu_us_per_delivery"] >= 0
    assert measured["p99_ms"] < 2000
    assert measured.result.ended_early is None
    assert [disturbance.cpu for disturbance in measured.disturbances] == [SERVER_CPU, GENERATOR_CPU]


def test_a_server_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(StartError, match=r"relay did not start; it said: .*RELAY_SERVER_HOST"),
        serving(relay(RELAY_SERVER_HOST="")),
    ):
        raise AssertionError("it runs")


@pytest.fixture
def bench() -> Bench:
    return Bench(rounds=2, seconds=1, nap_ms=0)


def test_a_crowd_is_measured_apart_from_those_inside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storm, "PRESENT", 5)
    monkeypatch.setattr(storm, "CROWD", 20)
    inside, crowd = storm.measure_storm(bench, relay())
    frames = (bench.seconds + storm.BEFORE_SECONDS) * 50
    assert (inside["joins"], inside["delivered_frames"], inside.lost) == (5, 5 * frames, 0)
    assert (crowd["joins"], crowd.lost) == (20, 0)
    # The crowd joined in the middle.
    assert 0 < crowd["delivered_frames"] < 20 * (frames - 50)


def test_a_small_channel_is_measured_beside_a_large_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "LARGE", 20)
    monkeypatch.setattr(beside, "SMALL", 5)
    large, small = beside.measure_beside(bench, relay())
    frames = bench.seconds * 50
    assert (small["delivered_frames"], small.lost) == (5 * frames, 0)
    assert (large["delivered_frames"], large.lost) == (20 * (frames + beside.BOTH_SECONDS * 50), 0)


def test_throttled_listeners_see_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.age.SLOW_SECONDS", 4.0)
    for ages in measure_ages(relay(), (500, 1000), (0.25, 0.5)):
        assert ages.gaps > 1
        assert 0.5 * ages.bound_ms < ages.written_ms <= ages.bound_ms + 60
        assert ages.read_ms > ages.written_ms


def test_runs_that_are_compared_alternate(bench: Bench) -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], int]:
        def append() -> int:
            order.append(name)
            return len(order)

        return append

    assert bench.alternate({"one": run("one"), "two": run("two")}) == {"one": [1, 3], "two": [2, 4]}
    assert order == ["one", "two", "one", "two"]


def test_channels_are_encoded_beside_each_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renditions, "CHANNELS", 2)
    opus, plain = (renditions.measure_channels(bench, codec) for codec in (Codec.OPUS, Codec.PCM_S16LE))
    assert (opus.lost, plain.lost) == (0, 0)
    assert 0 < opus.bytes_per_second < plain.bytes_per_second
    assert opus.lag_p99_ms > 0


def test_a_message_of_the_bus_is_measured() -> None:
    measured = measure_bus(seconds=0.5)
    assert measured.lost == 0
    assert 0 < measured.p50_ms <= measured.p99_ms
    assert min(measured.sender_us, measured.receiver_us) > 0
