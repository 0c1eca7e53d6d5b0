"""Firefox and WebKitGTK play a relay's audio after a real click. Firefox also broadcasts."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.browser.conftest import MICROPHONE_FREQUENCY
from tests.browser.other_browsers import STEP_SECONDS, Page, firefox, webkit
from tests.browser.peers import broadcasting, listen
from tests.browser.pitch import PITCH
from tests.support.processes import RelayProcess
from tests.support.tone import from_pcm, judge, sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997
TONE_SECOND = to_pcm(sine(TONE, 16_000, 1))

CALM_SECONDS = 2

IS_DELAY_PLAUSIBLE = "({ delayMs, playoutMs }) => delayMs > 0 && delayMs < playoutMs + 1000"


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[firefox, webkit], ids=["firefox", "webkit"])
async def page(request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    # Not pytest's own folder: a Unix socket's path must be shorter than about a hundred characters.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with request.param(Path(folder)) as page:
            yield page


async def test_plays_at_a_click_and_goes_on_without_a_break(page: Page, relay: RelayProcess) -> None:
    async with broadcasting(relay.url, "elsewhere", 16_000, TONE_SECOND):
        await page.open(f"{relay.url}/listen/elsewhere")
        await page.until("globalThis.relayPlayer?.state === 'idle'")
        await page.press("Play")
        await page.until("relayPlayer.state === 'playing'")
        await page.ask(f"({PITCH})()")
        await page.until(f"Math.abs(pitch() - {TONE}) < 20")
        stats = await calm(page)
        assert stats["bufferMs"] > 0
        assert stats["codec"] == "opus"
        await page.until(f"({IS_DELAY_PLAUSIBLE})(relayPlayer.stats)")
        await page.press("Stop")
        await page.until("relayPlayer.state === 'idle'")
    assert page.complaints == []


async def calm(page: Page) -> dict[str, Any]:
    """Wait for two seconds of sound without an interruption, and return the player's statistics after them.

    A busy machine may interrupt the sound, so there are several tries.
    """
    clock = asyncio.get_running_loop()
    latest = clock.time() + STEP_SECONDS
    while True:
        end, before = await page.ask("[relayPlayer.context.currentTime, relayPlayer.stats.underruns]")
        await page.until(f"relayPlayer.context.currentTime > {end + CALM_SECONDS}")
        state, stats = await page.ask("[relayPlayer.state, relayPlayer.stats]")
        if state == "playing" and stats["underruns"] == before:
            return dict(stats)
        assert clock.time() < latest, f"no {CALM_SECONDS} s without an interruption: {state}, {stats}"


async def test_the_broadcasting_page_opens(page: Page, relay: RelayProcess) -> None:
    await page.open(f"{relay.url}/broadcast/elsewhere")
    await page.until("globalThis.relayBroadcaster?.state === 'idle' && !document.getElementById('go').disabled")
    assert page.complaints == []


@pytest.mark.parametrize("page", [firefox], ids=["firefox"], indirect=True)
async def test_broadcasts_its_microphone(page: Page, relay: RelayProcess) -> None:
    await page.open(f"{relay.url}/broadcast/voice-elsewhere")
    await page.until("globalThis.relayBroadcaster?.state === 'idle'")
    await page.press("Go live")
    await page.until("relayBroadcaster.state === 'live'")
    second = b""
    async with asyncio.timeout(STEP_SECONDS), aclosing(listen(relay.url, "voice-elsewhere")) as payloads:
        async for payload in payloads:
            second = (second + payload)[-len(TONE_SECOND) :]
            verdict = judge(from_pcm(second), 16_000, MICROPHONE_FREQUENCY)
            # The fake microphone is quiet.
            if len(second) == len(TONE_SECOND) and abs(verdict.frequency - MICROPHONE_FREQUENCY) < 0.5:
                break
    assert verdict.level_db > -20
    await page.press("Stop")
    await page.until("relayBroadcaster.state === 'idle'")
    assert page.complaints == []
