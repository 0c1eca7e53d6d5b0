"""Metric data: merging stays exact, held data stays bounded, and a failing sender disturbs nothing."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.metrics.metrics import (
    MAX_DISTINCT_VALUES,
    MAX_REQUEST_DATUMS,
    MAX_REQUEST_VALUES,
    METRICS_NOT_SENT,
    MergedDatum,
    MetricBatch,
    MetricDatum,
    Unit,
    requests,
)
from relay.metrics.reporter import MetricsReporter, SendError
from relay.settings.settings import CloudWatchSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)

Series = tuple[str, str, tuple[tuple[str, str], ...]]


def datum(name: str, value: float, unit: Unit = "Count", session: str | None = None) -> MetricDatum:
    plain: MetricDatum = {"MetricName": name, "Value": value, "Unit": unit}
    return plain if session is None else {**plain, "Dimensions": [{"Name": "SessionId", "Value": session}]}


def overflow(session: str = "ev1") -> MetricDatum:
    return datum("BufferOverflow", 1, session=session)


def totals(data: Sequence[MergedDatum]) -> dict[Series, Counter[float]]:
    """Count how often each value occurs in each series."""
    result: dict[Series, Counter[float]] = {}
    for merged in data:
        series = (merged["MetricName"], merged["Unit"], tuple((d["Name"], d["Value"]) for d in merged["Dimensions"]))
        counter = result.setdefault(series, Counter())
        for value, count in zip(merged["Values"], merged["Counts"], strict=True):
            counter[value] += int(count)
    return result


def test_equal_series_are_merged_into_values_and_counts() -> None:
    batch = MetricBatch(session_dimension=False)
    for value in (50.0, 25.0, 50.0):
        batch.add(datum("AverageBufferUtilization", value, "Percent"))
    assert batch.take(NOW) == [
        {
            "MetricName": "AverageBufferUtilization",
            "Unit": "Percent",
            "Dimensions": [],
            "Timestamp": NOW,
            "Values": [50.0, 25.0],
            "Counts": [2.0, 1.0],
        }
    ]
    assert batch.take(NOW) == []


def test_many_measurements_at_once_count_as_so_many() -> None:
    batch = MetricBatch(session_dimension=False)
    batch.add({"MetricName": "Lag", "Values": [5.0, 10.0, float("inf")], "Counts": [3, 1, 2], "Unit": "Milliseconds"})
    batch.add(datum("Lag", 5, "Milliseconds"))
    assert (batch.measurements_held, batch.measurements_not_sent) == (5, 2)
    assert totals(batch.take(NOW))["Lag", "Milliseconds", ()] == Counter({5.0: 4, 10.0: 1})


def test_an_overflow_counts_without_its_session_when_sessions_have_no_series() -> None:
    batch = MetricBatch(session_dimension=False)
    batch.add(overflow("a"))
    batch.add(overflow("b"))
    assert totals(batch.take(NOW)) == {("BufferOverflow", "Count", ()): Counter({1: 2})}


def test_an_overflow_counts_in_the_sum_and_in_its_session() -> None:
    batch = MetricBatch(session_dimension=True)
    batch.add(overflow("a"))
    batch.add(overflow("b"))
    assert totals(batch.take(NOW)) == {
        ("BufferOverflow", "Count", ()): Counter({1: 2}),
        ("BufferOverflow", "Count", (("SessionId", "a"),)): Counter({1: 1}),
        ("BufferOverflow", "Count", (("SessionId", "b"),)): Counter({1: 1}),
    }


@pytest.mark.parametrize("name", ["AverageBufferUtilization", "MaxBufferUtilization", "ActiveBuffers"])
@pytest.mark.parametrize("session_dimension", [False, True])
def test_a_sample_of_one_session_never_mixes_with_the_sample_of_all(name: str, *, session_dimension: bool) -> None:
    batch = MetricBatch(session_dimension=session_dimension)
    batch.add(datum(name, 40, "Percent"))
    batch.add(datum(name, 80, "Percent", "a"))
    expected: dict[Series, Counter[float]] = {(name, "Percent", ()): Counter({40: 1})}
    if session_dimension:
        expected[name, "Percent", (("SessionId", "a"),)] = Counter({80: 1})
    assert totals(batch.take(NOW)) == expected


def test_other_dimensions_stay() -> None:
    batch = MetricBatch(session_dimension=False)
    batch.add({**overflow(), "Dimensions": [{"Name": "Node", "Value": "n1"}, {"Name": "SessionId", "Value": "ev1"}]})
    assert totals(batch.take(NOW)) == {("BufferOverflow", "Count", (("Node", "n1"),)): Counter({1: 1})}


def test_more_distinct_values_than_a_datum_takes_go_on_in_another() -> None:
    batch = MetricBatch(session_dimension=False)
    for value in range(MAX_DISTINCT_VALUES * 2 + 1):
        batch.add(datum("Lag", value, "Milliseconds"))
        batch.add(datum("Lag", value, "Milliseconds"))
    data = batch.take(NOW)
    assert [len(merged["Values"]) for merged in data] == [150, 150, 1]
    assert totals(data) == {("Lag", "Milliseconds", ()): Counter(dict.fromkeys(range(301), 2))}


def test_what_comes_back_keeps_its_time_and_place() -> None:
    batch = MetricBatch(session_dimension=False)
    batch.add(datum("A", 1))
    first = batch.take(NOW)
    batch.add(datum("A", 2))
    batch.put_back(first)
    later = NOW + timedelta(minutes=1)
    assert [(merged["Timestamp"], merged["Values"]) for merged in batch.take(later)] == [(NOW, [1.0]), (later, [2.0])]


def test_without_room_the_oldest_is_dropped_counted_and_reported() -> None:
    batch = MetricBatch(session_dimension=False, max_datums=2)
    batch.add(datum("A", 1))
    batch.add(datum("A", 1))
    batch.add(datum("B", 1))
    batch.put_back(batch.take(NOW))
    batch.add(datum("C", 1))
    assert len(batch) == 2
    assert batch.measurements_not_sent == 2
    data = batch.take(NOW)
    assert [merged["MetricName"] for merged in data] == ["B", "C", METRICS_NOT_SENT]
    assert data[-1]["Values"] == [2.0]


def test_the_report_of_losses_is_never_lost_itself() -> None:
    batch = MetricBatch(session_dimension=False, max_datums=1)
    batch.add(datum("A", 1))
    batch.add(datum("B", 1))
    batch.put_back(batch.take(NOW))
    batch.give_up(batch.take(NOW))
    assert totals(batch.take(NOW)) == {(METRICS_NOT_SENT, "Count", ()): Counter({2: 1})}
    assert batch.measurements_not_sent == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2.0**361])
def test_a_value_that_cloudwatch_refuses_counts_as_not_sent(value: float) -> None:
    batch = MetricBatch(session_dimension=False)
    batch.add(datum("A", value))
    assert totals(batch.take(NOW)) == {(METRICS_NOT_SENT, "Count", ()): Counter({1: 1})}


SENT = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.sampled_from("ABC"),
            st.integers(min_value=0, max_value=9),
            st.sampled_from([None, "s1", "s2"]),
        ),
        st.tuples(st.sampled_from(["sent", "put back", "give up"])),
    ),
    max_size=400,
)


@given(SENT, st.integers(min_value=1, max_value=6), st.booleans())
def test_every_measurement_is_sent_held_or_counted_as_lost(
    steps: list[tuple[Any, ...]],
    max_datums: int,
    session_dimension: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relay.metrics.metrics.MAX_DISTINCT_VALUES", 3)
        check_conservation(steps, max_datums, session_dimension=session_dimension)


def check_conservation(steps: list[tuple[Any, ...]], max_datums: int, *, session_dimension: bool) -> None:
    batch = MetricBatch(session_dimension=session_dimension, max_datums=max_datums)
    added: dict[Series, Counter[float]] = {}
    sent: list[MergedDatum] = []
    for step in steps:
        if step[0] == "add":
            _, name, value, session = step
            batch.add(datum(name, value, session=session))
            dimensions = () if session is None else (("SessionId", session),)
            if session is None or session_dimension:
                added.setdefault((name, "Count", dimensions), Counter())[value] += 1
        else:
            data = batch.take(NOW)
            assert all(0 < len(merged["Values"]) <= 3 for merged in data)
            {"sent": sent.extend, "put back": batch.put_back, "give up": batch.give_up}[step[0]](data)
        assert len(batch) <= max_datums

    held, lost = batch.measurements_held, batch.measurements_not_sent
    arrived = totals(sent + batch.take(NOW))
    reported = arrived.pop((METRICS_NOT_SENT, "Count", ()), Counter())
    count = sum(map(Counter.total, arrived.values()))
    assert sum(map(Counter.total, added.values())) == count + lost
    assert sum(value * times for value, times in reported.items()) == lost
    assert all(values <= added[series] for series, values in arrived.items())
    assert lost or arrived == added
    assert held <= count


@given(st.lists(st.integers(min_value=1, max_value=MAX_DISTINCT_VALUES), max_size=300))
@example([1] * 250)
@example([MAX_DISTINCT_VALUES] * 35)
def test_requests_are_bounded_and_keep_order(sizes: list[int]) -> None:
    data: list[MergedDatum] = [
        {
            "MetricName": str(number),
            "Unit": "Count",
            "Dimensions": [],
            "Timestamp": NOW,
            "Values": [1.0] * size,
            "Counts": [1.0] * size,
        }
        for number, size in enumerate(sizes)
    ]
    cut = list(requests(data))
    assert [merged for request in cut for merged in request] == data
    assert all(0 < len(request) <= MAX_REQUEST_DATUMS for request in cut)
    assert all(sum(len(merged["Values"]) for merged in request) <= MAX_REQUEST_VALUES for request in cut)


class Sender:
    """Does what `behave` says and records what was sent."""

    def __init__(self) -> None:
        self.behave: Callable[[], Awaitable[None]] = self.succeed
        self.behave_at_start: Callable[[], Awaitable[None]] = self.succeed
        self.sent: list[MergedDatum] = []
        self.namespaces: set[str] = set()
        self.calls = 0
        self.called = asyncio.Condition()

    async def open(self) -> None:
        await self.behave_at_start()

    async def send(self, namespace: str, data: Sequence[MergedDatum]) -> None:
        async with self.called:
            self.calls += 1
            self.called.notify_all()
        await self.behave()
        self.namespaces.add(namespace)
        self.sent.extend(data)

    async def wait_for_calls(self, number: int) -> None:
        async with self.called:
            wanted = self.calls + number
            await asyncio.wait_for(self.called.wait_for(lambda: self.calls >= wanted), 10)

    async def succeed(self) -> None:
        pass

    async def fail(self) -> None:
        raise SendError("The wire is cut.")

    async def refuse(self) -> None:
        raise SendError("The data is bad.", is_refusal=True)

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def crash(self) -> None:
        raise RuntimeError("our bug")


def settings(**values: Any) -> CloudWatchSettings:
    quick = {"flush_interval_seconds": 0.01, "utilization_interval_seconds": 0.01}
    return CloudWatchSettings(**quick | values)


def reporter_of(sender: Sender, **values: Any) -> MetricsReporter:
    return MetricsReporter(sender, settings(**values), wall_clock=lambda: NOW)


@asynccontextmanager
async def running(reporter: MetricsReporter, sample: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Run the reporter in the background. The test fails if the reporter crashes."""
    task = asyncio.ensure_future(reporter.run(sample))
    try:
        yield
    finally:
        assert not task.done() or task.exception() is None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def put(reporter: MetricsReporter, *data: MetricDatum) -> None:
    reporter.put_metric_data(Namespace="of the caller", MetricData=data)


