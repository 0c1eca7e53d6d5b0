"""All pages in all languages, light and dark: the accessibility checker finds nothing, and everything fits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import pytest
from playwright.async_api import Browser, Route

from tests.browser.conftest import FOLDER, Tab, open_context, open_tab
from tests.browser.fitting import LANGUAGES, OVERFLOWING, SOUND
from tests.browser.peers import broadcasting, claimed
from tests.support.processes import RelayProcess

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

Scheme = Literal["light", "dark"]

AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
"""The accessibility checker; `make test` installs it."""

PHONE = {"width": 360, "height": 740}


@asynccontextmanager
async def page_of(
    browser: Browser, relay: RelayProcess, *, scheme: Scheme = "light", language: str = "en"
) -> AsyncIterator[Tab]:
    """Open a page on a phone with these preferences; any console complaint fails the test."""
    async with (
        open_context(browser, color_scheme=scheme, locale=language, viewport=PHONE, reduced_motion="reduce") as context,
        open_tab(context, relay.url) as tab,
    ):
        yield tab
        assert tab.complaints == []


async def start(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/")
    await tab.press("Listen")
    await tab.page.get_by_role("alert").filter(has_text="without spaces").wait_for()


async def listen_before(tab: Tab, relay: RelayProcess) -> None:
    async with claimed(relay.url, "quality/de", "lang=de&name=Saal"), claimed(relay.url, "quality/ar", "lang=ar"):
        await tab.open("/listen/quality")
        await tab.page.get_by_role("radio", name="Deutsch").wait_for()
        await check(tab)


async def listen_while_it_plays(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "quality-live", 16_000, SOUND):
        await tab.open("/listen/quality-live")
        await tab.press("Play")
        await tab.state("playing")
        await check(tab)
        await tab.page.get_by_text("Details", exact=True).click()
        await check(tab)


async def listen_while_nobody_speaks(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/quality-waiting")
    await tab.press("Play")
    await tab.state("waiting")
    await check(tab)
    async with claimed(relay.url, "quality-waiting"):
        await tab.state("buffering")
    await tab.status("The broadcast is interrupted.")


async def listen_while_it_is_muted_and_in_a_break(tab: Tab, relay: RelayProcess) -> None:
    async with claimed(relay.url, "quality-hushed") as broadcaster:
        await tab.open("/listen/quality-hushed")
        await tab.press("Play")
        await tab.state("buffering")
        await broadcaster.send('{"type":"mute","on":true}')
        await tab.status("The speaker is muted.")
        await tab.page.get_by_text("Details", exact=True).click()
        await check(tab)
        await broadcaster.send('{"type":"pause"}')
        await tab.status("The speaker is taking a break.")
        await check(tab)
        await tab.press("Stop")
        await tab.status("The speaker is taking a break. Press Play")


async def listen_after_the_end(tab: Tab, relay: RelayProcess) -> None:
    async with claimed(relay.url, "quality-over") as broadcaster:
        await tab.open("/listen/quality-over")
        await tab.press("Play")
        await tab.state("buffering")
        await broadcaster.send('{"type":"end"}')
        await tab.state("ended")


async def listen_to_no_relay(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/quality-unreachable")
    await tab.status("The session has not begun yet.")
    tab.network.block_audio()
    await tab.press("Play")
    await tab.status("The relay does not answer.")
    # The page goes on trying.
    tab.forgive_break(goes_on=True)


async def listen_to_one_of_many(tab: Tab, relay: RelayProcess) -> None:
    async with AsyncExitStack() as stack:
        for number in range(20):
            await stack.enter_async_context(claimed(relay.url, f"quality-many/{number}", f"name=Language%20{number}"))
        await tab.open("/listen/quality-many")
        await tab.page.wait_for_selector("#channels.more-below")
        # The checker cannot judge the colours of a row that the list's edge cuts, so the test checks them in the whole
        # list.
        await check(tab, colours=False)
        await tab.page.evaluate("document.getElementById('channels').style.maxHeight = 'none'")
        await tab.page.wait_for_selector("#channels:not(.more-below)")


async def no_page(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/nothing/here")
    await tab.page.get_by_role("link", name="Go to the start page").wait_for()
    tab.forgive("404")


async def no_address(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/no%20name")
    await tab.page.get_by_role("heading", name="This address is not valid").wait_for()
    tab.forgive("400")


async def broadcast_before(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality/en")
    await tab.page.get_by_role("img", name="QR code").wait_for()
    await tab.page.get_by_text("Channel, language and key").click()


async def broadcast_rehearsal(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality-rehearsal")
    await tab.press("Test the microphone")
    await tab.state("rehearsing")


async def broadcast_file(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality")
    await tab.page.get_by_role("radio", name="File").check()
    await tab.press("Go live")
    await tab.page.get_by_text("Choose a file first.").wait_for()


async def broadcast_live(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality-mine")
    await tab.press("Go live")
    await tab.status("You are live.")
    await check(tab)
    await tab.press("Stop")
    await tab.status("You are off the air.")


async def broadcast_muted(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality-muted")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.press("Mute")
    await tab.warning("You are speaking, but you are muted")


async def broadcast_before_the_end(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality-ending")
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.press("End for everybody…")
    await tab.page.get_by_role("dialog", name="End the session for everybody?").wait_for()


async def broadcast_refused(tab: Tab, relay: RelayProcess) -> None:
    async with claimed(relay.url, "quality-busy"):
        await tab.open("/broadcast/quality-busy")
        await tab.press("Go live")
        await tab.page.get_by_role("button", name="Take over the channel").wait_for()


async def poster(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/broadcast/quality")
    await tab.page.get_by_role("img", name="QR code").wait_for()
    await tab.press("Show large")


SCENES: list[Callable[[Tab, RelayProcess], Awaitable[None]]] = [
    start,
    listen_before,
    listen_while_it_plays,
    listen_while_nobody_speaks,
    listen_while_it_is_muted_and_in_a_break,
    listen_after_the_end,
    listen_to_no_relay,
    listen_to_one_of_many,
    no_page,
    no_address,
    broadcast_before,
    broadcast_rehearsal,
    broadcast_file,
    broadcast_live,
    broadcast_muted,
    broadcast_before_the_end,
    broadcast_refused,
    poster,
]


async def check(tab: Tab, *, colours: bool = True) -> None:
    """Fail if the accessibility checker reports a problem on the current page or cannot decide."""
    await tab.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await tab.page.evaluate(
        """
        async (colours) => {
          const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
          const options = { runOnly, rules: { "color-contrast": { enabled: colours } } };
          const { violations, incomplete, passes } = await axe.run(document, options);
          const name = ({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => html + failureSummary)}`;
          return { problems: [...violations, ...incomplete].map(name), passes: passes.length };
        }
        """,
        colours,
    )
    assert found["problems"] == []
    assert found["passes"] > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_the_accessibility_checker_finds_nothing(
    browser: Browser, relay: RelayProcess, scene: Callable[[Tab, RelayProcess], Awaitable[None]], scheme: Scheme
) -> None:
    async with page_of(browser, relay, scheme=scheme) as tab:
        await scene(tab, relay)
        await check(tab)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_language_fits_on_a_narrow_phone(browser: Browser, relay: RelayProcess, language: str) -> None:
    async with page_of(browser, relay, language=language) as tab:
        for path in (
            "/",
            "/listen/a-session-with-a-rather-long-name",
            "/broadcast/a-session-with-a-rather-long-name/de",
        ):
            await tab.open(path)
            await tab.page.wait_for_selector("html[data-ready]")
            await tab.page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
            await tab.page.evaluate(
                "document.querySelectorAll('[hidden]:not(dialog)').forEach((e) => (e.hidden = false))"
            )
            assert await tab.page.evaluate(OVERFLOWING) == [], path
            assert await tab.page.evaluate("document.documentElement.lang") == language
            direction = "rtl" if language == "ar" else "ltr"
            assert await tab.page.evaluate("getComputedStyle(document.body).direction") == direction


async def test_the_language_is_chosen_by_the_person_and_remembered(browser: Browser, relay: RelayProcess) -> None:
    async with page_of(browser, relay, language="pt-BR") as tab:
        await tab.open("/listen/words")
        await tab.status("Press Play")
        await tab.page.get_by_label("Language of this page").select_option("uk")
        await tab.page.get_by_role("button", name="Слухати").wait_for()
        assert await tab.page.title() == "words – слухати наживо"
        await tab.open("/")
        await tab.page.get_by_role("heading", name="Який сеанс?").wait_for()


async def test_the_language_chosen_last_wins_however_late_another_one_comes(tab: Tab) -> None:
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await tab.page.route("**/locales/de.json", hold)
    await tab.open("/listen/words")
    await tab.status("Press Play")
    chooser = tab.page.get_by_label("Language of this page")
    await chooser.select_option("de")
    await chooser.select_option("fr")
    await tab.page.get_by_role("button", name="Écouter").wait_for()
    async with tab.page.expect_response("**/locales/de.json"):
        held.set()
    await tab.page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
    assert await tab.page.evaluate("document.documentElement.lang") == "fr"


async def test_words_that_cannot_be_loaded_are_asked_for_again(tab: Tab) -> None:
    await tab.page.route("**/locales/*.json", lambda route: route.abort())
    async with tab.page.expect_event("requestfailed", lambda request: "locales" in request.url):
        await tab.open("/listen/wordless")
    await tab.page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
    assert await tab.page.title() == "Listen live – relay"
    await tab.page.unroute("**/locales/*.json")
    await tab.status("The session has not begun yet.")
    tab.forgive("net::ERR_FAILED")


async def test_everything_is_there_in_forced_colours(browser: Browser, relay: RelayProcess) -> None:
    async with open_context(browser, forced_colors="active") as context, open_tab(context, relay.url) as tab:
        await tab.open("/listen/forced")
        button = tab.page.get_by_role("button", name="Play")
        await button.wait_for()
        assert await button.evaluate("(play) => getComputedStyle(play).borderTopWidth") == "2px"
        # The user chose these colours, so they are not checked.
        await check(tab, colours=False)
