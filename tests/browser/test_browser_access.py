"""Access control in a real browser: pages of other origins, links with keys, and tokens."""

import asyncio
import contextlib
import re
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext

from tests.browser.conftest import PAGE_TIMEOUT_MS, open_tab
from tests.browser.peers import free_origin, website
from tests.support.ports import free_port
from tests.support.processes import environment, relay_process
from tests.support.tokens import SECRET, token

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

KEY = "open-sesame-of-this-test"

ATTACK = """
async ([relay, key]) => {
  const attempt = (path, protocols) => new Promise((resolve) => {
    const socket = new WebSocket(relay + path, protocols);
    socket.onopen = () => resolve("open");
    socket.onclose = ({ code }) => resolve(code);
  });
  const outcomes = [];
  for (const path of ["/v1/broadcast/ev1", "/v1/listen/ev1"]) {
    for (const protocols of [[], ["relay.v1"], ["relay.v1", `relay.token.${key}`]]) {
      outcomes.push(await attempt(path, protocols));
    }
  }
  return outcomes;
}
"""


async def test_cross_site_websocket(context: BrowserContext) -> None:
    """A page of another origin can neither broadcast nor listen, not even with the key."""
    origin = free_origin()
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as relay, website(origin, {"/": b"<title>Evil</title>"}):
        page = await context.new_page()
        await page.goto(origin)
        assert await page.evaluate(ATTACK, [relay.websocket_url, KEY]) == [1006] * 6
        await page.goto(f"{relay.url}/listen/ev1")
        outcomes = await page.evaluate(ATTACK, [relay.websocket_url, KEY])
        assert outcomes[2:4] == ["open", "open"], "the relay's own page is refused too: the test shows nothing"
        await page.close()


async def press_play_elsewhere(
    context: BrowserContext, *, is_allowed: bool = True, is_in_policy: bool = True
) -> tuple[str, list[str]]:
    """Press Play in a `<relay-player>` on another website, until it waits or has tried long enough.

    Args:
        context: The browser context.
        is_allowed: Whether the relay lets the website connect.
        is_in_policy: Whether the website's own policy lets its pages connect to the relay.

    Returns:
        The player's last message, and all its states in order.
    """
    origin = free_origin()
    settings = {
        "RELAY_BROADCAST_OPEN": "true",
        "RELAY_ACCESS_TOKEN_SECRET": SECRET,
        "RELAY_ACCESS_OPEN_SESSIONS": "[]",
        "RELAY_ACCESS_ALLOWED_ORIGINS": f"same-origin,{origin}" if is_allowed else "same-origin",
    }
    player = Path(str(files("relay"))) / "pages" / "player"
    site = {f"/player/{file.name}": file.read_bytes() for file in player.iterdir() if file.is_file()}
    async with relay_process(**settings) as relay:
        policy = f"default-src 'self'; connect-src 'self' {relay.websocket_url if is_in_policy else ''}"
        element = f"<relay-player src='{relay.url}/listen/ev1' token='{token()}'></relay-player>"
        site["/"] = f"<script type='module' src='/player/element.js'></script>{element}".encode()
        async with website(origin, site, policy):
            page = await context.new_page()
            page.set_default_timeout(PAGE_TIMEOUT_MS)
            await page.goto(origin)
            await page.evaluate(
                """() => {
                    globalThis.states = [];
                    document.body.addEventListener("statechange", ({ detail }) => states.push(detail.state));
                }"""
            )
            here = page.locator("relay-player")
            await here.get_by_role("button", name="Play").click()
            await page.wait_for_function(
                """() => {
                    const { state, code } = document.querySelector("relay-player").player;
                    return state === "waiting" || code === "unreachable";
                }"""
            )
            said = await here.get_by_role("status").inner_text()
            states = await page.evaluate("states")
            await page.close()
    return said, states


async def test_a_page_of_another_origin_plays_where_relay_and_page_allow_it(context: BrowserContext) -> None:
    assert await press_play_elsewhere(context) == ("Waiting for the broadcaster.", ["connecting", "waiting"])


@pytest.mark.parametrize("obstacle", [{"is_allowed": False}, {"is_in_policy": False}], ids=["origin", "policy"])
async def test_a_page_that_may_not_connect_is_told_what_may_be_in_the_way(
    context: BrowserContext, obstacle: dict[str, bool]
) -> None:
    said, states = await press_play_elsewhere(context, **obstacle)
    assert set(states) == {"connecting"}
    assert said.startswith("The relay does not answer.")
    assert all(cause in said for cause in ("WebSockets", "access.allowed_origins", "connect-src"))