async def test_it_samples_flushes_and_uses_the_operators_namespace() -> None:
    sender = Sender()
    reporter = reporter_of(sender, namespace="Mine")
    async with running(reporter, lambda: put(reporter, datum("ActiveBuffers", 3))):
        await sender.wait_for_calls(3)
    assert sender.namespaces == {"Mine"}
    assert {merged["MetricName"] for merged in sender.sent} == {"ActiveBuffers"}
    assert {merged["Timestamp"] for merged in sender.sent} == {NOW}


async def test_failure_and_recovery_are_logged_once_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sender = Sender()
    sender.behave = sender.fail
    reporter = reporter_of(sender)
    async with running(reporter):
        for _ in range(5):
            put(reporter, overflow())
            await sender.wait_for_calls(1)
        sender.behave = sender.succeed
        await sender.wait_for_calls(1)
    await reporter.flush(1)
    assert messages(caplog) == ["metrics are not being sent", "metrics are being sent again"]
    assert caplog.records[0].__dict__["reason"] == "The wire is cut."
    assert caplog.records[1].__dict__["measurements_lost"] == 0
    assert totals(sender.sent) == {("BufferOverflow", "Count", ()): Counter({1: 5})}


async def test_a_hanging_sender_delays_no_sample_and_no_overflow() -> None:
    sender = Sender()
    reporter = reporter_of(sender)
    samples = 0
    enough = asyncio.Event()

    def sample() -> None:
        nonlocal samples
        samples += 1
        if samples == 5:
            enough.set()

    async with running(reporter, sample):
        sender.behave = sender.hang
        put(reporter, overflow())
        await sender.wait_for_calls(1)
        samples = 0
        await asyncio.wait_for(enough.wait(), 10)
        put(reporter, overflow())
        assert sender.calls == 1
    assert reporter.measurements_held == 2  # `run` keeps the data being sent when it is cancelled
    sender.behave = sender.succeed
    await reporter.flush(1)
    assert totals(sender.sent) == {("BufferOverflow", "Count", ()): Counter({1: 2})}


