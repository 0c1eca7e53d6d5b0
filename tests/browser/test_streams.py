"""Chromium plays a channel over HTTP, in an element and from its address."""

import pytest
from playwright.async_api import BrowserContext

from relay.vocabulary.containers import Container
from tests.browser.conftest import Tab
from tests.browser.media_elements import hear
from tests.browser.peers import broadcasting
from tests.support.processes import RelayProcess
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997
SOUND = to_pcm(sine(TONE, 16_000, 1))


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
        heard = await hear(media, TONE)
    assert heard == {"hertz": pytest.approx(TONE, abs=10), "seconds": heard["seconds"], "error": "", "paused": False}
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
        heard = await hear(media, TONE)
        await page.close()
    assert heard == {"hertz": pytest.approx(TONE, abs=10), "seconds": heard["seconds"], "error": "", "paused": False}
