"""Take the pictures in docs/images: the pages and the report in light and in dark, and a command in a terminal.

    python -m scripts.pictures [listening] [broadcasting] [report] [sessions]

It runs a real relay, broadcasters, listeners and Chromium, which `make test` installs, for about two minutes. The
machine should be quiet, because the pictures show delays and losses. The pages use the font Inter if it is installed
(Debian: fonts-inter). The diagrams are drawn by hand: to change one, edit its SVG.
"""

import asyncio
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Literal

import av
import av.filter
import numpy as np
from numpy.typing import NDArray
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from relay.client import listen
from tests.support.certificates import make_certificate
from tests.support.processes import RelayProcess, environment, relay_process, running

Pixels = NDArray[np.uint8]
Pictures = dict[str, list[Pixels]]
"""By the names of their files: what is in them, from left to right."""

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
VOICE = Path(__file__).resolve().parent.parent / "relay" / "samples" / "counting.wav"

HOST = "relay.example.org"
"""Chromium finds the relay of this machine under this name, so that links look as they will for readers."""

SESSION = "town-hall"
LANGUAGES = {"en": "English", "de": "Deutsch", "ar": "العربية", "uk": "Українська"}

ADMIN_KEY = "an-admin-key-for-the-pictures"

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PHONE: ViewportSize = {"width": 390, "height": 944}
DESK: ViewportSize = {"width": 960, "height": 600}
REPORT: ViewportSize = {"width": 1040, "height": 600}
SCALE = 2

HISTORY_SECONDS = 30
"""The page's details show this much."""

SETTLING_SECONDS = 8

