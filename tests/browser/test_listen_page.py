"""The listening page, judged by what its player sends to the speakers."""

import asyncio
import base64
import re
from itertools import groupby
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.async_api import Browser, BrowserContext, WebSocket

from tests.browser.conftest import Tab, open_context, open_tab
from tests.browser.media_elements import hear
from tests.browser.peers import broadcasting, claimed
from tests.support.operator import ask
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import Samples, judge, sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997
OTHER_TONE = 613

MONO_16K = to_pcm(sine(TONE, 16_000, 1))

ONSET_SECONDS = 0.05
"""Playback fades in, so tests judge only what follows."""


async def record(tab: Tab, seconds: float) -> tuple[int, Samples, Samples]:
    """Record what the page plays after the onset; return the sample rate, left and right."""
    async with asyncio.timeout(seconds + 20):
        recording = await tab.page.evaluate("(seconds) => recordPlayer(seconds)", seconds)
    rate = int(recording["rate"])
    left, right = (
        np.frombuffer(base64.b64decode(recording[side]), np.float32).astype(np.float64)[int(ONSET_SECONDS * rate) :]
        for side in ("left", "right")
    )
    return rate, left, right


def hears(samples: Samples, rate: int, tone: int) -> bool:
    """Whether a recording contains this tone; catching up with the broadcaster blurs its pitch slightly."""
    return abs(judge(samples, rate, tone).frequency - tone) < 20


async def level_db(tab: Tab) -> float:
    """Return the level of what the page plays within a second."""
    rate, left, _ = await record(tab, 1)
    return float(np.median(judge(left, rate, TONE).levels_db))


