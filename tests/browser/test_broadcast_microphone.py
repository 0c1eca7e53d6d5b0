"""The broadcasting page's microphones: heard, switched, refused, unplugged and plugged in again."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
from playwright.async_api import Browser, BrowserContext

from tests.browser.conftest import INSECURE_HOST, Tab, open_context, open_tab
from tests.browser.microphone import RATE, hear_microphone
from tests.browser.peers import listen
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import from_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]


async def test_microphone_is_heard_by_a_listener(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/voice")
    await tab.press("Go live")
    await tab.status("You are live.")
    await hear_microphone(relay.url, "voice")
    await tab.press("Stop")
    await tab.status("You are off the air.")


async def test_microphone_can_be_changed_while_it_is_live(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/changes")
    await tab.press("Go live")
    await tab.status("You are live.")
    for name in ("echo", "gain"):
        switch = tab.page.locator(f"#{name}")
        await switch.check()
        await tab.page.locator(f"#{name}-granted", has_text="on").wait_for()
        await switch.uncheck()
        await tab.page.locator(f"#{name}-granted", has_text="off").wait_for()
    await hear_microphone(relay.url, "changes")
    assert await tab.page.evaluate("relayBroadcaster.state") == "live"


async def test_says_why_there_is_no_microphone(tab: Tab) -> None:
    await tab.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
    )
    await tab.open("/broadcast/refused")
    await tab.press("Go live")
    await tab.status("The browser did not allow the microphone.")


async def test_gives_a_microphone_back_that_cannot_be_used(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.page.add_init_script(
        """
        MediaStreamAudioSourceNode = class {
          constructor() { throw new DOMException("odd rate", "NotSupportedError"); }
        };
        """
    )
    await tab.open("/broadcast/unusable")
    await tab.press("Go live")
    await tab.status("The microphone cannot be used (NotSupportedError).")
    assert await tab.page.evaluate("opened[0].track.readyState") == "ended"


async def test_says_that_a_microphone_needs_https(tab: Tab) -> None:
    tab.network.url = tab.network.url.replace("127.0.0.1", INSECURE_HOST)
    await tab.open("/broadcast/insecure")
    await tab.status("Open this page at an https:// address")
    assert await tab.page.get_by_role("button", name="Go live").is_disabled()
    tab.forgive("Cross-Origin-Opener-Policy")


WATCHED_MICROPHONES = """
    window.opened = [];
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (options) => {
      if (window.refusal) {
        throw new DOMException("", refusal);
      }
      const stream = await open(options);
      opened.push({ device: options.audio.deviceId?.exact ?? "", track: stream.getAudioTracks()[0] });
      return stream;
    };
"""
"""Chromium's own fake devices cannot be unplugged. These end on request."""


def unplug(number: int) -> str:
    """Return a script that ends the microphone with this number, counted from 0 in the order of opening."""
    return f"opened[{number}].track.dispatchEvent(new Event('ended'))"


async def test_another_microphone_stands_in_until_the_chosen_one_is_back(tab: Tab, relay: RelayProcess) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/unplugged")
    device = tab.page.get_by_label("Device")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.until("document.getElementById('device').options.length > 1")
    chosen = await tab.page.evaluate("document.getElementById('device').options[1].value")
    await device.select_option(chosen)
    await tab.until("opened.length === 2")
    await tab.page.evaluate(unplug(1))
    await tab.until("opened.length === 3")
    await tab.warning("The microphone that you chose is disconnected.")
    assert await tab.page.evaluate("opened.map(({ device }) => device)") == ["", chosen, ""]
    await tab.page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
    await tab.until("opened.length === 4 && document.getElementById('warning').textContent === ''")
    assert await tab.page.evaluate("opened[3].device") == chosen
    await hear_microphone(relay.url, "unplugged")


async def test_who_chose_no_microphone_is_not_told_that_it_is_gone(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/any-microphone")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.evaluate(unplug(0))
    await tab.until("opened.length === 2")
    # The page checks its warnings every half second.
    await tab.page.evaluate("new Promise((resolve) => setTimeout(resolve, 700))")
    assert await tab.page.locator("#warning").text_content() == ""


async def test_a_microphone_that_goes_while_it_connects_is_opened_again(tab: Tab, relay: RelayProcess) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/hasty-plug")
    await tab.page.evaluate(
        """
        relayBroadcaster.addEventListener("statechange", () => {
          if (relayBroadcaster.state === "connecting") {
            opened[0].track.stop();
            opened[0].track.dispatchEvent(new Event("ended"));
          }
        });
        """
    )
    await tab.press("Go live")
    await tab.status("You are live.")
    await hear_microphone(relay.url, "hasty-plug")


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [("NotFoundError", "No microphone was found."), ("NotAllowedError", "The browser did not allow the microphone.")],
)
async def test_the_last_microphone_that_goes_ends_the_broadcast_but_not_the_session(
    tab: Tab, refusal: str, sentence: str
) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/lost")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.evaluate(f"window.refusal = '{refusal}', {unplug(0)}")
    await tab.status(sentence)
    await tab.page.evaluate("window.refusal = null")
    await tab.press("Go live")
    await tab.status("You are live.")


