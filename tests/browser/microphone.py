"""What listeners hear from the browser's microphone, which plays a tone."""

import asyncio
from contextlib import aclosing

from tests.browser.conftest import MICROPHONE_FREQUENCY
from tests.browser.peers import listen
from tests.support.tone import from_pcm, is_clean_tone

RATE = 16_000


async def hear_microphone(relay_url: str, path: str) -> None:
    """Wait for a clean second of the tone. The fake microphone runs on a timer and stutters on a busy machine."""
    second = b""
    async with asyncio.timeout(60), aclosing(listen(relay_url, path)) as payloads:
        async for payload in payloads:
            second = (second + payload)[-2 * RATE :]
            if len(second) == 2 * RATE and is_clean_tone(from_pcm(second), RATE, MICROPHONE_FREQUENCY):
                break
