from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.metrics import listener_reports
from relay.metrics.listener_reports import MAX_EVENTS, ListenerReports
from relay.protocol.messages import MAX_REPORTED_MS, ListenerReport
from relay.vocabulary.names import ChannelAddress

MAIN, DE = ChannelAddress("ev1"), ChannelAddress("ev1", "de")


def stats(buffer_ms: float = 120, playout_ms: float = 180, underruns: float = 0, jumps: float = 0) -> dict[str, Any]:
    return {
        "type": "stats",
        "buffer_ms": buffer_ms,
        "playout_ms": playout_ms,
        "underruns": underruns,
        "jumps": jumps,
    }


def test_totals_of_a_listener_count_once_whatever_it_repeats() -> None:
    reports = ListenerReports()
    report = None
    for underruns, jumps in ((1, 0), (1, 2), (4, 2)):
        report = reports.note(MAIN, stats(underruns=underruns, jumps=jumps), report)
    other = reports.note(MAIN, stats(underruns=10), None)
    assert (reports.everywhere.underruns, reports.everywhere.jumps) == (14, 2)
    # The listener restarted, so its counters began at zero.
    reports.note(MAIN, stats(underruns=2), other)
    assert reports.everywhere.underruns == 16


def test_each_channel_has_a_summary_of_each_interval() -> None:
    reports = ListenerReports()
    for playout_ms in range(100, 200):
        reports.note(MAIN, stats(playout_ms=playout_ms), None)
    reports.note(DE, stats(buffer_ms=4, underruns=3), None)
    summaries = dict(reports.take())
    assert summaries[MAIN].fields() == {
        "reports": 100,
        "underruns": 0,
        "jumps": 0,
        "playout_p50_ms": 150.0,
        "playout_p95_ms": 200.0,
        "buffer_p5_ms": 150.0,
        "buffer_p50_ms": 150.0,
    }
    assert (summaries[DE].underruns, summaries[DE].buffer_ms.percentile(50)) == (3, 5.0)
    assert dict(reports.take()) == {}
    assert len(reports.everywhere.playout_ms) == 101


def test_what_channels_take_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_reports, "MAX_SUMMARIES", 3)
    reports = ListenerReports()
    for number in range(5):
        reports.note(ChannelAddress(f"ev{number}"), stats(underruns=1), None)
    assert len(dict(reports.take())) == 3
    assert (reports.not_listed, reports.everywhere.underruns) == (2, 5)


@pytest.mark.parametrize(
    "message",
    [
        {},
        stats() | {"underruns": None},
        stats() | {"jumps": "1"},
        stats() | {"buffer_ms": True},
        stats(playout_ms=-1),
        stats(playout_ms=float("nan")),
        stats(buffer_ms=float("inf")),
        stats(underruns=10**400),
    ],
)
def test_what_is_no_report_is_counted_and_changes_nothing(message: dict[str, Any]) -> None:
    reports = ListenerReports()
    before = ListenerReport(1, 2, 3, 4)
    assert reports.note(MAIN, message, before) is before
    assert (reports.malformed, len(reports.everywhere.buffer_ms)) == (1, 0)


JSON = st.one_of(
    st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(stats(), JSON)), max_size=10))
def test_no_report_breaks_or_floods_anything(messages: list[dict[str, Any]]) -> None:
    reports = ListenerReports()
    report = None
    for message in messages:
        report = reports.note(MAIN, message, report)
    assert len(reports.everywhere.buffer_ms) + reports.malformed == len(messages)
    assert reports.everywhere.underruns <= MAX_EVENTS * len(messages)
    assert reports.everywhere.playout_ms.total <= MAX_REPORTED_MS * len(messages)