async def test_the_last_flush_ends_in_time_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    sender.behave = sender.hang
    reporter = reporter_of(sender)
    put(reporter, overflow(), overflow())
    await asyncio.wait_for(reporter.flush(0.05), 5)
    assert messages(caplog) == [
        "the last metrics could not be sent in time",
        "metrics were lost because the relay stopped",
    ]
    assert caplog.records[-1].__dict__["measurements"] == 2


async def test_cancelling_a_flush_cancels_it_and_keeps_the_data() -> None:
    sender = Sender()
    sender.behave = sender.hang
    reporter = reporter_of(sender)
    put(reporter, overflow())
    task = asyncio.ensure_future(reporter.flush(60))
    await sender.wait_for_calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reporter.measurements_held == 1


async def test_requests_that_got_through_are_not_sent_again() -> None:
    sender = Sender()
    reporter = reporter_of(sender)
    for number in range(MAX_REQUEST_DATUMS * 2):
        put(reporter, datum(f"M{number}", 1))

    async def fail_the_second() -> None:
        if sender.calls == 2:
            raise SendError("The wire is cut.")

    sender.behave = fail_the_second
    await reporter.flush(1)
    assert len(sender.sent) == reporter.measurements_held == MAX_REQUEST_DATUMS
    await reporter.flush(1)
    assert totals(sender.sent) == {(f"M{number}", "Count", ()): Counter({1: 1}) for number in range(200)}


