"""The documentation's samples embed the player as the pages show them, on a website of another origin."""

import re
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext

from tests.browser.conftest import PAGE_TIMEOUT_MS
from tests.browser.peers import broadcasting, free_origin, website
from tests.support.markdown import ROOT, blocks, read
from tests.support.processes import relay_process
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

GUIDE = "docs/guides/embed.md"
PACKAGE = "relay/pages/player/README.md"
SOUND = to_pcm(sine(997, 16_000, 1))
PLAYER = {
    f"/player/{file.name}": file.read_bytes() for file in (ROOT / "relay/pages/player").iterdir() if file.is_file()
}


def sample(page: str, language: str) -> str:
    """Return the first sample in this language on a page."""
    return next(block.text for block in blocks(read(page)) if block.language == language)


@pytest.mark.parametrize(
    ("page", "language"), [("README.md", "html"), (GUIDE, "html"), (PACKAGE, "html"), (PACKAGE, "js")]
)
async def test_a_sample_plays(page: str, language: str, context: BrowserContext, tmp_path: Path) -> None:
    origin = free_origin()
    (tmp_path / "relay.toml").write_text(sample(GUIDE, "toml").replace("https://www.example.org", origin))
    async with (
        relay_process("--config", str(tmp_path / "relay.toml")) as relay,
        broadcasting(relay.url, "ev1", 16_000, SOUND),
    ):
        here = relay.url.removeprefix("http://")
        text, policy = (
            re.sub(r"\b(http|ws)s://relay\.example\.org\b", rf"\1://{here}", shown)
            for shown in (sample(page, language), sample(GUIDE, "http").partition(": ")[2].strip())
        )
        files = {**PLAYER, "/": f"<!doctype html>{text}".encode()}
        if language == "js":
            text = text.replace('"audio-relay-player"', '"/player/index.js"')
            files["/"] = b"<!doctype html><button>Play</button><script type=module src=/sample.js></script>"
            files["/sample.js"] = text.encode()
        async with website(origin, files, policy):
            tab = await context.new_page()
            tab.set_default_timeout(PAGE_TIMEOUT_MS)
            said: list[str] = []
            tab.on("console", lambda message: said.append(message.text))
            await tab.goto(origin, wait_until="networkidle")
            if language == "js":
                async with tab.expect_console_message(lambda message: message.text.startswith("playing")):
                    await tab.get_by_role("button").click()
            else:
                await tab.locator("relay-player").get_by_role("button", name="Play").click()
                await tab.wait_for_function("() => document.querySelector('relay-player').state === 'playing'")
            await tab.close()
            assert not [line for line in said if "Refused" in line or "SyntaxError" in line]
