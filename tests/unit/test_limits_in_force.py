"""Costly requests that are not failures: charged to an address and to all, and logged in one line."""

import logging

import pytest

from relay.limits.in_force import MAX_COUNTED_ADDRESSES, MAX_TOLD_ADDRESSES, LimitsInForce
from relay.limits.names import COSTLY, JOINS, REQUESTS, SWITCHES, Limit, LimitReachedError, Rate
from relay.settings.settings import LimitSettings

HALL = "192.0.2.1"


class Times:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limits_with(**limits: int | None) -> tuple[LimitsInForce, Times]:
    times = Times()
    return LimitsInForce(LimitSettings.model_validate(limits), times), times


def how_often(limits: LimitsInForce, rate: Rate, group: str | None, tries: int) -> int:
    """Count how many of `tries` attempts are allowed."""
    let = 0
    for _ in range(tries):
        try:
            limits.charge(rate, group)
        except LimitReachedError:
            continue
        let += 1
    return let


def test_an_address_has_a_rate_of_its_own_and_all_have_one_together() -> None:
    limits, times = limits_with(max_costly_requests_per_second_per_address=5, max_costly_requests_per_second=10)
    assert how_often(limits, COSTLY, HALL, 100) == 10
    assert how_often(limits, COSTLY, None, 100) == 10, "nobody knows who it is, so only the sum counts"
    assert how_often(limits, COSTLY, "192.0.2.2", 100) == 0
    times.now += 1
    assert how_often(limits, COSTLY, HALL, 100) == 5
    assert limits.counters == {Limit.COSTLY_PER_ADDRESS: 90 + 95, Limit.COSTLY: 90 + 100}
    assert how_often(limits, COSTLY, "192.0.2.2", 100) == 5, "what was refused by all was not spent by the address"


def test_a_hall_of_a_thousand_behind_one_address_meets_no_limit() -> None:
    """Each person opens the page with thirty files and joins within a minute. After a restart, all return at once."""
    limits, times = limits_with()
    for _ in range(1000):
        for _ in range(30):
            limits.charge(REQUESTS, HALL)
        limits.charge(JOINS, HALL)
        times.now += 60 / 1000
    times.now += 10
    assert how_often(limits, JOINS, HALL, 1000) == 1000
    assert [limits.overdraw(SWITCHES, HALL) for _ in range(1000)] == [0.0] * 1000
    assert not limits.counters


def test_what_can_not_be_refused_waits_its_turn() -> None:
    limits, times = limits_with(max_switches_per_second_per_address=1)
    assert [limits.overdraw(SWITCHES, HALL) for _ in range(12)] == [0.0] * 10 + [1.0, 2.0]
    assert limits.overdraw(SWITCHES, None) == 0
    times.now += 3
    assert limits.overdraw(SWITCHES, HALL) == 0


def test_a_limit_that_is_never_is_none() -> None:
    limits, _ = limits_with(max_joins_per_second_per_address=None, max_joins_per_second=None)
    assert how_often(limits, JOINS, HALL, 100_000) == 100_000


def test_a_summary_counts_only_so_many_addresses(caplog: pytest.LogCaptureFixture) -> None:
    limits, _ = limits_with()
    for number in range(MAX_COUNTED_ADDRESSES):
        limits.applied(Limit.PENDING_HANDSHAKES, f"address {number}")
    for _ in range(50):
        limits.applied(Limit.PENDING_HANDSHAKES, "one more")
        limits.applied(Limit.PENDING_HANDSHAKES, "address 7")
    with caplog.at_level(logging.WARNING):
        limits.tell()
    applied, *refused = map(vars, caplog.records)
    assert applied["max_pending_handshakes"] == MAX_COUNTED_ADDRESSES + 100
    assert [each["client"] for each in refused][:1] == ["address 7"]
    assert len(refused) == MAX_TOLD_ADDRESSES
    assert "one more" not in caplog.text


def test_the_log_names_the_addresses_that_were_limited(caplog: pytest.LogCaptureFixture) -> None:
    limits, _ = limits_with(max_joins_per_second_per_address=1)
    how_often(limits, JOINS, HALL, 13)
    how_often(limits, JOINS, "192.0.2.2", 11)
    with caplog.at_level(logging.WARNING):
        limits.tell()
        limits.tell()
    applied, *refused = caplog.records
    assert vars(applied)["max_joins_per_second_per_address"] == 4
    assert [(vars(record)["client"], vars(record)["count"]) for record in refused] == [(HALL, 3), ("192.0.2.2", 1)]
