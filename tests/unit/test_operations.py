"""What an operator sees of a hub and does to it; the clock and the sockets are the test's."""

import json
from collections.abc import AsyncIterator

import pytest

from relay.access.grants import Grant, TokenRole
from relay.access.rules import OperatorPermit
from relay.hub.framing import RAW
from relay.hub.operations import MAX_CHANNELS, MAX_LISTENERS, Operations
from relay.protocol.messages import ListenerReport
from relay.protocol.requests import Delivery, Offer, Resume, Role
from relay.vocabulary.audio import Pace
from relay.vocabulary.errors import CloseCode
from relay.vocabulary.labels import Label
from tests.support.hub_bench import FRAME_SECONDS, Bench, block, check_account, unblock

SPEECH = Offer(pace=Pace.SPEECH)
ENDED = (CloseCode.SESSION_ENDED, "The session ended.")
STOPPED = (CloseCode.SESSION_ENDED, "The operator ended the session.")
SENT_AWAY = (CloseCode.DISCONNECTED, "The operator disconnected you.")


def permit(sessions: tuple[str, ...], channels: tuple[str, ...]) -> OperatorPermit:
    return OperatorPermit(("*",), Grant(frozenset({TokenRole.ADMIN}), sessions, channels, "a test"))


ALL = permit(("*",), ("*",))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(bound_seconds=10.0)
    yield bench
    bench.hub.broadcasting.close()
    await bench.tasks.close()


@pytest.fixture
def operations(bench: Bench) -> Operations:
    return Operations(bench.hub, bench.time)


def stopped(bench: Bench) -> dict[object, object]:
    return {source: port.closed for source, port in bench.source_ports.items()}


async def test_the_list_has_every_channel_with_its_figures(bench: Bench, operations: Operations) -> None:
    assert operations.list_sessions(ALL) == {"sessions": [], "not_listed": 0}
    main = bench.claim(offer=Offer(label=Label("English", "en")))
    speech = bench.claim(channel="de", offer=SPEECH)
    bench.join()
    bench.join("another", session="ev0", channel="x")
    bench.publish(main, 3)
    bench.publish(speech, 500)
    await bench.settle()
    answer = operations.list_sessions(ALL)
    assert [(session["id"], [each["id"] for each in session["channels"]]) for session in answer["sessions"]] == [
        ("ev0", ["x"]),
        ("ev1", ["de", "main"]),
    ]
    german, english = answer["sessions"][1]["channels"]
    assert english == {
        "id": "main",
        "name": "English",
        "lang": "en",
        "state": "live",
        "silence": None,
        "pace": "live",
        "format": {"codec": "pcm_s16le", "rate": 16_000, "channels": 1, "clock_rate": 16_000},
        "listeners": 1,
        "codec_listeners": {"pcm_s16le": 1},
        "broadcaster": {"connection_id": main.connection_id, "client_address": "192.0.2.9"},
        "lead_ms": 59,
        "queued_ms": 0,
        "arrival_rate": None,
        "released_frames": 3,
        "delivered_frames": 3,
        "dropped_frames": 0,
    }
    assert (german["pace"], german["lead_ms"], german["released_frames"]) == ("speech", 10_000, 101)
    assert german["queued_ms"] == pytest.approx(7980)
    (idle,) = answer["sessions"][0]["channels"]
    assert (idle["state"], idle["format"], idle["broadcaster"], idle["lead_ms"], idle["queued_ms"]) == (
        "waiting",
        *[None] * 4,
    )
    json.dumps(answer)