async def test_refused_data_is_given_up_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    sender.behave = sender.refuse
    reporter = reporter_of(sender)
    put(reporter, overflow(), overflow())
    await reporter.flush(1)
    sender.behave = sender.succeed
    await reporter.flush(1)
    assert reporter.measurements_not_sent == 2
    assert totals(sender.sent) == {(METRICS_NOT_SENT, "Count", ()): Counter({2: 1})}
    assert messages(caplog)[0] == "metrics are not being sent"


async def test_a_bug_of_the_sender_does_not_stop_the_reporter(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    sender.behave = sender.crash
    reporter = reporter_of(sender)
    async with running(reporter):
        put(reporter, overflow())
        await sender.wait_for_calls(1)
        sender.behave = sender.succeed
        put(reporter, overflow())
        await sender.wait_for_calls(1)
    assert caplog.records[0].exc_info is not None
    await reporter.flush(1)
    assert totals(sender.sent)["BufferOverflow", "Count", ()] == Counter({1: 1})


async def test_a_sample_that_raises_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    reporter = reporter_of(Sender())
    calls = 0
    enough = asyncio.Event()

    def sample() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            enough.set()
        raise RuntimeError("our bug")

    async with running(reporter, sample):
        await asyncio.wait_for(enough.wait(), 10)
    assert messages(caplog)[:2] == ["metrics could not be sampled"] * 2


@pytest.mark.parametrize("bad", [{}, {"MetricName": "A", "Value": "x", "Unit": "Count"}, None])
async def test_a_malformed_datum_raises_nothing_and_is_counted(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    reporter = reporter_of(sender)
    reporter.put_metric_data(Namespace="x", MetricData=[bad, bad, overflow()])
    await reporter.flush(1)
    assert totals(sender.sent) == {
        ("BufferOverflow", "Count", ()): Counter({1: 1}),
        (METRICS_NOT_SENT, "Count", ()): Counter({2: 1}),
    }
    assert len(caplog.records) == 1


async def test_what_is_missing_at_the_start_is_logged_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        await sender.fail()

    sender.behave_at_start = fail
    async with running(reporter_of(sender, flush_interval_seconds=3600)):
        await asyncio.wait_for(failed.wait(), 10)
    assert messages(caplog) == ["metrics are not being sent"]
    assert sender.calls == 0
