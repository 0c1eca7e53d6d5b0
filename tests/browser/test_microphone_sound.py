"""The broadcasting page's microphone, judged by the bytes that the relay sends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

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
from tests.support.tone import Samples, from_pcm, is_clean_tone, judge

pytestmark = [pytest.mark.ear, pytest.mark.asyncio(loop_scope="session")]

RATE = 16_000
SECONDS = 5

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
