"""A headless Chromium whose microphone hears a tone, and a real relay that serves it the pages."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from playwright.async_api import TimeoutError as PageTimeoutError

from tests.browser.peers import Network, network
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import sine, write_wav

FOLDER = Path(__file__).parent

MICROPHONE_FREQUENCY = 440
MICROPHONE_RATE = 48_000

INSECURE_HOST = "relay.test"
"""A name of this machine that a browser trusts as little as an address in the local network."""

PAGE_TIMEOUT_MS = 20_000
"""Generous, because other work may keep the machine busy."""

COMPLAINTS_OF_A_BREAK = ("WebSocket connection", "Failed to load resource: net::ERR_")


class Tab:
    """A page of the relay, with everything that the browser complains about.

    Attributes:
        page: The browser's page.
        network: The network between the page and the relay.
        complaints: Console errors, including violations of the Content-Security-Policy, and uncaught exceptions. A test
            that causes some on purpose removes them; any that remain at its end fail it.
    """

    def __init__(self, page: Page, network: Network) -> None:
        self.page = page
        self.network = network
        self.complaints: list[str] = []
        self._is_broken = False
        page.set_default_timeout(PAGE_TIMEOUT_MS)
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))

    async def open(self, path: str) -> None:
        await self.page.goto(self.network.url + path)

    async def state(self, state: str) -> None:
        """Wait until the page's player or broadcaster is in a state."""
        await self.page.wait_for_selector(f"main[data-state={state}]")

    async def status(self, sentence: str) -> None:
        """Wait until the page shows a status."""
        await self._says("status", sentence)

    async def warning(self, sentence: str) -> None:
        """Wait until the page shows a warning."""
        await self._says("alert", sentence)

    async def _says(self, role: Literal["status", "alert"], sentence: str) -> None:
        places = self.page.get_by_role(role)
        try:
            await places.filter(has_text=sentence).wait_for()
        except PageTimeoutError:
            pytest.fail(f"The page should say {sentence!r}, but it says {await places.all_inner_texts()}.")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        # Playwright would evaluate an expression as a string each time, which the pages' policy forbids; a function is
        # allowed.
        await self.page.wait_for_function(f"() => ({condition})")

    async def press(self, button: str) -> None:
        await self.page.get_by_role("button", name=button, exact=True).click()

    def forgive(self, text: str) -> None:
        """Remove the complaints that a test caused on purpose."""
        self.complaints = [complaint for complaint in self.complaints if text not in complaint]

    def forgive_break(self, *, goes_on: bool = False) -> None:
        """Remove complaints about requests that failed because a test broke the connections.

        If the break goes on, later complaints are forgiven, too.
        """
        for text in COMPLAINTS_OF_A_BREAK:
            self.forgive(text)
        self._is_broken = goes_on

    def _hear(self, kind: str, text: str) -> None:
        is_of_break = self._is_broken and any(each in text for each in COMPLAINTS_OF_A_BREAK)
        if kind in ("error", "warning") and not is_of_break:
            self.complaints.append(text)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process() as process:
        yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    executable = shutil.which("chromium")
    assert executable, "Chromium is missing; `make test` installs it."
    heard = tmp_path_factory.mktemp("microphone") / "tone.wav"
    write_wav(heard, sine(MICROPHONE_FREQUENCY, MICROPHONE_RATE, 10), MICROPHONE_RATE)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={heard}",
            ],
        )
        yield chromium
        await chromium.close()


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write a message to the terminal, even if the tests pass."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(reporter, pytest.TerminalReporter)
    return lambda sentence: reporter.write_line(f"{request.node.nodeid}: {sentence}")


@asynccontextmanager
async def open_context(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """Open a browser context that shares nothing with other tests; `options` are those of Playwright's contexts."""
    context = await browser.new_context(**options)
    await context.add_init_script(path=FOLDER / "helpers.js")
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with open_context(browser) as context:
        yield context


@asynccontextmanager
async def open_tab(context: BrowserContext, relay_url: str, port: int | None = None) -> AsyncIterator[Tab]:
    """Open an empty page that has its own network to a relay, at `port` or a free one."""
    # The recorder is served as if it came from the relay, because the pages allow no script of another origin.
    recorder = {"/assets/test-recorder.js": (FOLDER / "recorder.js").read_bytes()}
    async with network(relay_url, recorder, port) as between:
        page = await context.new_page()
        yield Tab(page, between)
        await page.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(context: BrowserContext, relay: RelayProcess) -> AsyncIterator[Tab]:
    """A page that fails the test if the browser complained."""
    async with open_tab(context, relay.url) as tab:
        yield tab
        if tab.network.was_disturbed:
            tab.forgive_break()
        assert tab.complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def insecure_tab(context: BrowserContext) -> AsyncIterator[tuple[Tab, RelayProcess]]:
    """A page at an address that the browser trusts as little as one in the local network, and its relay."""
    port = free_port()
    url = f"http://{INSECURE_HOST}:{port}"
    async with (
        relay_process(RELAY_BROADCAST_OPEN="true", RELAY_ACCESS_ALLOWED_ORIGINS=url) as relay,
        open_tab(context, relay.url, port) as tab,
    ):
        tab.network.url = url
        yield tab, relay
        tab.forgive("Cross-Origin-Opener-Policy")
        assert tab.complaints == []