async def test_lists_each_microphone_once(tab: Tab) -> None:
    await tab.page.add_init_script(
        """
        navigator.mediaDevices.enumerateDevices = async () =>
          ["default", "communications", "one"].map((deviceId) => ({ kind: "audioinput", label: "One", deviceId }));
        """
    )
    await tab.open("/broadcast/aliases")
    await tab.until("document.getElementById('device').options.length > 1")
    assert await tab.page.evaluate("[...document.getElementById('device').options].map((o) => o.value)") == ["", "one"]


async def test_the_level_is_seen_before_anybody_hears(tab: Tab, relay: RelayProcess) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/rehearsed")
    await tab.press("Test the microphone")
    await tab.status("Speak, and watch the level. Nobody hears you yet.")
    await tab.page.wait_for_selector("#level[aria-valuetext$=dB]")
    assert not [target for target in tab.network.requested if "/v1/" in target]
    # A change at this point is tested at once, and applies when the page goes live.
    await tab.page.get_by_role("switch", name="Automatic gain").check()
    await tab.until("opened.length === 2 && opened[0].track.readyState === 'ended'")
    await tab.press("Go live")
    await tab.status("You are live.")
    assert await tab.page.evaluate("opened.length") == 2
    await hear_microphone(relay.url, "rehearsed")


