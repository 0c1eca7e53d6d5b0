"""Opus in a browser: a tone stays unbroken through changes of codec, lost connections and packed messages.

Changes of the codec and lost connections are tested with the browser's own decoder and with libopus as WebAssembly. The
sizes of messages take turns.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from relay.pages.files import Pages
from tests.browser.listening import Heard, Listening, judged, listening
from tests.support.processes import RelayProcess, relay_process
from tests.support.recording import Piece

pytestmark = [pytest.mark.ear, pytest.mark.asyncio(loop_scope="session")]

Say = Callable[[str], None]

LEVEL_DB = 1.0
"""By how much the level may change. People do not hear a smaller change."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def relay() -> AsyncIterator[RelayProcess]:
    """A relay whose Opus keeps the noise of the ruler, which is lost at 24 kb/s."""
    async with relay_process(RELAY_OPUS_BITRATE="256000") as process:
        yield process


def worker_without_webcodecs() -> dict[str, bytes]:
    """Return the player's Worker without the browser's own decoder, by its path."""
    path = f"{Pages().assets}/player/worker.js"
    page = Pages().find(path)
    assert page is not None
    return {path: b"globalThis.AudioDecoder = undefined;" + page.body}


@asynccontextmanager
async def listening_to_opus(
    context: BrowserContext, relay: RelayProcess, decoder: str, latency: str, save_data: str = ""
) -> AsyncIterator[Listening]:
    """Listen with the browser's own decoder (`webcodecs`), or with libopus as WebAssembly (`webassembly`)."""
    files = worker_without_webcodecs() if decoder == "webassembly" else {}
    async with listening(context, relay, files=files, codec="opus", latency=latency, saveData=save_data) as here:
        assert await here.ear.tab.page.evaluate("ear.player.stats.codec") == "opus"
        loaded = [path for path in here.ear.tab.network.requested if path.endswith("/opus-decoder.wasm")]
        assert bool(loaded) == (decoder == "webassembly")
        yield here


def assert_unbroken(piece: Piece) -> None:
    """Fail unless the tone is unbroken and every moment of the ruler is heard once."""
    verdict = piece.verdict
    assert verdict.clicks == ()
    assert abs(verdict.worst_level_db()) < LEVEL_DB
    assert verdict.silences == ()
    assert piece.skips() == []
    assert [piece.rise(count) for count in ("underruns", "gaps", "jumps")] == [0, 0, 0]


async def use(here: Listening, codec: str) -> None:
    """Change the codec, and wait until the player uses it."""
    page = here.ear.tab.page
    await page.evaluate("(codec) => { ear.player.codec = codec; }", codec)
    await here.ear.tab.until(f"ear.player.stats.codec === '{codec}'")


@pytest.mark.parametrize(
    ("latency", "decoder"), [("low", "webassembly"), ("balanced", "webcodecs"), ("stable", "webassembly")]
)
async def test_messages_of_20_60_and_100_ms_play_as_one_stream(
    context: BrowserContext, relay: RelayProcess, say: Say, latency: str, decoder: str
) -> None:
    async def listen() -> Heard:
        save_data = "true" if latency == "balanced" else ""
        async with listening_to_opus(context, relay, decoder, latency, save_data) as here:
            return await here.hear(5.1)

    await judged(listen, lambda heard: assert_unbroken(heard.recording.between(heard.mark, heard.mark + 5)), say)


@pytest.mark.parametrize("decoder", ["webcodecs", "webassembly"])
async def test_another_codec_goes_on_where_the_one_before_ends(
    context: BrowserContext, relay: RelayProcess, say: Say, decoder: str
) -> None:
    async def listen() -> Heard:
        async with listening_to_opus(context, relay, decoder, "balanced") as here:
            for codec in ("pcm_s16le", "opus", "pcm_s16le", "opus"):
                await use(here, codec)
                await asyncio.sleep(1)
            return await here.hear(6.5)

    await judged(listen, lambda heard: assert_unbroken(heard.recording.between(heard.mark - 1, heard.mark + 6)), say)


@pytest.mark.parametrize("decoder", ["webcodecs", "webassembly"])
async def test_a_killed_socket_is_not_heard(
    context: BrowserContext, relay: RelayProcess, say: Say, decoder: str
) -> None:
    async def listen() -> Heard:
        async with listening_to_opus(context, relay, decoder, "stable") as here:
            return await here.hear_a_break(5)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark - 1, heard.mark + 4.8)
        assert piece.rise("reconnects") == 1
        assert_unbroken(piece)

    await judged(listen, judge, say)
