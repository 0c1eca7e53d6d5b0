"""Layouts that must fit: small screens, large type, long words, long lists and touch screens."""

from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Browser

from tests.browser.conftest import Tab, open_context, open_tab
from tests.browser.fitting import LANGUAGES, OVERFLOWING, SOUND
from tests.browser.peers import broadcasting, claimed
from tests.support.processes import RelayProcess

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

SMALL = {"width": 320, "height": 640}
LARGE_TYPE = {"standard": 32, "fixed": 26}
"""Twice the browsers' default size, as a person with poor eyesight sets it."""

PAGES = ("/", "/listen/town-hall", "/broadcast/town-hall/de", "/nothing")

SHOW_ALL = """
    document.querySelectorAll("details").forEach((details) => (details.open = true));
    document.querySelectorAll("[hidden]:not(dialog)").forEach((element) => (element.hidden = false));
"""

SIDEWAYS = """
    () => [...document.querySelectorAll("body, body *")]
      .filter((element) => element.checkVisibility() && !element.closest(".visually-hidden, legend, option, svg"))
      .filter((element) => {
        const { left, right } = element.getBoundingClientRect();
        return left < -1 || right > innerWidth + 1;
      })
      .map((element) => `${element.tagName} ${element.id} ${element.className}`)
      .concat(document.documentElement.scrollWidth > innerWidth ? ["the page"] : [])
"""

BROKEN_WORDS = r"""
    () => {
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const broken = [];
      for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
        const parent = node.parentElement;
        if (!parent.checkVisibility() || parent.closest(".visually-hidden, legend, option, h1")) {
          continue;
        }
        for (const word of node.data.matchAll(/[^\s\-–/:_]+/g)) {
          const range = new Range();
          range.setStart(node, word.index);
          range.setEnd(node, word.index + word[0].length);
          if (new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size > 1) {
            broken.push(word[0]);
          }
        }
      }
      return broken;
    }
"""


@pytest.mark.parametrize("language", LANGUAGES)
async def test_large_type_on_a_small_screen_does_not_scroll_sideways(
    browser: Browser, relay: RelayProcess, language: str
) -> None:
    async with (
        open_context(browser, viewport=SMALL, locale=language) as context,
        open_tab(context, relay.url) as tab,
    ):
        devtools = await context.new_cdp_session(tab.page)
        await devtools.send("Page.enable")
        await devtools.send("Page.setFontSizes", {"fontSizes": LARGE_TYPE})
        for path in PAGES:
            await tab.open(path)
            await tab.page.evaluate(SHOW_ALL)
            assert await tab.page.evaluate("getComputedStyle(document.body).fontSize") == "32px"
            assert await tab.page.evaluate(SIDEWAYS) == [], path
            assert await tab.page.evaluate(OVERFLOWING) == [], path
            if path.startswith("/listen"):
                assert await tab.page.evaluate("document.getElementById('volume').offsetWidth") > 100


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_no_word_is_broken(browser: Browser, relay: RelayProcess, language: str, width: int) -> None:
    async with (
        open_context(browser, viewport={**SMALL, "width": width}, locale=language) as context,
        open_tab(context, relay.url) as tab,
    ):
        for path in PAGES:
            await tab.open(path)
            await tab.page.evaluate(SHOW_ALL)
            assert await tab.page.evaluate(BROKEN_WORDS) == [], path


SPOKEN = ("ar", "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "hu", "it", "nl", "pl", "uk")


async def test_a_long_list_of_channels_shows_that_it_goes_on(browser: Browser, relay: RelayProcess) -> None:
    async with AsyncExitStack() as stack:
        for lang in SPOKEN:
            await stack.enter_async_context(claimed(relay.url, f"many/{lang}", f"lang={lang}"))
        for width in (320, 390, 1280):
            context = await stack.enter_async_context(
                open_context(browser, viewport={**SMALL, "width": width}, locale="uk")
            )
            tab = await stack.enter_async_context(open_tab(context, relay.url))
            await tab.open("/listen/many")
            await tab.page.get_by_role("radio", name="Українська").wait_for()
            channels = tab.page.locator("#channels")
            assert await channels.evaluate("(list) => list.scrollHeight > list.clientHeight")
            # The list shows the chosen channel, which is the last, and fades where more follow.
            await tab.page.wait_for_selector("#channels.more-above:not(.more-below)")
            assert "gradient" in await channels.evaluate("(list) => getComputedStyle(list).maskImage")
            await channels.evaluate("(list) => (list.scrollTop = 0)")
            await tab.page.wait_for_selector("#channels.more-below:not(.more-above)")
            cut = await channels.evaluate(
                """
                (list) => {
                  const edge = list.getBoundingClientRect().bottom;
                  const rows = [...list.querySelectorAll("label")].map((label) => label.getBoundingClientRect());
                  return rows.some(({ top, bottom }) => top + 8 < edge && bottom - 8 > edge);
                }
                """
            )
            assert cut, f"at {width} the list ends between two rows"


async def test_what_was_touched_does_not_stay_dark(browser: Browser, relay: RelayProcess) -> None:
    async with (
        open_context(browser, viewport=SMALL, has_touch=True, is_mobile=True) as context,
        open_tab(context, relay.url) as tab,
        broadcasting(relay.url, "touched", 16_000, SOUND),
    ):
        await tab.open("/listen/touched")
        await tab.status("The session is live.")
        colour = "getComputedStyle(document.getElementById('play')).backgroundColor"
        before = await tab.page.evaluate(colour)
        await tab.page.get_by_role("button", name="Play").tap()
        await tab.state("playing")
        await tab.page.evaluate("document.getElementById('play').getAnimations().forEach((one) => one.finish())")
        assert await tab.page.evaluate(colour) == before


async def test_the_logo_leads_nowhere_while_there_is_sound(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "logo", 16_000, SOUND):
        await tab.open("/listen/logo")
        await tab.press("Play")
        await tab.state("playing")
        place = await tab.page.locator(".brand").bounding_box()
        assert place is not None
        await tab.page.mouse.click(place["x"] + 10, place["y"] + 10)
        await tab.state("playing")
        assert tab.page.url.endswith("/listen/logo")
        await tab.press("Stop")
        await tab.page.locator(".brand").click()
        await tab.page.get_by_role("heading", name="Which session?").wait_for()


async def test_what_only_some_want_to_see_is_behind_details(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "details", 16_000, SOUND):
        await tab.open("/listen/details")
        await tab.press("Play")
        await tab.state("playing")
        await tab.page.locator("#delay", has_text="ms").wait_for()
        assert not await tab.page.locator("#picture, #buffer, #interruptions, #lost").first.is_visible()
        await tab.page.get_by_text("Details", exact=True).click()
        for name in ("picture", "buffer", "interruptions", "lost"):
            assert await tab.page.locator(f"#{name}").is_visible(), name