@pytest.mark.parametrize("pace", Pace)
async def test_audio_that_does_not_come_in_real_time_is_told_to_all_who_can_mend_it(
    bench: Bench, operations: Operations, caplog: pytest.LogCaptureFixture, pace: Pace
) -> None:
    """24 kHz announced as 16 kHz; in pace speech that is no fault."""
    source = bench.claim(offer=Offer(pace=pace))
    for _ in range(round(12 / FRAME_SECONDS)):
        bench.publish(source, audio=bytes(960))
        bench.now += FRAME_SECONDS
    bench.hub.keep_house()
    rate = 1.5 if pace is Pace.LIVE else None
    assert bench.source_ports[source].of_type("stats")[-1]["arrival_rate"] == rate
    (channel,) = operations.list_sessions(ALL)["sessions"][0]["channels"]
    assert channel["arrival_rate"] == rate
    lines = [vars(line) for line in caplog.records if line.getMessage() == "audio does not arrive in real time"]
    found = [(line["arrival_rate"], line["announced"], line["looks_like"]) for line in lines]
    assert found == ([(1.5, "16000 Hz, mono", "24000 Hz, mono")] if rate else [])


async def test_what_waits_of_a_broadcaster_that_went_is_shown(bench: Bench, operations: Operations) -> None:
    source = bench.claim(offer=SPEECH)
    bench.publish(source, 500)
    bench.release(source)
    (channel,) = operations.list_sessions(ALL)["sessions"][0]["channels"]
    assert (channel["state"], channel["broadcaster"]) == ("live", None)
    assert channel["queued_ms"] > 7000


async def test_an_operator_of_some_channels_sees_and_touches_no_others(bench: Bench, operations: Operations) -> None:
    german = bench.claim(channel="de")
    bench.now += 1
    french = bench.claim(channel="fr")
    there = bench.join("there", channel="fr")
    only = permit(("ev1", "ev2"), ("de",))
    assert [each["id"] for each in operations.list_sessions(only)["sessions"][0]["channels"]] == ["de"]
    shown = operations.show_session("ev1", only)
    assert shown is not None
    assert (shown["listeners"], [each["id"] for each in shown["channels"]]) == (0, ["de"])
    assert operations.show_session("ev2", only) is None
    assert operations.disconnect("ev1", "there", only) is None
    assert operations.disconnect("ev1", french.connection_id, only) is None
    assert operations.end("ev1", "fr", only) == []
    assert operations.end("ev1", None, only) == ["de"]
    bench.hub.keep_house()
    await bench.settle()
    assert stopped(bench) == {german: STOPPED, french: None}
    assert there.closed is None
    assert [entry["id"] for entry in there.of_type("channels")[-1]["channels"]] == ["fr"], "the others are told"


async def test_the_worst_listeners_are_shown_with_their_accounts(bench: Bench, operations: Operations) -> None:
    source = bench.claim()
    well, slow, slower = (bench.join(name) for name in ("well", "slow", "slower"))
    raw = bench.join("raw", RAW)
    await bench.settle()
    assert slow.listener is not None
    slow.listener.report = ListenerReport(240.0, 310.5, 2, 1)
    block(slower)
    for count in range(800):
        if count == 700:
            block(slow)
        bench.publish(source)
        await bench.settle()
        bench.now += FRAME_SECONDS
    answer = operations.show_session("ev1", ALL)
    assert answer is not None
    assert answer["listeners"] == 4
    figures = {each.pop("connection_id"): each for each in answer["worst_listeners"]}
    assert list(figures)[:2] == ["slower", "slow"]
    assert figures["slower"] == {
        "client_address": "192.0.2.7",
        "channel": "main",
        "codec": "pcm_s16le",
        "framing": "relay.v1",
        "lag_ms": 10_000,
        "delivered_seconds": 0.0,
        "dropped_seconds": 6.0,
        "blocked_seconds": 16.0,
        "report": None,
    }
    assert figures["slow"]["delivered_seconds"] == 14.0
    assert (figures["slow"]["lag_ms"], figures["slow"]["blocked_seconds"]) == (2000, 2.0)
    assert figures["slow"]["report"] == {"buffer_ms": 240.0, "playout_ms": 310.5, "underruns": 2, "jumps": 1}
    assert (figures["well"]["lag_ms"], figures["well"]["delivered_seconds"]) == (0, 16.0)
    assert (figures["raw"]["framing"], figures["raw"]["delivered_seconds"]) == ("raw", 16.0)
    for port in (well, raw):
        assert port.writes, "it was served while it was looked at"
    bench.switch(slow, "main")
    assert slow.listener.report is not None, "what a player said holds on its next channel"


