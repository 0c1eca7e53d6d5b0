"""A listener's ear: a page that contains only a player, and a recording of all that it plays."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from playwright.async_api import BrowserContext

from relay.pages.files import Pages
from tests.browser.conftest import Tab
from tests.browser.peers import network
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.live_source import LiveSource
from tests.support.recording import Recording, read_recording

FOLDER = Path(__file__).parent / "ear_page"


def page_files() -> dict[str, bytes]:
    """Return the files that a `Network` adds to the relay's pages, by path, with references that browsers can cache."""
    player = f"{Pages().assets}/player/".encode()
    return {
        f"/assets/test-{path.name}": path.read_bytes().replace(b"/assets/player/", player) for path in FOLDER.iterdir()
    }


@dataclass(frozen=True)
class Ear:
    """A page with a player.

    Attributes:
        tab: The page, with the browser's complaints.
        faults: The fault proxy between the page and the relay.
    """

    tab: Tab
    faults: FaultProxy

    async def play(self) -> None:
        await self.tab.press("Play")

    async def state(self, state: str) -> None:
        """Wait until the player is in a state."""
        await self.tab.page.wait_for_selector(f"body[data-state={state}]", state="attached")

    async def recording(self, source: LiveSource) -> Recording:
        """Return the recording so far; recording continues."""
        return read_recording(await self.tab.page.evaluate("ear.recording()"), source)


@asynccontextmanager
async def open_ear(
    context: BrowserContext, relay_url: str, session: str, files: Mapping[str, bytes] | None = None, **options: str
) -> AsyncIterator[Ear]:
    """Open a page with a player of a session behind a fault proxy, without pressing Play.

    Args:
        context: The browser context of the page.
        relay_url: `http://…`.
        session: The session's id.
        files: What the page loads instead of the relay's files, by path.
        options: Further options of the player. It plays PCM by default: at the relay's bit rate for speech, Opus
            keeps little of the noise that locates a recording in the signal.
    """
    options = {"codec": "pcm_s16le", **options}
    async with fault_proxy(relay_url) as faults, network(faults.url, page_files() | dict(files or {})) as front:
        page = await context.new_page()
        tab = Tab(page, front)
        await tab.open("/assets/test-ear.html?" + urlencode({"session": session, **options}))
        yield Ear(tab, faults)
        await page.close()
        assert not tab.complaints, tab.complaints
