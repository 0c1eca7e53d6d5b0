"""The broadcasting page sends Opus if the browser can encode it, and PCM otherwise."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from relay.client import Audio, Hello, listen
from relay.media.libopus import OpusDecoder
from relay.vocabulary.audio import AudioFormat, Codec
from tests.browser.conftest import MICROPHONE_FREQUENCY, Tab, open_context
from tests.browser.microphone import hear_microphone
from tests.browser.peers import network
from tests.support.processes import RelayProcess
from tests.support.tone import from_pcm, is_clean_tone, sine, write_wav

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

RATE = 48_000
TONE = 997
PACKET_SAMPLES = 960


async def hear_opus(relay_url: str, session: str, frequency: int) -> None:
    """Wait for a clean second of a tone, because a browser stutters on a busy machine."""
    decoder = OpusDecoder(RATE, 1)
    second = b""
    async with asyncio.timeout(60), listen(relay_url, session, codec="opus") as listener:
        async for event in listener:
            if not isinstance(event, Audio):
                continue
            assert listener.audio_format == AudioFormat(Codec.OPUS, 16_000)
            assert listener.audio_format.measure(event.payload).ticks == PACKET_SAMPLES
            second = (second + decoder.decode(event.payload, PACKET_SAMPLES))[-2 * RATE :]
            if len(second) == 2 * RATE and is_clean_tone(from_pcm(second), RATE, frequency):
                return
    raise AssertionError("the session ended before a clean second")


async def kilobits_shown(page: Page) -> int:
    """Wait until the page shows its bit rate, and return it in kb/s."""
    await page.locator("#bitrate", has_text="kb/s").wait_for()
    return int((await page.locator("#bitrate").text_content() or "").split()[0])


async def test_the_microphone_is_sent_as_opus_and_its_bitrate_shown(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/opus-voice")
    await tab.press("Go live")
    await tab.status("You are live.")
    await hear_opus(relay.url, "opus-voice", MICROPHONE_FREQUENCY)
    assert 20 < await kilobits_shown(tab.page) < 45
    (target,) = (target for target in tab.network.requested if "/v1/broadcast/" in target)
    assert "codec=opus&rate=16000&channels=1" in target


async def test_listeners_of_pcm_hear_it_at_16_khz(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/opus-decoded")
    await tab.press("Go live")
    await tab.status("You are live.")
    await hear_microphone(relay.url, "opus-decoded")


async def test_a_file_is_sent_as_opus_to_its_end(tab: Tab, relay: RelayProcess, tmp_path: Path) -> None:
    file = tmp_path / "tone.wav"
    write_wav(file, sine(TONE, 44_100, 8), 44_100)
    await tab.open("/broadcast/opus-file")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.page.get_by_label("Audio file").set_input_files(file)
    await tab.press("Go live")
    await hear_opus(relay.url, "opus-file", TONE)
    await tab.status("You are off the air.")


async def test_muted_it_sends_packets_of_silence(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/opus-muted")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.press("Mute")
    decoder = OpusDecoder(RATE, 1)
    async with asyncio.timeout(60), listen(relay.url, "opus-muted", codec="opus") as listener:
        silent = 0
        async for event in listener:
            if isinstance(event, Audio):
                heard = from_pcm(decoder.decode(event.payload, PACKET_SAMPLES))
                silent = silent + 1 if abs(heard).max() < 0.001 else 0
                if silent == 50:
                    break
        assert listener.silence == "muted"


async def test_the_broadcast_goes_on_in_opus_after_the_connection_broke(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/opus-broken-off")
    await tab.press("Go live")
    await tab.status("You are live.")
    tab.network.break_down()
    await tab.status("No connection to the relay.")
    tab.network.repair()
    await tab.status("You are live.")
    await hear_opus(relay.url, "opus-broken-off", MICROPHONE_FREQUENCY)


WITHOUT_ENCODER = "delete globalThis.AudioEncoder;"
BROKEN_ENCODER = """
    AudioEncoder = class extends AudioEncoder {
      constructor(init) {
        super(init);
        if (globalThis.tried === undefined) {
          globalThis.tried = true; // the first one is the trial's
        } else {
          setTimeout(() => init.error(new DOMException("The codec was reclaimed.", "QuotaExceededError")), 1500);
        }
      }
    };
"""


@pytest.mark.parametrize("worker", [WITHOUT_ENCODER, BROKEN_ENCODER], ids=["no encoder", "an encoder that fails"])
async def test_without_an_encoder_pcm_is_sent(browser: Browser, relay: RelayProcess, worker: str) -> None:
    session = "opus-fallback"
    async with open_context(browser) as context:
        page = await context.new_page()
        await page.goto(f"{relay.url}/broadcast/{session}")
        source = await page.locator("script[src$='broadcast-page.js']").get_attribute("src")
        assert source is not None
        coding = "/" + source.replace("broadcast-page.js", "coding.js").lstrip("./")
        text = await (await page.request.get(relay.url + coding)).text()
        async with network(relay.url, {coding: (worker + text).encode()}) as between:
            await page.goto(f"{between.url}/broadcast/{session}")
            await page.get_by_role("button", name="Go live", exact=True).click()
            await page.get_by_role("status").filter(has_text="You are live.").wait_for()
            async with asyncio.timeout(60), listen(relay.url, session) as listener:
                async for event in listener:
                    if isinstance(event, Hello) and worker is WITHOUT_ENCODER:
                        assert event.audio_format == AudioFormat()
                    if isinstance(event, Audio) and listener.audio_format == AudioFormat() and any(event.payload):
                        break
            await page.locator("#bitrate", has_text="256 kb/s").wait_for()
            await page.get_by_role("status").filter(has_text="You are live.").wait_for()
            targets = [target for target in between.requested if "/v1/broadcast/" in target]
            assert "codec=pcm_s16le&rate=16000&channels=1" in targets[-1]
            assert len(targets) == (1 if worker is WITHOUT_ENCODER else 2)
            await page.close()
