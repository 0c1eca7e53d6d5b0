"""The broadcasting page's microphone and files, judged by the bytes that the relay sends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from tests.browser.conftest import MICROPHONE_FREQUENCY, Tab
from tests.browser.ear import page_files
from tests.browser.listening import TRIES
from tests.browser.peers import listen, network
from tests.support.processes import RelayProcess
from tests.support.recording import decode_floats
from tests.support.tone import Samples, assert_clean_tone, from_pcm, is_clean_tone, judge, sine, write_wav

pytestmark = [pytest.mark.ear, pytest.mark.asyncio(loop_scope="session")]

RATE = 16_000
SECONDS = 5

TONE, FILE_SECONDS = 997, 3
ONSET_SAMPLES = 800
"""A tone that starts abruptly rings in the low-pass filter, so the test judges only what follows."""

REMEMBER_MICROPHONES = """
globalThis.microphones = [];
globalThis.MediaStreamAudioSourceNode = class extends MediaStreamAudioSourceNode {
  constructor(...options) {
    super(...options);
    globalThis.microphones.push(this);
  }
};
"""

RECORD_MICROPHONE = """
async (seconds) => {
  const node = microphones.at(-1);
  await node.context.audioWorklet.addModule("/assets/test-tap.js");
  const tap = new AudioWorkletNode(node.context, "test-tap");
  const chunks = [];
  node.connect(tap);
  await new Promise((resolve) => {
    tap.port.onmessage = ({ data }) => {
      chunks.push(...data.left);
      if (chunks.length >= seconds * node.context.sampleRate) {
        resolve();
      }
    };
  });
  node.disconnect(tap);
  return { rate: node.context.sampleRate, samples: encodeFloats(chunks) };
}
"""
"""Records what the microphone delivers to the page, before the page processes it."""


@pytest_asyncio.fixture(loop_scope="session")
async def tab(context: BrowserContext, relay: RelayProcess) -> AsyncIterator[Tab]:
    async with network(relay.url, page_files()) as between:
        page = await context.new_page()
        await page.add_init_script(REMEMBER_MICROPHONES)
        tab = Tab(page, between)
        yield tab
        await page.close()
        assert tab.complaints == []


FADE_SECONDS = 0.1


async def hear(relay_url: str, session: str, seconds: float) -> Samples:
    """Return what a listener hears from now on, without the beginning, where an Opus decoder fades in."""
    heard, wanted = b"", round(2 * RATE * (FADE_SECONDS + seconds))
    async with aclosing(listen(relay_url, session)) as payloads:
        async for payload in payloads:
            heard += payload
            if len(heard) >= wanted:
                break
    return from_pcm(heard)[round(RATE * FADE_SECONDS) :]


async def test_microphone_is_continuous_up_to_the_bytes_that_the_relay_sends(
    tab: Tab, relay: RelayProcess, say: Callable[[str], None]
) -> None:
    """The fake microphone can stutter on a busy machine; then the recording of its output shows the stutter."""
    await tab.open("/broadcast/continuous")
    await tab.press("Go live")
    await tab.state("live")
    for attempt in range(1, TRIES + 1):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(hear(relay.url, "continuous", SECONDS))
            recording = tasks.create_task(tab.page.evaluate(RECORD_MICROPHONE, SECONDS + 1))
        heard = hearing.result()
        given, rate = decode_floats(recording.result()["samples"]), int(recording.result()["rate"])
        if is_clean_tone(heard, RATE, MICROPHONE_FREQUENCY):
            break
        verdict = judge(heard, RATE, MICROPHONE_FREQUENCY)
        assert attempt < TRIES, verdict
        assert not is_clean_tone(given, rate, MICROPHONE_FREQUENCY), verdict
        say("listening again, because the fake microphone stuttered")
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.05)


async def test_a_file_is_continuous_up_to_the_bytes_that_the_relay_sends(
    tab: Tab, relay: RelayProcess, tmp_path: Path
) -> None:
    file = tmp_path / "tone.wav"
    write_wav(file, sine(TONE, 44_100, FILE_SECONDS), 44_100)
    await tab.open("/broadcast/tone")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.page.get_by_label("Audio file").set_input_files(file)
    for _ in range(TRIES):
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            heard = tasks.create_task(_listen_to_the_end(relay.url))
            await tab.press("Go live")
            samples = from_pcm(await heard)
        await tab.status("You are off the air.")
        samples = samples[ONSET_SAMPLES : FILE_SECONDS * RATE - ONSET_SAMPLES]
        if is_clean_tone(samples, RATE, TONE):
            break
    assert_clean_tone(samples, RATE, TONE)


async def _listen_to_the_end(relay_url: str) -> bytes:
    return b"".join([payload async for payload in listen(relay_url, "tone")])