async def test_plays_what_is_broadcast_once_somebody_does(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/mono")
    await tab.press("Play")
    await tab.status("The session has not begun yet. The sound will start automatically.")
    async with broadcasting(relay.url, "mono", 16_000, MONO_16K):
        await tab.status("You are listening live.")
        rate, left, right = await record(tab, 2)
    assert hears(left, rate, TONE)
    assert np.array_equal(left, right)


async def test_plays_stereo_with_each_side_in_its_place(tab: Tab, relay: RelayProcess) -> None:
    second = to_pcm(sine(TONE, 48_000, 1), sine(OTHER_TONE, 48_000, 1))
    async with broadcasting(relay.url, "stereo/music", 48_000, second):
        await tab.open("/listen/stereo/music")
        await tab.press("Play")
        await tab.state("playing")
        rate, left, right = await record(tab, 2)
    assert hears(left, rate, TONE)
    assert hears(right, rate, OTHER_TONE)


async def test_languages_have_their_own_names_and_the_person_s_comes_first(
    browser: Browser, relay: RelayProcess
) -> None:
    names = ["English", "Deutsch", "العربية", "Hall two"]
    german = to_pcm(sine(OTHER_TONE, 16_000, 1))
    async with (
        open_context(browser, locale="de-AT") as context,
        open_tab(context, relay.url) as tab,
        claimed(relay.url, "tongues/main", "lang=en"),
        broadcasting(relay.url, "tongues/de?lang=de", 16_000, german),
        claimed(relay.url, "tongues/ar", "lang=ar"),
        claimed(relay.url, "tongues/hall", "name=Hall%20two"),
    ):
        await tab.open("/listen/tongues")
        await tab.page.get_by_role("radio", name="Deutsch – live").wait_for()
        labels = tab.page.locator("#channels label")
        assert sorted([(await label.inner_text()).split("\n")[0] for label in await labels.all()]) == sorted(names)
        assert await tab.page.get_by_role("radio", name="Deutsch").is_checked()
        assert await labels.get_by_text("العربية").get_attribute("dir") == "rtl"
        # These words belong to the page and use its language.
        assert await labels.locator(".visually-hidden:not([lang])").count() == len(names)
        await tab.press("Hören")
        await tab.state("playing")
        rate, left, _ = await record(tab, 1)
        assert hears(left, rate, OTHER_TONE)
        assert tab.complaints == []


async def test_switches_channel_by_keyboard_and_keeps_the_address(tab: Tab, relay: RelayProcess) -> None:
    async with (
        broadcasting(relay.url, "switch/en?lang=en", 16_000, MONO_16K),
        broadcasting(relay.url, "switch/fr?lang=fr", 16_000, to_pcm(sine(OTHER_TONE, 16_000, 1))),
    ):
        await tab.open("/listen/switch/en")
        await tab.press("Play")
        await tab.state("playing")
        await tab.page.get_by_role("radio", name="English").focus()
        await tab.page.keyboard.press("ArrowRight")
        await tab.page.wait_for_url("**/listen/switch/fr")
        assert await tab.page.evaluate("document.activeElement.value") == "fr"
        await tab.until("relayPlayer.channel === 'fr' && relayPlayer.state === 'playing'")
        rate, left, _ = await record(tab, 2)
        assert hears(left[rate:], rate, OTHER_TONE)


async def test_an_idle_page_watches_the_channel_that_it_would_play_and_hears_no_other(browser: Browser) -> None:
    async with (
        relay_process(
            RELAY_BROADCAST_OPEN="true", RELAY_CHANNEL_DECLARED="idle/de de Deutsch;idle/fr fr Français"
        ) as relay,
        open_context(browser, locale="de") as context,
        open_tab(context, relay.url) as tab,
        broadcasting(relay.url, "idle/main?lang=en", 16_000, MONO_16K),
    ):
        sockets: list[WebSocket] = []

        def note(socket: WebSocket) -> None:
            sockets.append(socket)

        async def watches(path: str) -> None:
            """Wait until the page has only one connection, and that one is to this channel."""
            async with asyncio.timeout(60):
                while [urlsplit(each.url).path for each in sockets if not each.is_closed()] != [f"/v1/listen/{path}"]:
                    await tab.page.wait_for_timeout(20)

        tab.page.on("websocket", note)
        await tab.open("/listen/idle")
        await watches("idle/de")
        before = len(sockets)
        # A held arrow key chooses each channel for a moment, and ends at the French one.
        await tab.page.evaluate("""() => {
            for (let i = 0; i < 10; i += 1) {
                document.querySelectorAll("#channels input")[i % 3].click();
            }
            document.querySelector("#channels input[value=fr]").click();
        }""")
        await watches("idle/fr")
        assert len(sockets) == before + 1
        await tab.page.get_by_role("radio", name="English").check()
        await tab.status("Die Sitzung läuft live.")


async def test_a_screen_reader_keeps_its_place_among_the_channels_while_the_state_changes(
    tab: Tab, relay: RelayProcess
) -> None:
    async with (
        broadcasting(relay.url, "kept/en?lang=en", 16_000, MONO_16K),
        claimed(relay.url, "kept/fr", "lang=fr"),
    ):
        await tab.open("/listen/kept")
        await tab.page.get_by_role("radio", name="English").focus()
        await tab.page.evaluate("window.focused = document.activeElement")
        await tab.page.evaluate("relayPlayer.play()")
        await tab.state("playing")
        assert await tab.page.evaluate("focused === document.activeElement && focused.checked")
        await tab.page.get_by_label("Language of this page").select_option("es")
        await tab.page.get_by_role("radio", name="Français – en directo").wait_for()


async def test_who_waits_before_there_is_a_channel_gets_it_when_it_comes(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/early")
    await tab.press("Play")
    await tab.state("waiting")
    async with broadcasting(relay.url, "early/en?lang=en", 16_000, MONO_16K):
        await tab.state("playing")
        assert await tab.page.evaluate("relayPlayer.channel") == "en"


async def test_keyboard_alone_plays_turns_down_and_stops(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "keys", 16_000, MONO_16K):
        await tab.open("/listen/keys")
        await tab.status("The session is live.")
        reached: list[str] = []
        for _ in range(5):
            await tab.page.keyboard.press("Tab")
            reached.append(await tab.page.evaluate("document.activeElement.id || document.activeElement.name"))
            if reached[-1] == "play":
                await tab.page.keyboard.press("Enter")
            elif reached[-1] == "volume":
                await tab.page.keyboard.press("PageDown")
            elif reached[-1] == "latency":
                await tab.page.keyboard.press("ArrowRight")
        assert reached == ["", "language", "play", "volume", "latency"]
        await tab.state("playing")
        assert await tab.page.get_by_label("Volume").input_value() == "90"
        assert await tab.page.evaluate("relayPlayer.latency") == "stable"
        await tab.page.get_by_role("button", name="Stop").focus()
        await tab.page.keyboard.press("Space")
        await tab.state("idle")
        # The page remembers both.
        await tab.open("/listen/keys")
        assert await tab.page.get_by_label("Volume").input_value() == "90"
        assert await tab.page.get_by_role("radio", name="Stable").is_checked()


async def test_says_each_state_once_and_nothing_else(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/said")
    await tab.status("The session has not begun yet.")
    assert await tab.page.locator("[aria-live], [role=status], [role=alert], output").count() == 1
    await tab.page.evaluate(
        """
        () => {
          window.said = [];
          const status = document.getElementById("status");
          new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true, subtree: true });
        }
        """
    )
    await tab.press("Play")
    await tab.state("waiting")
    async with broadcasting(relay.url, "said", 16_000, MONO_16K):
        await tab.until("relayPlayer.state === 'playing' && relayPlayer.stats.delayMs > 0")
        await tab.until("document.getElementById('delay-shape').getAttribute('d').length > 40")
    await tab.state("ended")
    said = await tab.page.evaluate("said")
    # On a busy machine, the page may report an interruption, and then what it reported before.
    said = [one for one, _ in groupby(one for one in said if "interruption" not in one)]
    assert len(said) == len(set(said))
    assert said[-2:] == [
        "You are listening live.",
        "The session has ended. Thank you for listening. If it begins again, the sound will start automatically.",
    ]


async def test_shows_buffer_and_delay(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "shown", 16_000, MONO_16K):
        await tab.open("/listen/shown")
        assert not await tab.page.locator("#running").is_visible()
        await tab.press("Play")
        await tab.state("playing")
        await tab.page.get_by_text("Details", exact=True).click()
        for number in ("delay", "buffer"):
            await tab.page.locator(f"#{number}", has_text="ms").wait_for()
        await tab.page.get_by_role("img", name="Delay").wait_for()
        await tab.page.locator("#codec", has_text=re.compile(r"^Opus, [1-9]\d* kb/s$")).wait_for()


async def test_saves_data_where_somebody_wants_that_and_remembers_it(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "saved", 16_000, MONO_16K):
        await tab.open("/listen/saved")
        await tab.page.get_by_label("Save data").check()
        await tab.page.reload()
        assert await tab.page.get_by_label("Save data").is_checked()
        await tab.press("Play")
        await tab.state("playing")
    assert any("/v1/listen/saved" in target and "packet_ms=60" in target for target in tab.network.requested)


@pytest.mark.parametrize("fragment", ["", "#token=abcdefgh", "#token=abcdefgh)"])
async def test_a_session_that_needs_a_token_says_so_before_anybody_presses_play(
    context: BrowserContext, fragment: str
) -> None:
    settings = {"RELAY_ACCESS_TOKEN_SECRET": "0123456789abcdef" * 2, "RELAY_ACCESS_OPEN_SESSIONS": "[]"}
    async with relay_process(**settings) as relay, open_tab(context, relay.url) as tab:
        await tab.open(f"/listen/members{fragment}")
        await tab.status("You need a valid invitation link")
        await tab.press("Play")
        await tab.state("failed")
        await tab.status("You need a valid invitation link")
        assert tab.complaints == []


async def test_what_can_be_no_token_keeps_nobody_out_of_an_open_session(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "open", 16_000, MONO_16K):
        await tab.open("/listen/open#token=abcdefgh)")
        await tab.press("Play")
        await tab.state("playing")


async def test_says_in_the_person_s_language_why_it_ended(browser: Browser) -> None:
    key = "an-admin-key"
    async with (
        relay_process(RELAY_BROADCAST_OPEN="true", RELAY_ACCESS_ADMIN_KEY=key) as relay,
        open_context(browser, locale="de") as context,
        open_tab(context, relay.url) as tab,
    ):
        await tab.open("/listen/sent-away")
        await tab.press("Hören")
        await tab.state("waiting")
        (listener,) = (await ask(relay.url, "GET", "/v1/sessions/sent-away", key)).json["worst_listeners"]
        await ask(relay.url, "DELETE", f"/v1/sessions/sent-away/connections/{listener['connection_id']}", key)
        await tab.status("Der Betreiber des Relays hat diese Verbindung geschlossen.")
        assert tab.complaints == []


async def test_says_in_the_person_s_language_that_a_part_is_missing(browser: Browser, relay: RelayProcess) -> None:
    async with open_context(browser, locale="de") as context, open_tab(context, relay.url) as tab:
        await tab.page.add_init_script("AudioWorklet.prototype.addModule = async () => { throw new Error('gone'); }")
        await tab.open("/listen/half-loaded")
        await tab.press("Hören")
        await tab.status("Ein Teil dieser Seite konnte nicht geladen werden.")
        assert tab.complaints == []


async def test_volume_and_stop(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "volume", 16_000, MONO_16K):
        await tab.open("/listen/volume")
        await tab.page.get_by_label("Volume").fill("50")
        await tab.press("Play")
        await tab.state("playing")
        async with asyncio.timeout(60):
            # On a busy machine, the sound may falter while it is recorded.
            while await level_db(tab) != pytest.approx(-12, abs=0.5):
                pass
        await tab.press("Stop")
        await tab.status("Press Play")
        assert await tab.page.evaluate("relayPlayer.context") is None


async def test_stop_right_after_play(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "hasty", 16_000, MONO_16K):
        await tab.open("/listen/hasty")
        for _ in range(3):
            await tab.page.evaluate("document.getElementById('play').click(), document.getElementById('play').click()")
        assert await tab.page.evaluate("relayPlayer.state") == "idle"
        await tab.press("Play")
        await tab.state("playing")


async def test_says_when_the_session_has_ended(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/over")
    await tab.press("Play")
    await tab.state("waiting")
    async with broadcasting(relay.url, "over", 16_000, MONO_16K):
        await tab.state("playing")
    await tab.status("The session has ended.")
    assert await tab.page.evaluate("relayPlayer.state") == "ended"
    await tab.page.get_by_role("button", name="Play").wait_for()


async def test_plays_an_http_stream_where_websockets_are_refused_and_goes_back_to_them(
    tab: Tab, relay: RelayProcess
) -> None:
    tab.network.block_websockets()
    await tab.open("/listen/refused")
    await tab.page.evaluate("""() => {
        // The player keeps its element to itself, so the page remembers each one that it makes.
        globalThis.elements = [];
        globalThis.Audio = class extends Audio {
            constructor(...options) {
                super(...options);
                elements.push(this);
            }
        };
    }""")
    async with broadcasting(relay.url, "refused", 16_000, MONO_16K):
        await tab.press("Play")
        await tab.status("You hear an ordinary stream, several seconds late.")
        await tab.state("playing")
        assert await tab.page.evaluate("relayPlayer.code") == "http"
        element = await tab.page.evaluate_handle("elements.find((each) => each.src.includes('/stream/'))")
        assert (await hear(element, TONE))["hertz"] == pytest.approx(TONE, abs=10)
        tab.network.repair()
        await tab.status("You are listening live.")
        assert await element.evaluate("(each) => each.paused && !each.hasAttribute('src')")
        rate, left, _ = await record(tab, 1)
    assert hears(left, rate, TONE)


async def test_says_what_may_be_in_the_way_when_it_never_connects_and_plays_once_it_does(
    tab: Tab, relay: RelayProcess
) -> None:
    tab.network.block_audio()
    async with broadcasting(relay.url, "blocked", 16_000, MONO_16K):
        await tab.open("/listen/blocked")
        await tab.page.evaluate("""() => {
            globalThis.states = [];
            relayPlayer.addEventListener("statechange", ({ detail }) => states.push(detail.state));
        }""")
        await tab.press("Play")
        await tab.status("The relay does not answer.")
        assert set(await tab.page.evaluate("states")) == {"connecting"}
        await tab.page.get_by_label("Language of this page").select_option("de")
        await tab.status("Das Relay antwortet nicht.")
        tab.network.repair()
        await tab.state("playing")
        await tab.status("Sie hören live.")


WRONG_TIMESTAMP = """
Object.defineProperty(AudioContext.prototype, "outputLatency", { value: 0 });
AudioContext.prototype.getOutputTimestamp = function () {
  return { contextTime: this.currentTime / this.sampleRate, performanceTime: performance.now() };
};
globalThis.speakerMs = [];
const { postMessage } = Worker.prototype;
Worker.prototype.postMessage = function (message, ...more) {
  if (message.type === "speaker") {
    speakerMs.push(message.ms);
  }
  return postMessage.call(this, message, ...more);
};
"""
"""The output timestamp as Safari up to 17.4 reports it, and the correction that the page sent to the Worker."""


async def test_a_browser_that_is_wrong_about_its_speaker_does_not_make_the_delay_grow(
    tab: Tab, relay: RelayProcess
) -> None:
    await tab.page.add_init_script(WRONG_TIMESTAMP)
    async with broadcasting(relay.url, "wrong-clock", 16_000, MONO_16K):
        await tab.open("/listen/wrong-clock")
        await tab.press("Play")
        await tab.state("playing")
        await tab.until("relayPlayer.context.currentTime > 4")
        base_ms, told_ms = await tab.page.evaluate("[relayPlayer.context.baseLatency * 1000, speakerMs]")
        assert set(told_ms) == {base_ms}


async def test_connects_again_after_the_connection_broke(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "broken", 16_000, MONO_16K):
        await tab.open("/listen/broken")
        await tab.press("Play")
        await tab.state("playing")
        tab.network.break_down()
        await tab.status("Connection lost. Reconnecting…")
        tab.network.repair()
        await tab.state("playing")
        rate, left, _ = await record(tab, 1)
        assert hears(left, rate, TONE)


async def test_connects_again_when_the_relay_is_not_heard_any_more(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "swallowed", 16_000, MONO_16K):
        await tab.open("/listen/swallowed")
        await tab.press("Play")
        await tab.state("playing")
        tab.network.swallow()
        await tab.status("A short interruption.")
        # The old connection carries nothing any more, so this is a new one.
        await tab.state("playing")


async def test_says_when_the_browser_holds_the_sound_back(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "held-back", 16_000, MONO_16K):
        await tab.open("/listen/held-back")
        await tab.press("Play")
        await tab.state("playing")
        await tab.page.evaluate("relayPlayer.context.suspend()")
        await tab.status("The browser blocked the sound.")
        await tab.press("Play")
        await tab.state("playing")


async def test_goes_on_at_a_press_when_a_telephone_call_keeps_the_sound(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "called", 16_000, MONO_16K):
        await tab.open("/listen/called")
        await tab.press("Play")
        await tab.state("playing")
        # Safari interrupts the context, and may never resume it.
        await tab.page.evaluate("Object.defineProperty(relayPlayer.context, 'state', { value: 'interrupted' })")
        await tab.status("Another app is using the sound")
        await tab.press("Play")
        await tab.state("playing")


async def test_plays_on_plain_http_too(insecure_tab: tuple[Tab, RelayProcess]) -> None:
    tab, relay = insecure_tab
    async with broadcasting(relay.url, "insecure", 16_000, MONO_16K):
        await tab.open("/listen/insecure")
        await tab.press("Play")
        await tab.state("playing")


async def test_an_id_that_is_no_name_gets_the_sentence(tab: Tab) -> None:
    answer = await tab.page.request.get(f"{tab.network.url}/listen/no%20name")
    assert answer.status == 400
    assert "The session id 'no%20name' must have 1 to 64" in await answer.text()


async def test_start_page_leads_to_the_session(tab: Tab) -> None:
    await tab.open("/")
    await tab.page.get_by_label("Session").fill("not a name")
    await tab.press("Listen")
    await tab.page.get_by_role("alert").filter(has_text="without spaces").wait_for()
    await tab.page.get_by_label("Session").fill("town-hall")
    await tab.press("Listen")
    await tab.page.wait_for_url("**/listen/town-hall")
    await tab.page.get_by_role("heading", name="town-hall").wait_for()


async def test_who_waits_is_told_whether_it_has_not_begun_or_makes_a_pause(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/paused")
    await tab.press("Play")
    await tab.status("The session has not begun yet. The sound will start automatically.")
    async with claimed(relay.url, "paused"):
        await tab.state("buffering")
    await tab.status("The broadcast is interrupted. The sound will return automatically.")
    async with claimed(relay.url, "paused/other"):
        await tab.page.locator("#channels label", has_text="other").click()
        await tab.state("buffering")
        await tab.page.locator("#channels label", has_text="main").click()
        await tab.status("The broadcast is interrupted. The sound will return automatically.")
