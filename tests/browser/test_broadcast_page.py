"""The broadcasting page, judged by the audio that a listener receives."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Route
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from relay.protocol.wire import SUBPROTOCOL
from relay.vocabulary.errors import CloseCode
from tests.browser.conftest import Tab, open_tab
from tests.browser.microphone import RATE, hear_microphone
from tests.browser.peers import claimed, listen
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import from_pcm, judge, sine, write_wav

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997
FILE_SECONDS = 3
FRAME_SECONDS = 0.02
TRIES = 3


async def listen_to_the_end(relay_url: str, path: str) -> bytes:
    return b"".join([payload async for payload in listen(relay_url, path)])


async def mistake(tab: Tab, field: str, sentence: str) -> None:
    """Wait until a field has the focus and shows an error, and no other field does."""
    await tab.page.locator(f"#{field}:focus[aria-invalid=true][aria-describedby={field}-error]").wait_for()
    await tab.page.locator(f"#{field} ~ #{field}-error").filter(has_text=sentence).wait_for()
    assert await tab.page.locator(".error:visible").count() == 1


async def test_file_is_heard_by_a_listener_and_ends_the_session(tab: Tab, relay: RelayProcess, tmp_path: Path) -> None:
    file = tmp_path / "tone.wav"
    write_wav(file, sine(TONE, 44_100, FILE_SECONDS), 44_100)
    await tab.open("/broadcast/file/main")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.page.get_by_label("Audio file").set_input_files(file)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        heard = tasks.create_task(listen_to_the_end(relay.url, "file"))
        await tab.press("Go live")
        samples = from_pcm(await heard)
    await tab.status("You are off the air.")
    assert len(samples) >= FILE_SECONDS * RATE
    # A browser decodes while it plays, and stutters on a busy machine. A test by ear judges the sound.
    assert abs(judge(samples, RATE, TONE).frequency - TONE) < 2


async def test_takes_a_channel_over_when_the_person_says_so(tab: Tab, relay: RelayProcess) -> None:
    async with claimed(relay.url, "busy") as other:
        await tab.open("/broadcast/busy")
        await tab.press("Go live")
        await tab.status("This channel already has a broadcaster.")
        # The focus is on the button that continues.
        await tab.page.keyboard.press("Enter")
        await tab.status("You are live.")
        await other.wait_closed()
        assert other.close_code == CloseCode.TAKEN_OVER
    await hear_microphone(relay.url, "busy")


async def test_stops_when_another_broadcaster_takes_over(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/taken")
    await tab.press("Go live")
    await tab.status("You are live.")
    async with claimed(relay.url, "taken", "takeover=1"):
        await tab.status("Another broadcaster took over this channel.")
        assert await tab.page.evaluate("relayBroadcaster.state") == "failed"
        await tab.page.get_by_role("button", name="Go live").wait_for()
        # The channel continues without this page, so the page must not claim it back by itself.
        assert sum("/v1/broadcast/" in target for target in tab.network.requested) == 1


async def test_broadcast_goes_on_after_the_connection_broke(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/broken-off")
    await tab.press("Go live")
    await tab.status("You are live.")
    tab.network.break_down()
    await tab.status("No connection to the relay.")
    # The page keeps 1.5 s of sound. After that it drops the oldest, and says so.
    await tab.warning("Part of the sound was lost")
    tab.network.repair()
    await tab.status("You are live.")
    await hear_microphone(relay.url, "broken-off")
    assert "takeover=1" in tab.network.requested[-1]
    assert "takeover" not in next(target for target in tab.network.requested if "/v1/broadcast/" in target)


async def test_says_what_may_be_in_the_way_when_it_never_connects_and_goes_live_once_it_does(tab: Tab) -> None:
    tab.network.block_websockets()
    await tab.open("/broadcast/blocked")
    await tab.press("Go live")
    await tab.status("The relay does not answer.")
    assert await tab.page.evaluate("relayBroadcaster.state") == "connecting"
    tab.network.repair()
    await tab.status("You are live.")


WATCHED_STATES = """
    window.states = [];
    relayBroadcaster.addEventListener("statechange", () => states.push(relayBroadcaster.state));