async def test_looking_while_a_run_is_being_written_counts_each_listener_as_it_stands(
    bench: Bench, operations: Operations
) -> None:
    source = bench.claim()
    ports = [bench.join(f"{number:02}") for number in range(40)]
    bench.publish(source)
    await bench.settle()
    bench.publish(source, 5)
    served = ports[20]
    take, seen = served.send, []

    def send(wire: bytes) -> int:
        bench.now += 1.0
        seen.append(operations.show_session("ev1", ALL))
        return take(wire)

    served.send = send
    await bench.settle()
    (answer,) = seen
    assert answer is not None
    heard = [each["delivered_seconds"] for each in answer["worst_listeners"]]
    lags = [each["lag_ms"] for each in answer["worst_listeners"]]
    # The group counts a stretch of listeners when it is written, so the first 16 have got it.
    assert sorted(zip(lags, heard, strict=True)) == [(0, 0.12)] * 16 + [(1000, 0.02)] * 24


async def test_an_answer_is_bounded(bench: Bench, operations: Operations) -> None:
    for number in range(MAX_CHANNELS + 50):
        bench.join(f"{number}", channel=f"c{number}")
    bench.claim(channel="c7")
    more = [bench.join(f"more{number}", channel="c299") for number in range(MAX_LISTENERS)]
    answer = operations.show_session("ev1", ALL)
    assert answer is not None
    assert (len(answer["channels"]), answer["not_listed"]) == (MAX_CHANNELS, 50)
    assert {"c7", "c299"} <= {each["id"] for each in answer["channels"]}
    assert answer["listeners"] == MAX_CHANNELS + 50 + len(more)
    assert len(answer["worst_listeners"]) == MAX_LISTENERS
    assert operations.list_sessions(ALL)["not_listed"] == 50


@pytest.mark.parametrize("pace", Pace)
async def test_ending_is_at_once_and_owes_what_was_released(bench: Bench, operations: Operations, pace: Pace) -> None:
    source = bench.claim(offer=Offer(pace=pace))
    well, behind, raw = bench.join(), bench.join("behind"), bench.join("raw", RAW)
    await bench.settle()
    block(behind)
    bench.publish(source, 250)
    released = source.channel.place.seq
    assert (released < 250) == (pace is Pace.SPEECH)
    assert operations.end("ev1", "main", ALL) == ["main"]
    assert stopped(bench) == {source: STOPPED}, "it need not wait for its listeners"
    bench.publish(source, 5)
    await bench.settle()
    for port in (well, raw):
        assert port.closed == ENDED
    assert raw.writes
    check_account(well, released)
    assert well.of_type("state")[-1]["state"] == "ended"
    assert behind.closed is None
    unblock(behind)
    await bench.settle()
    assert behind.closed == ENDED
    assert behind.of_type("gap") == [], "it is owed all that was released and is not too old"
    check_account(behind, released)
    assert operations.list_sessions(ALL)["sessions"] == []
    bench.now += 60
    await bench.settle()
    assert source.channel.place.seq == released, "nothing is released any more"


async def test_one_who_is_too_far_behind_is_told_what_it_lost(bench: Bench, operations: Operations) -> None:
    source = bench.claim()
    port = bench.join()
    await bench.settle()
    block(port)
    for _ in range(800):
        bench.publish(source)
        bench.now += FRAME_SECONDS
    operations.end("ev1", None, ALL)
    bench.now += 1
    unblock(port)
    await bench.settle()
    assert port.closed == ENDED
    assert {gap["reason"] for gap in port.of_type("gap")} <= {"overflow", "stale"}
    check_account(port, 800)


