"""What listeners learn about the channels of their session, and which channels are forgotten."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict

import pytest

from relay.hub.directory import MAX_LISTED
from relay.protocol.requests import Offer
from relay.vocabulary.labels import Declaration, Label
from tests.support.hub_bench import Bench, block, unblock

DECLARED = (Declaration.read("*/main - Original"), Declaration.read("ev1/de de Deutsch"))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(declared=DECLARED)
    yield bench
    bench.hub.broadcasting.close()
    await bench.tasks.close()


async def test_a_list_has_what_was_declared_and_what_had_a_broadcaster(bench: Bench) -> None:
    port = bench.join(channel="nobody-said")
    assert port.hello["channels"] == [
        {"id": "main", "name": "Original", "lang": None, "state": "waiting"},
        {"id": "de", "name": "Deutsch", "lang": "de", "state": "waiting"},
    ]
    bench.claim(channel="fr", offer=Offer(label=Label("Français", "fr")))
    bench.claim(channel="de", offer=Offer(label=Label("what the operator said stands")))
    bench.hub.keep_house()
    await bench.settle()
    assert port.of_type("channels")[-1]["channels"] == [
        {"id": "main", "name": "Original", "lang": None, "state": "waiting"},
        {"id": "de", "name": "Deutsch", "lang": "de", "state": "live"},
        {"id": "fr", "name": "Français", "lang": "fr", "state": "live"},
    ]


@pytest.mark.parametrize("for_all_last", [True, False], ids=["general last", "general first"])
async def test_what_is_declared_for_a_session_goes_before_what_is_for_all(for_all_last: bool) -> None:
    """The list, the greeting and the opened channel all carry the same name."""
    declared = [Declaration.read("ev1/main en The keynote"), Declaration.read("*/main - Original")]
    bench = Bench(declared=declared if for_all_last else reversed(declared))
    keynote = {"id": "main", "name": "The keynote", "lang": "en", "state": "waiting"}
    original = {"id": "main", "name": "Original", "lang": None, "state": "waiting"}
    for session, entry in (("ev1", keynote), ("ev2", original)):
        assert bench.join(session, channel="another", session=session).hello["channels"] == [entry]
        assert bench.join(f"{session} main", session=session).hello["channels"] == [entry]
    await bench.tasks.close()


async def test_however_many_channels_change_their_list_is_told_once(bench: Bench) -> None:
    """All channels of an event come back after a restart, while one listener's network is stalled."""
    healthy, stalled = bench.join("healthy"), bench.join("stalled")
    block(stalled)
    for number in range(MAX_LISTED):
        bench.claim(channel=f"channel-{number}")
    await bench.settle()
    assert healthy.of_type("channels") == []
    bench.hub.keep_house()
    bench.hub.keep_house()
    unblock(stalled)
    await bench.settle()
    for port in (healthy, stalled):
        assert not port.aborted
        (told,) = port.of_type("channels")
        assert len(told["channels"]) == MAX_LISTED


async def test_a_channel_that_is_forgotten_is_not_offered_any_more(bench: Bench) -> None:
    port = bench.join()
    bench.release(bench.claim(channel="fr"))
    for _ in range(200):
        bench.now += 0.5
        bench.hub.keep_house()
    await bench.settle()
    offered = [[entry["id"] for entry in told["channels"]] for told in port.of_type("channels")]
    assert offered == [["main", "de", "fr"]] * 2 + [["main", "de"]]
    bench.join("later", channel="main")
    bench.hub.keep_house()
    await bench.settle()
    assert len(port.of_type("channels")) == 3, "nothing is told when nothing changed"


async def test_idle_channels_are_forgotten(bench: Bench) -> None:
    port = bench.join()
    source = bench.claim()
    bench.release(source)
    bench.leave(port)
    bench.now += 30
    bench.hub.keep_house()
    bench.now += 59
    bench.hub.keep_house()
    again = bench.claim()
    assert again.channel is source.channel, "it is remembered for a while"
    bench.release(again)
    bench.now += 30
    bench.hub.keep_house()
    bench.now += 60
    bench.hub.keep_house()
    assert bench.claim().channel is not source.channel


async def test_a_channel_that_never_had_a_source_is_forgotten_soon_and_silently(bench: Bench) -> None:
    for number in range(10):
        bench.leave(bench.join(session=f"nobody-said-{number}"))
    bench.hub.keep_house()
    bench.now += 3
    bench.hub.keep_house()
    assert len(list(bench.hub.directory.sessions)) == 10, "who comes back after a cut finds the same"
    back, other = bench.join(session="nobody-said-0"), bench.join("other", session="nobody-said-0", channel="de")
    bench.now += 3
    bench.hub.keep_house()
    assert list(bench.hub.directory.sessions) == ["nobody-said-0"]
    bench.leave(back)
    bench.hub.keep_house()
    bench.now += 6
    bench.hub.keep_house()
    await bench.settle()
    assert len(list(bench.hub.directory)) == 1
    assert other.of_type("channels") == [], "what the operator declared is offered as before"


async def test_a_list_is_serialized_once_for_each_change(bench: Bench) -> None:
    """Listeners that switch back and forth, or join in a crowd, all get the existing text."""
    ports = [bench.join(f"crowd-{number}", channel="de") for number in range(20)]
    texts = {id(bench.hub.directory.listed("ev1").text) for _ in ports}
    assert len(texts) == 1
    told = bench.hub.directory.listed("ev1").text
    for change in (
        lambda: bench.claim(channel="fr", offer=Offer(label=Label("Français"))),
        lambda: bench.claim(channel="fr", offer=Offer(takeover=True, label=Label("Frans"))),
        lambda: bench.release(bench.claim(channel="it")),
        lambda: bench.hub.broadcasting.stop(list(bench.hub.directory.channels_of("ev1"))),
    ):
        change()
        text = bench.hub.directory.listed("ev1").text
        assert text != told
        told = text
        assert json.loads(text) == [asdict(entry) for entry in bench.hub.directory.listed("ev1")]


async def test_lists_of_sessions_that_are_gone_are_not_kept(bench: Bench) -> None:
    first = bench.hub.directory.listed("never-used")
    assert bench.hub.directory.listed("never-used") is not first, "anybody may ask for any name"


async def test_a_session_has_the_name_that_its_operator_or_else_a_broadcaster_gives_it() -> None:
    bench = Bench(declared=[Declaration.read("ev1 - Town hall"), *DECLARED])
    declared, early = bench.join("c1"), bench.join("c2", session="ev2")
    assert (declared.hello["session_name"], early.hello["session_name"]) == ("Town hall", None)
    assert [entry["id"] for entry in declared.hello["channels"]] == ["main", "de"]
    for session in ("ev1", "ev2"):
        bench.claim(session=session, offer=Offer(session_name="What the speaker calls it"))
        # An interpreter who sends no name changes nothing.
        bench.claim(session=session, channel="fr", offer=Offer())
    bench.hub.keep_house()
    await bench.settle()
    assert early.of_type("channels")[-1]["session_name"] == "What the speaker calls it"
    assert declared.of_type("channels")[-1]["session_name"] == "Town hall"
    assert bench.join("c3", session="ev2").hello["session_name"] == "What the speaker calls it"
    await bench.tasks.close()
