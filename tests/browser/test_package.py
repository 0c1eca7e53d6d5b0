"""The player's npm package as users get it: packed, installed in an app, type-checked, built and heard.

These are the steps of docs/player.md and relay/pages/player/README.md.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from tests.browser.conftest import PAGE_TIMEOUT_MS
from tests.browser.peers import broadcasting, free_origin, website
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997
TONE_SECOND = to_pcm(sine(TONE, 16_000, 1))
SESSION = "packaged"

HERE = Path(__file__).parent
PLAYER = Path(str(files("relay"))) / "pages" / "player"
TOOLS = HERE / "node_modules" / ".bin"

INSTALL = ("npm", "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")

IMPORT_ALL = 'await import("audio-relay-player"); await import("audio-relay-player/element.js");'

HEAR = """
async (tone) => {
  const { context, output } = relayPlayer;
  const analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  output.connect(analyser);
  const levels = new Float32Array(analyser.frequencyBinCount);
  const hertz = context.sampleRate / analyser.fftSize;
  for (;;) {
    analyser.getFloatFrequencyData(levels);
    const loudest = levels.indexOf(Math.max(...levels));
    if (levels[loudest] > -30 && Math.abs(loudest * hertz - tone) < 2 * hertz) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
"""
"""Resolves when the test tone is the loudest frequency of the player's output."""


def run(*command: str, folder: Path) -> str:
    """Run a Node command with the tools of these tests, and return its output."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{command}:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an app that has installed the package; `out` contains each bundler's build."""
    folder = tmp_path_factory.mktemp("package")
    source, app = folder / "player", folder / "app"
    shutil.copytree(PLAYER, source, ignore=shutil.ignore_patterns("dist", "node_modules"))
    before = {path.name for path in source.iterdir()}
    name = run("npm", "pack", "--loglevel=error", "--pack-destination", str(folder), folder=source).split()[-1]
    assert {path.name for path in source.iterdir()} == before
    app.mkdir()
    shutil.copy(HERE / "package_app" / "main.js", app)
    (app / "package.json").write_text('{ "private": true, "type": "module" }')
    run(*INSTALL, str(folder / name), folder=app)
    run("node", str(HERE / "package_app" / "build.mjs"), str(app), folder=app)
    return app


@pytest.fixture(scope="module")
def origin() -> str:
    return free_origin()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def relay(origin: str) -> AsyncIterator[RelayProcess]:
    """Run a relay that lets the app connect."""
    async with relay_process(RELAY_BROADCAST_OPEN="true", RELAY_ACCESS_ALLOWED_ORIGINS=origin) as relay:
        yield relay


async def test_its_webassembly_is_that_of_the_package_on_npm(tmp_path: Path) -> None:
    run("node", str(HERE / "unpack_wasm.mjs"), str(tmp_path / "opus-decoder.wasm"), folder=HERE)
    assert (tmp_path / "opus-decoder.wasm").read_bytes() == (PLAYER / "opus-decoder.wasm").read_bytes()


async def test_its_webassembly_comes_with_its_licenses(app: Path) -> None:
    packed = app / "node_modules" / "audio-relay-player" / "dist"
    for name in ("opus-decoder.wasm", "opus-decoder.LICENSE"):
        assert (packed / name).read_bytes() == (PLAYER / name).read_bytes()


@pytest.mark.parametrize(("module", "resolution"), [("esnext", "bundler"), ("nodenext", "nodenext")])
async def test_an_app_in_typescript_is_checked_against_its_types(app: Path, module: str, resolution: str) -> None:
    shutil.copy(HERE / "package_app" / "app.ts", app)
    options = ("--noEmit", "--strict", "--skipLibCheck", "false", "--target", "es2022", "--lib", "es2022,dom")
    run("tsc", "app.ts", *options, "--module", module, "--moduleResolution", resolution, folder=app)


async def test_a_server_that_renders_pages_can_import_it(app: Path) -> None:
    run("node", "--input-type=module", "--eval", IMPORT_ALL, folder=app)


@pytest.mark.parametrize("bundler", ["vite", "webpack", "esbuild"])
async def test_an_app_that_was_built_for_production_plays(
    app: Path, context: BrowserContext, origin: str, relay: RelayProcess, bundler: str
) -> None:
    out = app / "out" / bundler
    site = {f"/{file.relative_to(out).as_posix()}": file.read_bytes() for file in out.rglob("*") if file.is_file()}
    site |= {"/": site["/index.html"], "/favicon.ico": b""}
    # Vite inlines small files into the code.
    policy = f"default-src 'self'; connect-src 'self' {relay.websocket_url}; media-src 'self' data:"
    async with website(origin, site, policy), broadcasting(relay.url, SESSION, 16_000, TONE_SECOND):
        page = await context.new_page()
        page.set_default_timeout(PAGE_TIMEOUT_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{origin}/?src={relay.url}/listen/{SESSION}")
        player = page.locator("relay-player")
        await player.get_by_role("button", name="Play").click()
        await player.get_by_text("Live", exact=True).wait_for()
        async with asyncio.timeout(PAGE_TIMEOUT_MS / 1000):
            await page.evaluate(HEAR, TONE)
        assert await page.evaluate("isOfOnePackage")
        assert complaints == []
        await page.close()
