from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Pipe

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.loadtest.account import (
    LEFT,
    MAX_REASONS,
    NORMAL_CLOSE,
    OTHER,
    STILL_OPEN,
    Accounts,
    Counts,
    ListenerAccount,
    Report,
)
from relay.loadtest.histogram import Histogram
from relay.loadtest.plan import Visit, WorkerPlan
from relay.loadtest.target import Expect, Target
from relay.protocol.messages import Gap

WRAP = 1 << 32
EPOCH = 7

# Runs of frames. Each run is delivered or reported in a gap.
runs = st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=20)
starts = st.integers(0, WRAP - 1) | st.integers(WRAP - 50, WRAP - 1)


def gap(first: int, count: int, epoch: int = EPOCH) -> Gap:
    return Gap(epoch, first % WRAP, (first + count - 1) % WRAP, 20.0 * count, "overflow")


def play(account: ListenerAccount, start: int, events: Sequence[tuple[bool, int]]) -> int:
    """Deliver or drop frames as `events` says. Return the next seq."""
    seq = start
    for delivered, count in events:
        if delivered:
            for number in range(count):
                account.frame(EPOCH, (seq + number) % WRAP)
        else:
            account.gap(gap(seq, count))
        seq += count
    return seq


@given(starts, runs)
def test_delivered_and_gaps_are_all_that_was_published(start: int, events: list[tuple[bool, int]]) -> None:
    account = ListenerAccount()
    account.begin(EPOCH, start)
    end = play(account, start, events)
    assert account.delivered == sum(count for delivered, count in events if delivered)
    assert account.gap_frames == sum(count for delivered, count in events if not delivered)
    assert account.gaps == sum(not delivered for delivered, _ in events)
    assert (account.unaccounted, account.owed(end)) == (0, 0)


@given(starts, runs, st.integers(1, 1000), runs)
def test_a_hole_without_a_word_is_unaccounted(
    start: int, before: list[tuple[bool, int]], hole: int, after: list[tuple[bool, int]]
) -> None:
    account = ListenerAccount()
    account.begin(EPOCH, start)
    end = play(account, play(account, start, before) + hole, after)
    assert account.unaccounted + account.owed(end) == hole


@given(starts, st.integers(1, 10), st.integers(1, 10))
def test_a_frame_that_comes_twice_is_unaccounted(start: int, delivered: int, back: int) -> None:
    account = ListenerAccount()
    account.begin(EPOCH, start)
    end = play(account, start, [(True, delivered)])
    account.frame(EPOCH, (end - min(back, delivered)) % WRAP)
    assert (account.unaccounted, account.delivered, account.owed(end)) == (1, delivered, 0)


def test_a_gap_told_twice_is_unaccounted() -> None:
    account = ListenerAccount()
    account.begin(EPOCH, 0)
    account.gap(gap(0, 5))
    account.gap(gap(0, 5))
    assert account.unaccounted == 5


def test_frames_and_gaps_of_an_epoch_that_nobody_announced_are_unaccounted() -> None:
    account = ListenerAccount()
    account.begin(EPOCH, 0)
    account.gap(gap(0, 3, EPOCH + 1))
    assert (account.unaccounted, account.next_seq) == (3, 0)
    account.frame(EPOCH + 1, 10)
    account.frame(EPOCH + 1, 11)
    assert (account.unaccounted, account.delivered) == (4, 2)


def test_an_epoch_begins_where_it_is_said_to() -> None:
    account = ListenerAccount()
    account.begin(EPOCH, 5)
    account.frame(EPOCH, 5)
    account.begin(EPOCH + 1, 0)
    account.frame(EPOCH + 1, 0)
    assert (account.unaccounted, account.delivered) == (0, 2)


@pytest.mark.parametrize(("published", "owed"), [(10, 0), (13, 3), (8, 2)])
def test_what_the_end_shows_to_be_missing_or_too_much(published: int, owed: int) -> None:
    account = ListenerAccount()
    account.begin(EPOCH, 10)
    assert account.owed(published) == owed


def test_accounts_add_up() -> None:
    one, other = ListenerAccount(), ListenerAccount()
    one.begin(EPOCH, 0)
    other.begin(EPOCH, 0)
    play(one, 0, [(True, 3), (False, 1)])
    play(other, 0, [(True, 4)])
    both = Accounts.of(one, undelivered=2) + Accounts.of(other, unaccounted=1)
    assert both == Accounts(2, 7, 1, 1, 1, 2, 25.0)
    assert both.loss_percent == 12.5
    assert Accounts().loss_percent is None


def test_a_report_and_a_plan_come_through_a_pipe_as_they_were_sent() -> None:
    def counted(*values: int) -> Histogram:
        histogram = Histogram()
        for value in values:
            histogram.record(value)
        return histogram

    plan = WorkerPlan([Target("::1", 1, "/p", "h", "name", Expect.STAMPED)], [Visit(0, None, 2.5, reads=False)], 3, 4.0)
    report = Report(
        latency=counted(1, 99_999), joins=counted(3), closes={LEFT: 2}, healthy=Accounts(1, 2, 3, 4, 5, 6, 7.5)
    )
    ours, theirs = Pipe()
    with ours, theirs:
        ours.send(plan)
        assert theirs.recv() == plan
        theirs.send(report)
        received: Report = ours.recv()
    assert received.latency.to_json() == {"counts": report.latency.items(), "maximum": 99_999}
    assert replace(received, latency=report.latency, joins=report.joins) == report


def test_a_worker_counts_each_connection_once_and_intervals_anew() -> None:
    counts = Counts()
    account = ListenerAccount()
    account.begin(1, 0)
    account.frame(1, 0)
    for how in (NORMAL_CLOSE, STILL_OPEN, LEFT, "1012 restarting"):
        counts.closed(Visit(0), account, how, published=3)
    counts.closed(Visit(0, reads=False), account, NORMAL_CLOSE, published=1)
    counts.joins.record(5)
    counts.received_bytes = 9
    report = counts.report()
    assert report.healthy == Accounts(4, 4, 0, 0, unaccounted=2, undelivered=2)
    assert report.slow == Accounts(1, 1)
    assert (report.joins.total, report.received_bytes) == (1, 9)
    assert report.closes == {NORMAL_CLOSE: 1, STILL_OPEN: 1, LEFT: 1, "1012 restarting": 1}
    again = counts.report()
    assert (again.joins.total, again.received_bytes, again.closes) == (0, 0, report.closes)


def test_reasons_that_a_server_makes_up_do_not_fill_the_memory() -> None:
    counts = Counts()
    for number in range(MAX_REASONS + 30):
        counts.failed(f"reason {number}")
    failures = counts.report().failures
    assert len(failures) == MAX_REASONS + 1
    assert failures[OTHER] == 30