PATIENCE_MS = 60_000

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <alias binding="strong"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
</fontconfig>
"""

TERMINAL_STYLE = """
rect { fill: #181d1b; stroke: #2e3532 }
circle { fill: #3d4642 }
text { fill: #c9d0cc; font: 14px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; white-space: pre }
.command { fill: #34c5b3; font-weight: 600 }
"""

CELL_WIDTH, LINE_HEIGHT = 8.43, 20
"""A character of a terminal at 14 px, in most fonts."""


async def main(wanted: Sequence[str]) -> None:
    """Take the pictures of all subjects, or of the wanted ones."""
    unknown = set(wanted) - set(SUBJECTS)
    if unknown:
        raise SystemExit(f"There is no {unknown.pop()!r}: choose from {', '.join(SUBJECTS)}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate = make_certificate(folder)
        os.environ["SSL_CERT_FILE"] = str(certificate.certificate)
        settings = {
            "RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY,
            "RELAY_BROADCAST_OPEN": "true",
            "RELAY_SERVER_TLS_CERTIFICATE": str(certificate.certificate),
            "RELAY_SERVER_TLS_KEY": str(certificate.key),
        }
        for subject in wanted or SUBJECTS:
            async with relay_process(**settings) as relay, chromium(folder, relay) as browser:
                pictures = await SUBJECTS[subject](browser, relay)
            for picture, shots in pictures.items():
                save(picture, shots)


@asynccontextmanager
async def chromium(folder: Path, relay: RelayProcess) -> AsyncIterator[Browser]:
    """Start Chromium, with the sample voice as its microphone, and the relay as `HOST`."""
    executable = shutil.which("chromium")
    if executable is None:
        raise SystemExit("Chromium is missing; `make test` installs it.")
    fonts = folder / "fonts.conf"
    fonts.write_text(FONTS)
    address = relay.url.partition("//")[2]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable,
            env={**os.environ, "FONTCONFIG_FILE": os.environ.get("FONTCONFIG_FILE", str(fonts))},
            args=[
                "--no-sandbox",
                f"--host-resolver-rules=MAP {HOST}:443 {address}",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={VOICE}",
            ],
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def town_hall(relay: RelayProcess) -> AsyncIterator[None]:
    """Broadcast and listen to channels of several languages."""
    voice = ("broadcast", SESSION, str(VOICE), "--loop", "--url", relay.url)
    async with AsyncExitStack() as stack:
        for lang, name in LANGUAGES.items():
            pace = "live" if lang == "en" else "speech"
            channel = ("--channel", lang, "--lang", lang, "--name", name, "--session-name", "Town hall")
            await stack.enter_async_context(running(*voice, *channel, "--pace", pace))
            await relay.event("broadcaster joined", channel=lang)
        for lang, count in zip(LANGUAGES, (14, 23, 7, 3), strict=True):
            await stack.enter_async_context(audience(relay.url, lang, count))
        yield


@asynccontextmanager
async def audience(url: str, channel: str, count: int) -> AsyncIterator[None]:
    """Listen to a channel several times."""

    async def hear() -> None:
        async with listen(url, SESSION, channel=channel, coalesce_ms=200) as listener:
            async for _ in listener:
                pass

    async with asyncio.TaskGroup() as group:
        listeners = [group.create_task(hear()) for _ in range(count)]
        yield
        for listener in listeners:
            listener.cancel()


@asynccontextmanager
async def opened(browser: Browser, path: str, size: ViewportSize, locale: str = "en") -> AsyncIterator[Page]:
    """Open a page of the relay."""
    context = await browser.new_context(
        viewport=size, locale=locale, device_scale_factor=SCALE, ignore_https_errors=True
    )
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(f"https://{HOST}{path}")
    yield page
    await context.close()


async def listening(browser: Browser, relay: RelayProcess) -> Pictures:
    """Take the listening page on two phones, and on one of them with its details."""
    pictures: Pictures = {}
    async with town_hall(relay):
        for locale in ("en", "ar"):
            async with opened(browser, f"/listen/{SESSION}", PHONE, locale) as phone:
                await phone.locator("#play").click()
                await phone.mouse.move(0, 0)
                await phone.wait_for_selector("main[data-state=playing]")
                await asyncio.sleep(HISTORY_SECONDS)
                for scheme in SCHEMES:
                    pictures.setdefault(f"listen-{scheme}", []).append(await look(phone, scheme))
                if locale == "en":
                    await phone.locator("details").first.evaluate("details => details.open = true")
                    for scheme in SCHEMES:
                        pictures[f"listen-details-{scheme}"] = [await look(phone, scheme, full_page=True)]
    return pictures


async def broadcasting(browser: Browser, relay: RelayProcess) -> Pictures:
    """Take the broadcasting page while it is live."""
    async with (
        audience(relay.url, "main", 23),
        opened(browser, f"/broadcast/{SESSION}", DESK) as page,
    ):
        await page.get_by_role("button", name="Go live").click()
        await page.wait_for_selector("main[data-state=live]")
        await page.mouse.move(0, 0)
        await page.wait_for_selector("#listeners:text-is('23')")
        await asyncio.sleep(SETTLING_SECONDS)
        pictures = {}
        for scheme in SCHEMES:
            await page.wait_for_function("() => level.style.getPropertyValue('--rms') > 0.6")
            pictures[f"broadcast-{scheme}"] = [await look(page, scheme, full_page=True)]
        return pictures


async def report(browser: Browser, _: RelayProcess) -> Pictures:
    """Take the top of a load test's page, down to its first charts. Its relay has no TLS, like one behind a proxy."""
    with tempfile.NamedTemporaryFile(suffix=".html") as html:
        async with relay_process() as plain:
            await output("loadtest", "--url", plain.url, "--listeners", "200", "--duration", "20", "--html", html.name)
        page = await browser.new_page(viewport=REPORT, device_scale_factor=SCALE)
        await page.goto(Path(html.name).as_uri())
    await page.add_style_tag(
        content="body { padding-bottom: 2rem } figure:nth-of-type(n + 5), .charts ~ * { display: none }"
    )
    return {f"loadtest-{scheme}": [await look(page, scheme, full_page=True)] for scheme in SCHEMES}


async def sessions(_: Browser, relay: RelayProcess) -> Pictures:
    """Take `relay sessions` in a terminal."""
    lines = []
    async with town_hall(relay):
        await asyncio.sleep(SETTLING_SECONDS)
        for arguments in (["sessions"], ["sessions", "end", SESSION, "--channel", "uk"]):
            lines += [
                "$ relay " + " ".join(arguments),
                *(await output(*arguments, "--url", relay.url)).splitlines(),
                "",
            ]
    (IMAGES / "sessions.svg").write_text(terminal(lines[:-1]), encoding="utf-8")
    print("Wrote docs/images/sessions.svg.")
    return {}


SUBJECTS = {"listening": listening, "broadcasting": broadcasting, "report": report, "sessions": sessions}


def terminal(lines: Sequence[str]) -> str:
    """Draw a terminal as SVG. Each cell of a table has its own place, so the columns hold in every font."""
    width, height = round(max(map(len, lines)) * CELL_WIDTH) + 40, len(lines) * LINE_HEIGHT + 64
    drawn = [
        f'<text class="{"command" if line.startswith("$") else "output"}" x="{20 + cell.start() * CELL_WIDTH:.0f}" '
        f'y="{60 + number * LINE_HEIGHT}">{escape(cell[0])}</text>'
        for number, line in enumerate(lines)
        for cell in re.finditer(r"\S+(?: \S+)*", line)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" viewBox="0 0 {width} {height}">',
            f"<style>{TERMINAL_STYLE}</style>",
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>',
            '<circle cx="22" cy="20" r="6"/><circle cx="42" cy="20" r="6"/><circle cx="62" cy="20" r="6"/>',
            *drawn,
            "</svg>\n",
        ]
    )


async def output(*arguments: str) -> str:
    """Run `relay ARGUMENTS`, and return what it writes to standard output."""
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "relay",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=environment({"RELAY_ACCESS_ADMIN_KEY": ADMIN_KEY}),
    )
    written, _ = await command.communicate()
    if command.returncode:
        raise SystemExit(f"relay {arguments[0]} failed.")
    return written.decode()


async def look(page: Page, scheme: Literal["light", "dark"], *, full_page: bool = False) -> Pixels:
    """Return what a page shows."""
    await page.emulate_media(color_scheme=scheme)
    shot = await page.screenshot(full_page=full_page, animations="disabled")
    with av.open(io.BytesIO(shot), "r") as container:
        return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"), np.uint8)


def save(name: str, shots: Sequence[Pixels]) -> None:
    """Write pictures side by side as one PNG with a palette, which is a third as large."""
    path = IMAGES / f"{name}.png"
    frame = av.VideoFrame.from_ndarray(np.hstack(shots), format="rgb24")
    frame.time_base = Fraction(1)
    reduced = with_palette(frame)
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1, options={"compression_level": "9", "pred": "none"})
        stream.width, stream.height, stream.pix_fmt = reduced.width, reduced.height, reduced.format.name
        container.mux(stream.encode(reduced))
        container.mux(stream.encode())
    print(f"Wrote docs/images/{path.name}: {frame.width} × {frame.height}, {path.stat().st_size // 1000} kB.")


def with_palette(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a picture in the 256 colours that suit it best."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    split, palette = graph.add("split"), graph.add("palettegen", "reserve_transparent=0")
    use, sink = graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use)
    split.link_to(palette, 1)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    graph.vpush(frame)
    graph.vpush(None)
    return graph.vpull()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