async def test_a_test_of_the_microphone_ends_when_the_person_says_so_or_chooses_a_file(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/tested")
    await tab.press("Test the microphone")
    await tab.state("rehearsing")
    await tab.press("End the test")
    await tab.state("idle")
    await tab.press("Test the microphone")
    await tab.state("rehearsing")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.state("idle")
    assert await tab.page.evaluate("opened.map(({ track }) => track.readyState)") == ["ended", "ended"]
    assert await tab.page.locator("#level").get_attribute("aria-valuetext") == "–"


@pytest.mark.parametrize("way", ["the button", "a file", "a new key"])
async def test_neither_a_test_of_the_microphone_nor_a_new_key_ends_a_session_in_its_break(
    context: BrowserContext, way: str
) -> None:
    key = "correct-horse.battery~staple"
    async with relay_process(RELAY_BROADCAST_KEY=key) as relay, open_tab(context, relay.url) as tab:
        await tab.open(f"/broadcast/break#key={key}")
        await tab.press("Go live")
        await tab.status("You are live.")
        await tab.press("Stop")
        await tab.status("Your listeners wait until you go live again.")
        if way == "a new key":
            await tab.page.get_by_text("Channel, language and key").click()
            await tab.page.get_by_label("Broadcast key").fill("an-expired-key")
            await tab.press("Go live")
            await tab.page.get_by_text("The relay did not accept the key").wait_for()
            await tab.open(f"/broadcast/break#key={key}")
        else:
            await tab.press("Test the microphone")
            await tab.state("rehearsing")
            if way == "a file":
                await tab.page.get_by_role("radio", name="File").check()
            else:
                await tab.press("End the test")
        await tab.status("Your listeners wait until you go live again.")
        await tab.page.get_by_role("button", name="End for everybody…").wait_for()
        assert await tab.page.evaluate("relayBroadcaster.state") == "idle"


async def test_the_chosen_microphone_is_remembered(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.open("/broadcast/remembered")
    await tab.press("Test the microphone")
    await tab.until("document.getElementById('device').options.length > 1")
    chosen = await tab.page.evaluate("document.getElementById('device').options[1].value")
    await tab.page.get_by_label("Device").select_option(chosen)
    await tab.page.get_by_role("switch", name="Noise suppression").check()
    # The second change may come while the first opens the microphone, which is then opened once more.
    await tab.until("opened.length >= 3")
    await tab.open("/broadcast/another-session")
    device = tab.page.get_by_label("Device")
    assert await device.input_value() == chosen
    assert await tab.page.get_by_role("switch", name="Noise suppression").is_checked()
    assert not await tab.page.get_by_role("switch", name="Automatic gain").is_checked()
    await tab.press("Go live")
    await tab.status("You are live.")
    assert await tab.page.evaluate("opened.map(({ device }) => device)") == [chosen]


async def test_a_change_while_the_page_still_loads_counts(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.page.add_init_script(
        """
        const mayLoad = new Promise((resolve) => { window.letLoad = resolve; });
        const add = AudioWorklet.prototype.addModule;
        AudioWorklet.prototype.addModule = async function (module) {
          await mayLoad;
          return add.call(this, module);
        };
        """
    )
    await tab.open("/broadcast/slow")
    await tab.press("Test the microphone")
    await tab.until("opened.length === 1")
    await tab.page.get_by_role("switch", name="Noise suppression").check()
    await tab.page.evaluate("letLoad()")
    await tab.until("opened.length === 2 && relayBroadcaster.source?.granted.noiseSuppression === true")


async def test_another_microphone_stands_in_for_a_remembered_one_that_is_not_there(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.page.add_init_script(
        """
        localStorage.setItem("relay.microphone", JSON.stringify({ device: "left-at-home", label: "Good microphone" }));
        """
    )
    await tab.open("/broadcast/left-at-home")
    assert await tab.page.get_by_label("Device").locator("option:checked").text_content() == "Good microphone"
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.warning("The microphone that you chose is disconnected.")


async def test_a_microphone_has_the_name_by_which_it_was_remembered_if_not_the_id(tab: Tab) -> None:
    await tab.page.add_init_script(
        """
        localStorage.setItem("relay.microphone", JSON.stringify({ device: "then", label: "Good microphone" }));
        navigator.mediaDevices.enumerateDevices = async () =>
          ["Other", "Good microphone"].map((label) => ({ kind: "audioinput", label, deviceId: `now-${label}` }));
        """
    )
    await tab.open("/broadcast/renamed")
    await tab.until("document.getElementById('device').value === 'now-Good microphone'")


HELD_PERMISSION = """
    window.asked = 0;
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (options) => {
      window.asked += 1;
      await new Promise((resolve) => (window.allow = resolve));
      return ask(options);
    };
"""
"""The browser waits for permission until the test calls `allow()`."""


async def test_what_is_chosen_while_the_browser_asks_is_what_is_used(tab: Tab) -> None:
    await tab.page.add_init_script(WATCHED_MICROPHONES)
    await tab.page.add_init_script(HELD_PERMISSION)
    await tab.open("/broadcast/undecided")
    await tab.press("Go live")
    await tab.until("asked === 1")
    await tab.page.get_by_role("switch", name="Echo cancellation").check()
    await tab.page.evaluate("allow()")
    await tab.until("asked === 2")
    await tab.page.evaluate("allow()")
    await tab.status("You are live.")
    echo = "({ track }) => [track.readyState, track.getSettings().echoCancellation]"
    assert await tab.page.evaluate(f"opened.map({echo})") == [["ended", False], ["live", True]]
    await tab.page.locator("#echo-granted", has_text="on").wait_for()


async def test_echo_cancellation_that_a_browser_tells_by_a_word_is_on(tab: Tab) -> None:
    await tab.page.add_init_script(
        """
        const { getSettings } = MediaStreamTrack.prototype;
        MediaStreamTrack.prototype.getSettings = function () {
          const settings = getSettings.call(this);
          return { ...settings, echoCancellation: settings.echoCancellation && "all" };
        };
        """
    )
    await tab.open("/broadcast/by-a-word")
    await tab.page.get_by_role("switch", name="Echo cancellation").check()
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.locator("#echo-granted", has_text="on").wait_for()


@pytest.mark.parametrize("name", ["AbortError", "InvalidStateError"])
async def test_a_browser_s_english_is_no_part_of_a_german_sentence(
    browser: Browser, relay: RelayProcess, name: str
) -> None:
    async with open_context(browser, locale="de") as context, open_tab(context, relay.url) as tab:
        await tab.page.add_init_script(
            "navigator.mediaDevices.getUserMedia ="
            f" async () => {{ throw new DOMException('Timeout starting audio source', '{name}'); }}"
        )
        await tab.open("/broadcast/deutsch")
        await tab.page.get_by_role("button", name="Auf Sendung gehen").click()
        await tab.state("failed")
        told = await tab.page.get_by_role("status").text_content()
        assert told is not None
        assert told.startswith("Das Mikrofon lässt sich nicht benutzen")
        assert "Timeout" not in told


async def test_a_voice_on_one_channel_only_is_as_loud_as_it_was_spoken(tab: Tab, relay: RelayProcess) -> None:
    await tab.page.add_init_script(
        """
        navigator.mediaDevices.getUserMedia = async () => {
          const context = new AudioContext();
          const voice = new OscillatorNode(context, { frequency: 440 });
          const left = new ChannelMergerNode(context, { numberOfInputs: 2 });
          const microphone = new MediaStreamAudioDestinationNode(context, { channelCount: 2 });
          voice.connect(new GainNode(context, { gain: 0.5 })).connect(left, 0, 0).connect(microphone);
          voice.start();
          return microphone.stream;
        };
        """
    )
    await tab.open("/broadcast/left")
    await tab.press("Go live")
    await tab.status("You are live.")
    loudest = 0.0
    async with asyncio.timeout(20), aclosing(listen(relay.url, "left")) as payloads:
        heard = b""
        async for payload in payloads:
            heard += payload
            if len(heard) > 2 * RATE:
                # On a busy machine, a frame may be missing. The codec makes a short peak at its edges.
                loudest = float(np.percentile(np.abs(from_pcm(heard)), 99))
                break
    assert loudest == pytest.approx(0.5, rel=0.05)
