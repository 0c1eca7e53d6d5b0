"""The broadcasting page, judged by what a listener gets."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext

from tests.browser.conftest import INSECURE_HOST, MICROPHONE_FREQUENCY, Tab, open_tab
from tests.browser.peers import broadcasting, listen
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import assert_clean_tone, from_pcm, is_clean_tone, sine, to_pcm, write_wav

pytestmark = pytest.mark.asyncio(loop_scope="session")

RATE = 16_000
TONE = 997
FILE_SECONDS = 3

ONSET_SAMPLES = 800
"""A tone that begins at once rings in the low-pass; what is judged begins behind that."""


async def listen_to_the_end(relay_url: str, path: str) -> bytes:
    return b"".join([payload async for payload in listen(relay_url, path)])


async def hear_microphone(relay_url: str, path: str) -> None:
    """Wait for a clean second of the tone; the fake microphone runs on a timer and stutters on a busy machine."""
    second = b""
    async with asyncio.timeout(20), aclosing(listen(relay_url, path)) as payloads:
        async for payload in payloads:
            second = (second + payload)[-2 * RATE :]
            if len(second) == 2 * RATE and is_clean_tone(from_pcm(second), RATE, MICROPHONE_FREQUENCY):
                break


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
        await tab.page.get_by_role("switch", name=name).check()
        await tab.page.get_by_role("switch", name=name).uncheck()
    await hear_microphone(relay.url, "changes")
    assert await tab.page.evaluate("relayBroadcaster.state") == "live"


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
    assert len(samples) >= FILE_SECONDS * RATE
    samples = samples[: FILE_SECONDS * RATE - ONSET_SAMPLES]
    assert_clean_tone(samples[ONSET_SAMPLES:], RATE, TONE)
    await tab.status("You are off the air.")


async def test_says_that_the_channel_has_a_broadcaster(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "busy", RATE, to_pcm(sine(TONE, RATE, 1))):
        await tab.open("/broadcast/busy")
        await tab.press("Go live")
        await tab.status("has a broadcaster")
        assert await tab.page.evaluate("relayBroadcaster.closeCode") == 4503
        await tab.page.get_by_role("button", name="Go live").wait_for()


async def test_broadcast_goes_on_after_the_connection_broke(tab: Tab, relay: RelayProcess) -> None:
    await tab.page.add_init_script(
        """
        window.refused = new Promise((resolve) => {
          window.WebSocket = class extends WebSocket {
            constructor(...options) {
              super(...options);
              this.addEventListener("close", ({ code }) => code === 4503 && resolve());
            }
          };
        });
        """
    )
    await tab.open("/broadcast/broken-off")
    await tab.press("Go live")
    await tab.status("You are live.")
    tab.network.break_down()
    await tab.status("No connection to the relay.")
    # The relay may still hold the channel for the connection that broke; here somebody else holds it.
    async with broadcasting(relay.url, "broken-off", RATE, to_pcm(sine(TONE, RATE, 1))):
        tab.network.repair()
        await tab.page.evaluate("refused")
        await tab.status("No connection to the relay.")
    await tab.status("You are live.")
    await tab.status("were lost on the way to the relay")
    tab.forgive("WebSocket connection")


async def test_key_comes_from_the_fragment_or_the_person_and_never_in_an_address(context: BrowserContext) -> None:
    key = "correct-horse.battery~staple"
    async with relay_process(RELAY_BROADCAST_KEY=key) as relay, open_tab(context, relay.url) as tab:
        requested: list[str] = []
        tab.page.on("request", lambda request: requested.append(request.url))
        tab.page.on("websocket", lambda socket: requested.append(socket.url))
        await tab.open("/broadcast/guarded#key=wrong-key")
        await tab.press("Go live")
        await tab.status("missing, wrong, expired")
        field = tab.page.get_by_label("Broadcast key")
        assert await field.get_attribute("aria-invalid") == "true"
        await field.fill("with space")
        await tab.press("Go live")
        await tab.status("A broadcast key is 8 to 256")
        await field.fill(key)
        await tab.press("Go live")
        await tab.status("You are live.")
        await tab.press("Stop")
        await tab.status("You are off the air.")
        assert any(address.startswith("ws://") for address in requested)
        # Playwright shows the fragment of a page's address, which the browser keeps to itself.
        assert not any(key in address or "wrong-key" in address.partition("#")[0] for address in requested)
        assert tab.complaints == []


async def test_asks_for_a_file_before_going_live(tab: Tab, tmp_path: Path) -> None:
    await tab.open("/broadcast/nothing")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.press("Go live")
    await tab.status("Choose a file first.")
    no_audio = tmp_path / "notes.wav"
    no_audio.write_text("not audio")
    await tab.page.get_by_label("Audio file").set_input_files(no_audio)
    await tab.press("Go live")
    await tab.status("The browser can not read “notes.wav” as audio.")


async def test_says_why_there_is_no_microphone(tab: Tab) -> None:
    await tab.page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
    )
    await tab.open("/broadcast/refused")
    await tab.press("Go live")
    await tab.status("The browser did not allow the microphone.")


async def test_says_that_a_microphone_needs_https(tab: Tab) -> None:
    tab.network.url = tab.network.url.replace("127.0.0.1", INSECURE_HOST)
    await tab.open("/broadcast/insecure")
    await tab.status("Open this page through an https:// address")
    assert await tab.page.get_by_role("button", name="Go live").is_disabled()


async def test_lost_microphone_ends_the_broadcast_but_not_the_session(tab: Tab) -> None:
    await tab.page.add_init_script(
        """
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (options) => (window.stream = await open(options));
        """
    )
    await tab.open("/broadcast/lost")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.page.evaluate("stream.getAudioTracks()[0].dispatchEvent(new Event('ended'))")
    await tab.status("The microphone is gone.")
    await tab.press("Go live")
    await tab.status("You are live.")


async def test_shows_the_link_for_the_audience(tab: Tab) -> None:
    await tab.open("/broadcast/event/english#key=abcdefgh")
    link = tab.page.get_by_label("Link for the audience")
    assert await link.input_value() == f"{tab.network.url}/listen/event/english"