"""
"""The first retry can be so quick that the page never shows the state, so the test records every state."""


async def test_a_short_break_loses_nothing_that_had_not_been_sent(tab: Tab) -> None:
    await tab.open("/broadcast/short-break")
    await tab.press("Go live")
    await tab.status("You are live.")
    # The first retry comes within a second, and the page keeps more than that.
    await tab.page.evaluate(WATCHED_STATES)
    await tab.page.evaluate(
        """
        window.unsent = [];
        relayBroadcaster.addEventListener("news", () => unsent.push(relayBroadcaster.way));
        """
    )
    dropped = 0.0
    for _ in range(TRIES):
        before = dropped
        await tab.page.evaluate("states.length = unsent.length = 0")
        tab.network.break_down()
        tab.network.repair()
        await tab.until("states.join() === 'reconnecting,live'")
        await tab.until("unsent.length > 4 && unsent.at(-1).waitingSeconds < 0.1")
        dropped = await tab.page.evaluate("unsent.at(-1).droppedSeconds")
        # On a busy machine, the retry may come later than the page keeps audio.
        if dropped - before <= FRAME_SECONDS:
            break
    assert dropped - before <= FRAME_SECONDS


async def test_says_that_the_network_is_too_slow_and_connects_anew_when_it_is_dead(tab: Tab) -> None:
    await tab.open("/broadcast/swallowed")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.locator("#way", has_text="ms").wait_for()
    await tab.page.evaluate(WATCHED_STATES)
    tab.network.swallow()
    await tab.warning("Your network is too slow, so listeners hear you late.")
    await tab.until("states.join() === 'reconnecting,live'")
    await tab.status("You are live.")


async def test_shows_what_the_relay_says(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/watched")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.locator("#listeners", has_text="0").wait_for()
    async with aclosing(listen(relay.url, "watched")) as payloads:
        await anext(payloads)
        await tab.page.locator("#listeners", has_text="1").wait_for()
    await tab.page.locator("#listeners", has_text="0").wait_for()
    await tab.page.locator("#dropped", has_text="0.0s").wait_for()


async def test_names_its_channel_and_language_to_the_listeners(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/named")
    await tab.page.get_by_text("Channel, language and key").click()
    await tab.page.get_by_label("Channel", exact=True).fill("hall.2")
    await tab.page.get_by_label("Language spoken").select_option("pt-BR")
    await tab.page.get_by_label("Name that listeners see").fill("Große Halle & Foyer")
    await tab.press("Go live")
    await tab.status("You are live.")
    address = f"{relay.url.replace('http', 'ws', 1)}/v1/listen/named"
    async with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as listener:
        hello = json.loads(await listener.recv())
    assert hello["channels"] == [{"id": "hall.2", "name": "Große Halle & Foyer", "lang": "pt-BR", "state": "live"}]


async def test_a_name_in_any_language_is_taken_and_any_other_is_told_at_its_field(
    tab: Tab, relay: RelayProcess
) -> None:
    await tab.open("/broadcast/any-language")
    await tab.page.get_by_text("Channel, language and key").click()
    name = tab.page.get_by_label("Name that listeners see")
    await name.fill("x" * 65)
    await tab.press("Go live")
    await mistake(tab, "name", "Enter one line of visible text")
    await tab.status("Nobody hears you yet.")
    await name.fill("\u00a0سالن\u00a0می\u200cخواهم\u3000👩\u200d👧")
    assert await tab.page.locator(".error:visible").count() == 0
    await tab.press("Go live")
    await tab.status("You are live.")
    address = f"{relay.url.replace('http', 'ws', 1)}/v1/listen/any-language"
    async with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as listener:
        (channel,) = json.loads(await listener.recv())["channels"]
    assert channel["name"] == "سالن می\u200cخواهم 👩\u200d👧"


@pytest.mark.parametrize(
    ("amplitude", "sentence"), [(0.0, "There is no sound from the source."), (4.0, "The sound is too loud")]
)
async def test_warns_of_a_source_that_is_silent_or_too_loud(
    tab: Tab, tmp_path: Path, amplitude: float, sentence: str
) -> None:
    file = tmp_path / "sound.wav"
    write_wav(file, amplitude * sine(TONE, RATE, 20), RATE)
    await tab.open(f"/broadcast/level-{amplitude:.0f}")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.page.get_by_label("Audio file").set_input_files(file)
    await tab.press("Go live")
    await tab.warning(sentence)
    meter = tab.page.get_by_role("meter", name="Level")
    shown = {0.0: "no sound", 4.0: "too loud"}[amplitude]
    await tab.page.wait_for_selector(f"#level[aria-valuetext='{shown}']")
    assert (await meter.get_attribute("class") == "meter clipped") == (amplitude > 1)


@pytest.mark.parametrize(("rate", "speed"), [(1.5, "150%"), (0.67, "67%")])
async def test_says_that_the_sound_does_not_come_in_real_time(tab: Tab, rate: float, speed: str) -> None:
    """A browser's sample rate cannot be made wrong on demand, so the test replaces the rate that the relay measured."""
    await tab.open("/broadcast/odd-speed")
    await tab.press("Go live")
    await tab.status("You are live.")
    said = f"{{ stats: {{ ...relayBroadcaster.relay.stats, arrival_rate: {rate} }}, heldBack: false }}"
    await tab.page.evaluate(f"Object.defineProperty(relayBroadcaster, 'relay', {{ value: {said} }})")
    await tab.warning(f"The audio arrives at {speed} of its normal speed")