async def test_ending_works_in_every_state(bench: Bench, operations: Operations) -> None:
    waiting = bench.join(channel="waiting")
    lost = bench.claim(channel="lost")
    bench.release(lost)
    leaving = bench.claim(channel="leaving", offer=SPEECH)
    bench.publish(leaving, 500)
    bench.hub.broadcasting.end(leaving)
    going = bench.claim(channel="going", offer=SPEECH)
    bench.publish(going, 500)
    bench.release(going)
    there = {name: bench.join(name, channel=name) for name in ("lost", "leaving", "going")}
    assert sorted(operations.end("ev1", None, ALL)) == ["going", "leaving", "lost", "waiting"]
    await bench.settle()
    for port in (waiting, *there.values()):
        assert port.closed == ENDED
        assert port.of_type("state")[-1]["state"] == "ended"
    assert operations.end("ev1", None, ALL) == []
    bench.hub.keep_house()
    assert bench.hub.broadcasting._timers == {}, "what was to be released is not waited for"


async def test_ending_many_channels_cuts_nobody_off(bench: Bench, operations: Operations) -> None:
    ports = []
    for number in range(100):
        bench.claim(channel=f"c{number}")
        ports.append(bench.join(f"{number}", channel=f"c{number}"))
        await bench.settle()
    for port in ports:
        block(port)
    operations.end("ev1", None, ALL)
    assert not any(port.aborted for port in ports)
    for port in ports:
        unblock(port)
        await bench.settle()
    assert all(port.closed == ENDED for port in ports)


async def test_a_session_that_was_ended_may_start_again_and_who_was_away_hears_its_end(
    bench: Bench, operations: Operations
) -> None:
    source = bench.claim()
    bench.publish(source, 10)
    epoch = source.channel.place.epoch
    operations.end("ev1", None, ALL)
    again = bench.claim()
    late = bench.join("late", delivery=Delivery(resume=Resume(epoch, 4)))
    fresh = bench.join("fresh")
    bench.publish(again, 2)
    await bench.settle()
    assert late.hello["resumed"] is True
    assert (late.closed, [frame.seq for frame in late.frames]) == (ENDED, list(range(5, 10)))
    assert (fresh.closed, len(fresh.frames)) == (None, 2)


async def test_a_listener_is_sent_away_and_no_other(bench: Bench, operations: Operations) -> None:
    bench.claim()
    ports = {name: bench.join(name) for name in ("one", "two", "three")}
    gone = operations.disconnect("ev1", "two", ALL)
    assert gone is not None
    assert (gone.role, gone.channel, gone.client_address) == (Role.LISTENER, "main", "192.0.2.7")
    assert {name: port.closed for name, port in ports.items()} == {"one": None, "two": SENT_AWAY, "three": None}
    assert operations.disconnect("ev1", "four", ALL) is None
    assert operations.disconnect("ev2", "one", ALL) is None


async def test_a_broadcaster_is_sent_away_and_its_channel_is_free(bench: Bench, operations: Operations) -> None:
    source = bench.claim(offer=SPEECH)
    port = bench.join()
    bench.publish(source, 500)
    gone = operations.disconnect("ev1", source.connection_id, ALL)
    assert gone is not None
    assert (gone.role, gone.client_address) == (Role.BROADCASTER, "192.0.2.9")
    assert stopped(bench) == {source: SENT_AWAY}
    bench.publish(source, 100)
    bench.release(source)
    await bench.settle()
    assert port.kinds.count("state") == 0, "what waits is heard first"
    bench.now += 12
    bench.hub.broadcasting.release_due(source.channel)
    await bench.settle()
    assert port.of_type("state")[-1]["state"] == "source_lost"
    check_account(port, 500)
    bench.claim()
    await bench.settle()
    assert port.of_type("state")[-1]["state"] == "live"
