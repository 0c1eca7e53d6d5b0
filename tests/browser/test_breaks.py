"""Mute, pause and end: the speaker's controls, the messages to listeners, and that listeners resume by themselves."""

import asyncio
import json

import pytest
from playwright.async_api import BrowserContext
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.protocol.wire import HEADER_BYTES, SUBPROTOCOL
from relay.vocabulary.errors import CloseCode
from tests.browser.conftest import Tab, open_tab
from tests.browser.microphone import hear_microphone
from tests.browser.peers import broadcasting
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

SOUND = to_pcm(sine(997, 16_000, 1))


def join(relay: RelayProcess, session: str) -> connect:
    address = f"{relay.url.replace('http', 'ws', 1)}/v1/listen/{session}"
    return connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None)


async def told(listener: ClientConnection, message_type: str) -> dict[str, object]:
    async with asyncio.timeout(60):
        while True:
            message = await listener.recv()
            if isinstance(message, str) and (read := json.loads(message))["type"] == message_type:
                return dict(read)


async def silent_frames(listener: ClientConnection, count: int) -> None:
    """Wait until this many frames in a row are silent."""
    silent = 0
    async with asyncio.timeout(60):
        while silent < count:
            message = await listener.recv()
            if isinstance(message, bytes):
                silent = 0 if any(message[HEADER_BYTES:]) else silent + 1


async def go_live(tab: Tab, session: str) -> None:
    await tab.open(f"/broadcast/{session}")
    await tab.press("Go live")
    await tab.status("You are live.")


async def end_for_everybody(tab: Tab) -> None:
    await tab.press("End for everybody…")
    question = tab.page.get_by_role("dialog", name="End the session for everybody?")
    await question.get_by_role("button", name="End for everybody", exact=True).click()
    await tab.status("The session has ended for everybody.")
    assert not await tab.page.get_by_role("button", name="End for everybody…").is_visible()


async def test_mute_is_silence_that_everybody_knows_of_and_speaking_meanwhile_is_noticed(
    tab: Tab, relay: RelayProcess
) -> None:
    await go_live(tab, "muted")
    async with join(relay, "muted") as listener:
        assert (await told(listener, "hello"))["silence"] is None
        await tab.press("Mute")
        await tab.status("You are muted.")
        assert (await told(listener, "state"))["silence"] == "muted"
        await silent_frames(listener, 50)
        assert await tab.page.title() == "Muted: muted – broadcast"
        # The microphone hears the tone all the time, as it would hear a voice.
        await tab.warning("You are speaking, but you are muted")
        assert "dB" in await tab.page.locator("#level-shown").inner_text()
        async with join(relay, "muted") as late:
            assert (await told(late, "hello"))["silence"] == "muted"
        await tab.press("Unmute")
        await tab.status("You are live.")
        assert (await told(listener, "state"))["silence"] is None
        assert await tab.page.title() == "muted – broadcast"
        await hear_microphone(relay.url, "muted")


async def test_the_key_m_mutes_but_where_it_is_typed(tab: Tab) -> None:
    await tab.open("/broadcast/key-m")
    is_muted = "relayBroadcaster.muted"
    await tab.page.keyboard.press("m")
    await tab.press("Go live")
    await tab.status("You are live.")
    assert not await tab.page.evaluate(is_muted), "before it was live there was nothing to mute"
    await tab.page.keyboard.press("m")
    await tab.status("You are muted.")
    for elsewhere in ("#audience", "#device", "#language"):
        await tab.page.locator(elsewhere).focus()
        await tab.page.keyboard.press("m")
        assert await tab.page.evaluate(is_muted), elsewhere
    await tab.page.locator("#mute").focus()
    await tab.page.keyboard.press("Control+m")
    assert await tab.page.evaluate(is_muted)
    await tab.page.keyboard.press("M")
    await tab.status("You are live.")
    # A keyboard layout without Latin letters.
    await tab.page.evaluate("dispatchEvent(new KeyboardEvent('keydown', { key: 'ь', code: 'KeyM' }))")
    await tab.status("You are muted.")


async def test_a_mute_outlasts_a_connection_that_broke(tab: Tab, relay: RelayProcess) -> None:
    await go_live(tab, "still-muted")
    await tab.press("Mute")
    await tab.status("You are muted.")
    tab.network.break_down()
    await tab.status("No connection to the relay.")
    tab.network.repair()
    await tab.status("You are muted.")
    async with join(relay, "still-muted") as listener:
        # The relay may greet the listener before it learns that the broadcaster is still muted.
        if (await told(listener, "hello"))["silence"] is None:
            assert (await told(listener, "state"))["silence"] == "muted"
        await silent_frames(listener, 20)


async def test_the_audience_stays_over_a_break_and_over_an_end_and_nobody_in_it_presses_anything(
    tab: Tab, context: BrowserContext, relay: RelayProcess
) -> None:
    await go_live(tab, "coffee")
    async with open_tab(context, relay.url) as audience:
        await audience.open("/listen/coffee")
        await audience.press("Play")
        await audience.status("You are listening live.")
        await tab.press("Mute")
        await audience.status("The speaker is muted.")
        # A busy machine may make it conceal a moment.
        await audience.until("relayPlayer.state === 'playing'")
        await tab.press("Unmute")
        await audience.status("You are listening live.")

        await tab.press("Stop")
        await tab.status("Your listeners wait until you go live again.")
        await audience.status("The speaker is taking a break.")
        async with open_tab(context, relay.url) as late:
            await late.open("/listen/coffee")
            await late.status("The speaker is taking a break. Press Play")
        await tab.press("Go live")
        await audience.status("You are listening live.")

        await tab.press("End for everybody…")
        await tab.press("Cancel")
        assert await tab.page.evaluate("relayBroadcaster.state") == "live"
        await end_for_everybody(tab)
        await audience.status("The session has ended.")
        assert await audience.page.evaluate("relayPlayer.state") == "ended"
        await tab.press("Go live")
        await audience.status("You are listening live.")

        await tab.press("Stop")
        await audience.status("The speaker is taking a break.")
        await end_for_everybody(tab)
        await audience.status("The session has ended.")
        assert audience.complaints == []


async def test_what_was_live_can_be_ended_in_a_break_after_an_attempt_elsewhere_with_a_wrong_key(
    context: BrowserContext,
) -> None:
    key = "correct-horse.battery~staple"
    async with relay_process(RELAY_BROADCAST_KEY=key) as guarded, open_tab(context, guarded.url) as tab:
        await go_live(tab, f"in-a-break#key={key}")
        await tab.press("Stop")
        await tab.status("Your listeners wait until you go live again.")
        async with join(guarded, "in-a-break") as listener:
            await tab.page.locator("#more > summary").click()
            await tab.page.locator("#channel").fill("elsewhere")
            await tab.page.locator("#key").fill("wrong-horse.battery~staple")
            await tab.press("Go live")
            await tab.page.locator("#key[aria-invalid=true]").wait_for()
            await tab.page.locator("#key").fill(key)
            await end_for_everybody(tab)
            async with asyncio.timeout(60):
                await listener.wait_closed()
            assert listener.close_code == CloseCode.SESSION_ENDED
        assert tab.complaints == []


async def test_a_page_that_nobody_started_says_when_it_begins_and_makes_no_sound(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/awaited")
    await tab.status("The session has not begun yet.")
    async with broadcasting(relay.url, "awaited/en?lang=en", 16_000, SOUND):
        await tab.status("The session is live.")
        assert await tab.page.evaluate("[relayPlayer.state, relayPlayer.channel]") == ["idle", "en"]
        await tab.press("Play")
        await tab.state("playing")