async def test_keyboard_alone_goes_live_and_stops(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/keyboard")
    await tab.page.get_by_text("Nobody hears you yet.").wait_for()
    reached: list[str] = []
    while "go" not in reached:
        assert len(reached) < 20, reached
        await tab.page.keyboard.press("Tab")
        reached.append(await tab.page.evaluate("document.activeElement.id"))
    assert [name for name in reached if name] == ["language", "device", "echo", "noise", "gain", "rehearse", "go"]
    await tab.page.keyboard.press("Enter")
    await tab.status("You are live.")
    await tab.page.keyboard.press("Space")
    await tab.status("You are off the air.")


async def test_keeps_the_screen_on_while_it_is_live(tab: Tab) -> None:
    await tab.page.add_init_script(
        """
        window.lock = "none";
        navigator.wakeLock.request = async (type) => {
          window.lock = type;
          return { released: false, release: async () => { window.lock = "released"; } };
        };
        """
    )
    await tab.open("/broadcast/awake")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.until("lock === 'screen'")
    await tab.press("Stop")
    await tab.until("lock === 'released'")


async def test_lets_the_screen_go_off_again_however_late_the_browser_kept_it_on(tab: Tab) -> None:
    await tab.page.add_init_script(
        """
        window.held = 0;
        window.answers = [];
        navigator.wakeLock.request = async () => {
          await new Promise((resolve) => answers.push(resolve));
          held += 1;
          return { released: false, release: async () => { held -= 1; } };
        };
        """
    )
    await tab.open("/broadcast/asleep")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.press("Stop")
    await tab.status("You are off the air.")
    await tab.page.evaluate("answers.forEach((answer) => answer())")
    await tab.until("answers.length > 0 && held === 0")
    # Let the events that arrived meanwhile run.
    await tab.page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
    assert await tab.page.evaluate("held") == 0


async def test_asks_before_a_page_is_left_that_is_live(tab: Tab) -> None:
    leave = """
        () => {
          const event = document.createEvent("BeforeUnloadEvent");
          event.initEvent("beforeunload", false, true);
          dispatchEvent(event);
          return [event.defaultPrevented, Boolean(event.returnValue)];
        }
    """
    await tab.open("/broadcast/leaving")
    assert await tab.page.evaluate(leave) == [False, False]
    await tab.press("Go live")
    await tab.status("You are live.")
    assert await tab.page.evaluate(leave) == [True, True]
    await tab.press("Stop")
    await tab.status("You are off the air.")


async def test_meter_stands_still_when_it_has_ended(tab: Tab) -> None:
    await tab.open("/broadcast/still")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.evaluate(
        """
        () => {
          window.late = 0;
          relayBroadcaster.addEventListener("level", () => (late += relayBroadcaster.state === "idle" ? 1 : 0));
          // Levels come meanwhile, and wait for their turn.
          const busyUntil = performance.now() + 200;
          while (performance.now() < busyUntil);
          relayBroadcaster.abort(new Error("gone"));
          relayBroadcaster.stop();
        }
        """
    )
    await tab.page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
    assert await tab.page.evaluate("late") == 0


async def test_key_comes_from_the_fragment_or_the_person_and_never_in_an_address(context: BrowserContext) -> None:
    key = "correct-horse.battery~staple"
    async with relay_process(RELAY_BROADCAST_KEY=key) as relay, open_tab(context, relay.url) as tab:
        await tab.open("/broadcast/guarded#key=wrong-key")
        await tab.press("Go live")
        await mistake(tab, "key", "The relay did not accept the key")
        await tab.status("Nobody hears you yet.")
        field = tab.page.get_by_label("Broadcast key")
        await field.fill("with space")
        await tab.press("Go live")
        await mistake(tab, "key", "Enter at least 8")
        await field.fill(key)
        await tab.press("Go live")
        await tab.status("You are live.")
        await tab.press("Stop")
        await tab.status("You are off the air.")
        assert any("/v1/broadcast/" in target for target in tab.network.requested)
        assert not any(key in target or "wrong-key" in target for target in tab.network.requested)
        assert tab.complaints == []


async def test_asks_for_a_file_before_going_live(tab: Tab, tmp_path: Path) -> None:
    await tab.open("/broadcast/nothing")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.press("Go live")
    await mistake(tab, "file", "Choose a file first.")
    no_audio = tmp_path / "notes.wav"
    no_audio.write_text("not audio")
    await tab.page.get_by_label("Audio file").set_input_files(no_audio)
    await tab.press("Go live")
    await tab.status("The browser cannot read “notes.wav” as audio.")


async def test_shows_the_link_for_the_audience_as_a_code_too(tab: Tab) -> None:
    await tab.open("/broadcast/event/english#key=abcdefgh")
    link = tab.page.get_by_label("Link for the audience")
    code = tab.page.get_by_role("img", name="QR code of the link for the audience")
    await code.wait_for()
    for choice, address in (("This channel", "event/english"), ("All channels", "event")):
        await tab.page.get_by_role("radio", name=choice).check()
        await tab.page.wait_for_selector(f"#code[src='qr/listen/{address}.svg?scheme=http']")
        assert await link.input_value() == f"{tab.network.url}/listen/{address}"
        assert await code.evaluate("async (image) => { await image.decode(); return image.naturalWidth > 0; }")
    await tab.press("Show large")
    poster = tab.page.get_by_role("dialog", name="event")
    await poster.get_by_text(f"{tab.network.url.removeprefix('http://')}/listen/event").wait_for()
    await tab.page.keyboard.press("Escape")
    await poster.wait_for(state="hidden")
    await tab.page.emulate_media(media="print")
    await poster.wait_for()
    assert not await tab.page.get_by_role("button", name="Go live").is_visible()


async def test_no_code_is_shown_that_would_lead_elsewhere(tab: Tab) -> None:
    async def rewrite_host(route: Route) -> None:
        answer = await route.fetch(headers={**route.request.headers, "host": "inside:8080"})
        await route.fulfill(response=answer)

    await tab.page.route("**/qr/**", rewrite_host)
    await tab.open("/broadcast/behind-a-proxy")
    await tab.page.get_by_text("No QR code, because a proxy hides").wait_for()
    assert not await tab.page.locator("#code").is_visible()


async def test_a_session_has_a_title_for_people(tab: Tab, context: BrowserContext, relay: RelayProcess) -> None:
    async with open_tab(context, relay.url) as listener:
        await listener.open("/listen/ev-2031-07")
        await listener.press("Play")
        await tab.open("/broadcast/ev-2031-07")
        await tab.page.get_by_text("Channel, language and key").click()
        title = tab.page.get_by_label("Title of the session")
        await title.fill("x" * 65)
        await tab.press("Go live")
        await mistake(tab, "session-name", "Enter one line of visible text")
        await title.fill("Bürgerversammlung")
        await tab.press("Go live")
        await tab.status("You are live.")
        await listener.page.get_by_role("heading", name="Bürgerversammlung").wait_for()
        assert await listener.page.title() == "Bürgerversammlung – listen live"
        await listener.open("/listen/ev-2031-07")
        await listener.page.get_by_role("heading", name="Bürgerversammlung").wait_for()
        await tab.press("Show large")
        assert await tab.page.locator("#poster-title").text_content() == "Bürgerversammlung"
        assert listener.complaints == []