async def test_the_printed_link_is_ready_to_go_live(context: BrowserContext, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "relay", "serve", "--port", str(free_port()))
    settings = environment({"XDG_RUNTIME_DIR": str(tmp_path)})
    relay = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=settings
    )
    assert relay.stdout is not None
    try:
        async with asyncio.timeout(30):
            printed = b""
            while (match := re.search(r"(http://[0-9.:]+)(/broadcast/\S+)\n", printed.decode())) is None:
                line = await relay.stdout.readline()
                assert line, "it ended without a link"
                printed += line
        async with open_tab(context, match[1]) as tab:
            await tab.open(match[2])
            await tab.press("Go live")
            await tab.status("You are live.")
            await tab.press("Stop")
            await tab.status("You are off the air.")
            assert tab.complaints == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            relay.terminate()
        await relay.communicate()


async def test_a_token_opens_the_pages(context: BrowserContext) -> None:
    settings = {"RELAY_ACCESS_TOKEN_SECRET": SECRET, "RELAY_ACCESS_OPEN_SESSIONS": "[]"}
    async with relay_process(**settings) as relay, open_tab(context, relay.url) as broadcaster:
        await broadcaster.open(f"/broadcast/ev1#key={token(role='broadcast')}")
        await broadcaster.press("Go live")
        await broadcaster.status("You are live.")
        assert broadcaster.complaints == []
        async with open_tab(context, relay.url) as listener:
            await listener.open(f"/listen/ev1#token={token()}")
            await listener.press("Play")
            await listener.state("playing")
            assert listener.complaints == []
        async with open_tab(context, relay.url) as stranger:
            await stranger.open("/listen/ev1")
            await stranger.press("Play")
            await stranger.state("failed")
            await stranger.status("You need a valid invitation link")
        assert SECRET not in relay.text


WRONG = "abcdefgh.ijklmnop.qrstuvwx"


@pytest.mark.parametrize("is_pressed", [False, True], ids=["before", "behind"])
async def test_a_good_token_counts_in_the_tab_that_had_a_bad_one(context: BrowserContext, *, is_pressed: bool) -> None:
    """The new token works before and after Play. The address shows neither token; a reload uses the good one."""
    settings = {"RELAY_ACCESS_TOKEN_SECRET": SECRET, "RELAY_ACCESS_OPEN_SESSIONS": "[]"}
    async with relay_process(**settings) as relay, open_tab(context, relay.url) as tab:
        await tab.open(f"/listen/ev1#token={WRONG}")
        await tab.status("You need a valid invitation link")
        assert tab.page.url == f"{tab.network.url}/listen/ev1"
        if is_pressed:
            await tab.press("Play")
            await tab.state("failed")
        await tab.page.evaluate("window.isSamePage = true")
        await tab.open(f"/listen/ev1#token={token()}&else=1")
        await tab.status("The session has not begun yet.")
        assert await tab.page.evaluate("isSamePage")
        assert tab.page.url == f"{tab.network.url}/listen/ev1#else=1"
        await tab.press("Play")
        await tab.state("waiting")
        await tab.page.reload()
        await tab.status("The session has not begun yet.")
        # A truncated link does not replace the good token, and another session has its own token.
        await tab.open("/listen/ev1#token=short")
        await tab.press("Play")
        await tab.state("waiting")
        await tab.open("/listen/ev2")
        await tab.status("You need a valid invitation link")
        assert tab.complaints == []


async def test_a_good_key_counts_in_the_tab_that_had_a_bad_one(context: BrowserContext) -> None:
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as relay, open_tab(context, relay.url) as tab:
        await tab.open("/broadcast/ev1#key=wrong-key")
        assert tab.page.url == f"{tab.network.url}/broadcast/ev1"
        await tab.press("Go live")
        refusal = tab.page.get_by_text("The relay did not accept the key")
        await refusal.wait_for()
        await tab.open(f"/broadcast/ev1#key={KEY}")
        await refusal.wait_for(state="hidden")
        assert tab.page.url == f"{tab.network.url}/broadcast/ev1"
        for _ in range(2):
            await tab.press("Go live")
            await tab.status("You are live.")
            await tab.press("Stop")
            await tab.status("You are off the air.")
            await tab.page.reload()
        # A key that a person types is not stored, and the key that it replaced is gone too.
        await tab.page.get_by_text("Channel, language and key").click()
        await tab.page.get_by_label("Broadcast key").fill("another-key")
        await tab.page.reload()
        assert await tab.page.get_by_label("Broadcast key").input_value() == ""
        assert tab.complaints == []
