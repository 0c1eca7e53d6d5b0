"""All pages of a relay under a path of nginx, as docs/guides/https.md describes: no request leaves the path."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext

from tests.browser.conftest import MICROPHONE_FREQUENCY, Tab, open_context
from tests.browser.peers import Network, broadcasting
from tests.browser.pitch import PITCH
from tests.support.certificates import make_certificate
from tests.support.nginx import nginx, site_under_a_path
from tests.support.processes import RelayProcess
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

GERMAN_TONE = 997

CLIENT_LEFT = 499
"""The status that nginx logs when a client leaves before the answer, as a page does that is loaded again."""


@dataclass(frozen=True)
class Site:
    """A relay under a path.

    Attributes:
        url: `https://127.0.0.1:PORT/relay`.
        log: nginx's log of all requests.
    """

    url: str
    log: Path

    @asynccontextmanager
    async def tab(self, context: BrowserContext) -> AsyncIterator[Tab]:
        """Open an empty page, and fail at the end if the browser complained."""
        network = Network(0, {})
        network.url = self.url
        page = await context.new_page()
        tab = Tab(page, network)
        yield tab
        await page.close()
        assert tab.complaints == []

    def requests(self) -> list[tuple[str, int]]:
        """Return the path and status of every finished request, whether from a page, a Worker or a script."""
        found = re.findall(r'"GET (\S+)" ([0-9]{3}) ', self.log.read_text(encoding="utf-8"))
        return [(path, int(status)) for path, status in found]

    async def requested(self, path: str) -> None:
        """Wait until nginx has logged a request. It logs a WebSocket when the connection ends."""
        async with asyncio.timeout(20):
            while path not in dict(self.requests()):  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.02)


@asynccontextmanager
async def under_a_path(relay: RelayProcess, folder: Path) -> AsyncIterator[Site]:
    """Run nginx in front of a relay."""
    port = urlsplit(relay.url).port
    assert port is not None
    async with nginx(folder, make_certificate(folder), port, site=site_under_a_path()) as (_, secure_port):
        yield Site(f"https://127.0.0.1:{secure_port}/relay", folder / "access.log")


async def hears(tab: Tab, tone: int) -> None:
    """Wait until the player's output is a tone."""
    await tab.page.evaluate(PITCH)
    await tab.until(f"Math.abs(pitch() - {tone}) < 20")


async def test_every_page_works_and_no_request_leaves_the_path(
    browser: Browser, relay: RelayProcess, tmp_path: Path
) -> None:
    async with (
        under_a_path(relay, tmp_path) as site,
        open_context(browser, ignore_https_errors=True) as context,
    ):
        async with site.tab(context) as broadcaster, site.tab(context) as listener:
            await broadcast_from_the_start_page(site, broadcaster)
            async with broadcasting(relay.url, "path/de?lang=de", 16_000, to_pcm(sine(GERMAN_TONE, 16_000, 1))):
                await listen_and_choose(site, listener)
                await embed(site, listener)
            await broadcaster.press("Stop")
            await broadcaster.status("You are off the air.")
        for path in ("/relay/v1/broadcast/path/main", "/relay/v1/listen/path/main", "/relay/v1/listen/path/de"):
            await site.requested(path)
        assert "/relay/qr/listen/path.svg" in dict(site.requests())
        for path, status in site.requests():
            assert f"{path}/".startswith("/relay/")
            assert status < 400 or status == CLIENT_LEFT, path


async def broadcast_from_the_start_page(site: Site, tab: Tab) -> None:
    await tab.open("")
    await tab.page.wait_for_url(f"{site.url}/")
    await tab.page.get_by_label("Session").fill("path")
    await tab.press("Broadcast")
    await tab.page.wait_for_url(f"{site.url}/broadcast/path")
    code = tab.page.get_by_role("img", name="QR code of the link for the audience")
    await code.wait_for()
    assert await code.evaluate("async (image) => { await image.decode(); return image.naturalWidth > 0; }")
    # The page shows a QR code only for this address.
    assert await tab.page.get_by_label("Link for the audience").input_value() == f"{site.url}/listen/path"
    await tab.press("Go live")
    await tab.status("You are live.")


async def listen_and_choose(site: Site, tab: Tab) -> None:
    await tab.open("/listen/path/")
    await tab.page.wait_for_url(f"{site.url}/listen/path")
    await tab.page.get_by_role("radio", name="Deutsch – live").wait_for()
    await tab.press("Play")
    await tab.state("playing")
    await hears(tab, MICROPHONE_FREQUENCY)
    await tab.page.get_by_role("radio", name="Deutsch").check()
    await tab.page.wait_for_url(f"{site.url}/listen/path/de")
    await hears(tab, GERMAN_TONE)
    # The page's address is now one level deeper than when it loaded.
    await tab.page.get_by_label("Language of this page").select_option("fr")
    await tab.page.get_by_role("button", name="Arrêter").click()
    await tab.page.reload()
    await tab.page.get_by_role("button", name="Écouter").click()
    await tab.state("playing")
    await hears(tab, GERMAN_TONE)
    await tab.page.get_by_role("radio", name="main").check()
    await tab.page.wait_for_url(f"{site.url}/listen/path")
    await tab.page.get_by_role("button", name="Arrêter").click()
    await tab.page.get_by_role("link", name="relay").click()
    await tab.page.wait_for_url(f"{site.url}/")


async def embed(site: Site, tab: Tab) -> None:
    """Insert the element of the player's package into a page."""
    await tab.page.evaluate(
        """async (src) => {
          await import(new URL("assets/player/element.js", document.baseURI));
          const element = document.createElement("relay-player");
          element.setAttribute("src", src);
          document.body.append(element);
        }""",
        f"{site.url}/listen/path/de",
    )
    player = tab.page.locator("relay-player")
    await player.get_by_role("button", name="Play").click()
    await player.get_by_text("Live", exact=True).wait_for()
