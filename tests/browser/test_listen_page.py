"""The listening page, judged by what its player gives to the speakers."""

import asyncio
import base64

import numpy as np
import pytest

from tests.browser.conftest import INSECURE_HOST, Tab
from tests.browser.peers import broadcasting
from tests.support.processes import RelayProcess
from tests.support.tone import Samples, assert_clean_tone, judge, sine, to_pcm

pytestmark = pytest.mark.asyncio(loop_scope="session")

TONE = 997
OTHER_TONE = 613

MONO_16K = to_pcm(sine(TONE, 16_000, 1))

ONSET_SECONDS = 0.05
"""Playing fades in; what is judged begins behind that."""


async def record(tab: Tab, seconds: float) -> tuple[int, Samples, Samples]:
    """Record what the page plays; gives the sample rate, left and right, from behind the onset on."""
    async with asyncio.timeout(seconds + 20):
        recording = await tab.page.evaluate("(seconds) => recordPlayer(seconds)", seconds)
    rate = int(recording["rate"])
    left, right = (
        np.frombuffer(base64.b64decode(recording[side]), np.float32).astype(np.float64)[int(ONSET_SECONDS * rate) :]
        for side in ("left", "right")
    )
    return rate, left, right


async def test_plays_a_mono_tone_at_its_pitch_and_level_without_a_gap_or_a_click(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/mono")
    await tab.press("Play")
    await tab.status("Waiting for the broadcaster.")
    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(record(tab, 4))
        async with broadcasting(relay.url, "mono", 16_000, MONO_16K):
            rate, left, right = await recording
            await tab.status("Playing live.")
    assert_clean_tone(left, rate, TONE)
    assert np.array_equal(left, right)


async def test_plays_stereo_with_each_side_in_its_place(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/stereo/music")
    await tab.press("Play")
    await tab.state("waiting")
    second = to_pcm(sine(TONE, 48_000, 1), sine(OTHER_TONE, 48_000, 1))
    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(record(tab, 3))
        async with broadcasting(relay.url, "stereo/music", 48_000, second):
            rate, left, right = await recording
    assert_clean_tone(left, rate, TONE)
    assert_clean_tone(right, rate, OTHER_TONE)


async def test_volume_and_stop(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "volume", 16_000, MONO_16K):
        await tab.open("/listen/volume")
        await tab.page.get_by_label("Volume").fill("50")
        await tab.press("Play")
        await tab.state("playing")
        rate, left, _ = await record(tab, 1)
        assert judge(left, rate, TONE).level_db == pytest.approx(-12, abs=0.5)
        await tab.press("Stop")
        await tab.status("Press Play to listen.")
        assert await tab.page.evaluate("relayPlayer.context") is None


async def test_stop_right_after_play(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "hasty", 16_000, MONO_16K):
        await tab.open("/listen/hasty")
        for _ in range(3):
            await tab.page.evaluate("document.getElementById('play').click(), document.getElementById('play').click()")
        assert await tab.page.evaluate("relayPlayer.state") == "idle"
        await tab.press("Play")
        await tab.state("playing")


async def test_says_when_the_session_has_ended(tab: Tab, relay: RelayProcess) -> None:
    await tab.open("/listen/over")
    await tab.press("Play")
    await tab.state("waiting")
    async with broadcasting(relay.url, "over", 16_000, MONO_16K):
        await tab.state("playing")
    await tab.status("The session ended.")
    assert await tab.page.evaluate("relayPlayer.state") == "ended"
    await tab.page.get_by_role("button", name="Play").wait_for()


async def test_connects_again_after_the_connection_broke(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "broken", 16_000, MONO_16K):
        await tab.open("/listen/broken")
        await tab.press("Play")
        await tab.state("playing")
        tab.network.break_down()
        await tab.status("Connection lost. Connecting again…")
        tab.network.repair()
        await tab.state("playing")
        rate, left, _ = await record(tab, 1)
        assert abs(judge(left, rate, TONE).frequency - TONE) < 0.5
    tab.forgive("WebSocket connection")


async def test_connects_again_when_the_relay_is_not_heard_any_more(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "swallowed", 16_000, MONO_16K):
        await tab.open("/listen/swallowed")
        await tab.press("Play")
        await tab.state("playing")
        tab.network.swallow()
        await tab.state("buffering")
        # Nothing passes on the old connection any more, so this is a new one.
        await tab.state("playing")


async def test_says_when_the_browser_holds_the_sound_back(tab: Tab, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "held-back", 16_000, MONO_16K):
        await tab.open("/listen/held-back")
        await tab.press("Play")
        await tab.state("playing")
        await tab.page.evaluate("relayPlayer.context.suspend()")
        await tab.status("The browser holds the sound back.")
        await tab.press("Play")
        await tab.state("playing")


async def test_says_that_a_browser_plays_only_over_https(tab: Tab) -> None:
    tab.network.url = tab.network.url.replace("127.0.0.1", INSECURE_HOST)
    await tab.open("/listen/insecure")
    await tab.press("Play")
    await tab.status("Ask for an https:// address.")


async def test_an_id_that_is_no_name_gets_the_sentence(tab: Tab) -> None:
    answer = await tab.page.request.get(f"{tab.network.url}/listen/no%20name")
    assert answer.status == 400
    assert "The session id 'no%20name' is not 1 to 64" in await answer.text()


async def test_start_page_leads_to_the_session(tab: Tab) -> None:
    await tab.open("/")
    await tab.page.get_by_label("Session").fill("not a name")
    await tab.press("Listen")
    await tab.page.get_by_role("alert").filter(has_text="without spaces").wait_for()
    await tab.page.get_by_label("Session").fill("town-hall")
    await tab.press("Listen")
    await tab.page.wait_for_url("**/listen/town-hall")
    await tab.page.get_by_role("heading", name="town-hall").wait_for()
