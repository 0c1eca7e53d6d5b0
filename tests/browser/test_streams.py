"""Chromium plays a channel over HTTP, in an element and from its address."""

import pytest
from playwright.async_api import BrowserContext

from relay.vocabulary.containers import Container
from tests.browser.conftest import Tab
from tests.browser.peers import broadcasting
from tests.support.processes import RelayProcess
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

SOUND = to_pcm(sine(997, 16_000, 1))

HEAR = """async (media) => {
    // The speaker is not heard: an analyser says what the element plays.
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaElementSource(media).connect(analyser);
    analyser.fftSize = 8192;
    await context.resume();
    await media.play();
    const bins = new Float32Array(analyser.frequencyBinCount);
    const until = performance.now() + 20000;
    let hertz = 0;
    while (performance.now() < until && !(media.currentTime > 2 && Math.abs(hertz - 997) < 10)) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        analyser.getFloatFrequencyData(bins);
        hertz = bins.indexOf(Math.max(...bins)) * context.sampleRate / analyser.fftSize;
    }
    return { hertz, seconds: media.currentTime, error: media.error?.message ?? "", paused: media.paused };
}"""


@pytest.mark.parametrize("container", Container)
async def test_an_element_plays_a_stream(tab: Tab, relay: RelayProcess, container: Container) -> None:
    async with broadcasting(relay.url, f"element-{container}", 16_000, SOUND):
        await tab.open("/listen/another")
        media = await tab.page.evaluate_handle(
            """async (path) => {
                const media = new Audio(path);
                await media.play();
                return media;
            }""",
            f"/stream/element-{container}{container.ending}",
        )
        heard = await media.evaluate(HEAR)
    assert heard == {"hertz": pytest.approx(997, abs=10), "seconds": heard["seconds"], "error": "", "paused": False}
    assert heard["seconds"] > 2


@pytest.mark.parametrize("container", Container)
async def test_a_stream_plays_when_a_person_opens_its_address(
    context: BrowserContext, relay: RelayProcess, container: Container
) -> None:
    async with broadcasting(relay.url, f"page-{container}", 16_000, SOUND):
        page = await context.new_page()
        await page.goto(f"{relay.url}/stream/page-{container}{container.ending}", wait_until="commit")
        media = await page.wait_for_selector("video")
        assert media is not None
        heard = await media.evaluate(HEAR)
        await page.close()
    assert heard == {"hertz": pytest.approx(997, abs=10), "seconds": heard["seconds"], "error": "", "paused": False}
