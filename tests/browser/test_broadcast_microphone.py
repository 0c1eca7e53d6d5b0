"""The broadcasting page's microphones: heard, changed, refused, pulled out and put back."""

import pytest

from tests.browser.conftest import INSECURE_HOST, Tab
from tests.browser.microphone import hear_microphone
from tests.support.processes import RelayProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    for name in ("Echo cancellation", "Automatic gain"):
        switch = tab.page.get_by_role("switch", name=name)
        await switch.check()
        await tab.page.locator("label", has=switch).filter(has_text="is on").wait_for()
        await switch.uncheck()
        await tab.page.locator("label", has=switch).filter(has_text="is off").wait_for()
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
    await tab.status("The microphone cannot be used: odd rate")
    assert await tab.page.evaluate("opened[0].track.readyState") == "ended"


async def test_says_that_a_microphone_needs_https(tab: Tab) -> None:
    tab.network.url = tab.network.url.replace("127.0.0.1", INSECURE_HOST)
    await tab.open("/broadcast/insecure")
    await tab.status("Open this page through an https:// address")
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
"""Chromium's own fake devices cannot be unplugged: these end when told to."""


def unplug(number: int) -> str:
    """Give a script that ends the microphone that was opened as this one, from 0."""
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
    await tab.warning("The chosen microphone is gone.")
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
    # The warnings are looked at each half second.
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
