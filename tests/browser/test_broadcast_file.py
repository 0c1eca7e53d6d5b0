"""The broadcasting page sends files: long files, dropped files, and files that it must reject with a reason."""

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import av
import pytest
from playwright.async_api import Browser

from tests.browser.conftest import Tab
from tests.browser.microphone import RATE
from tests.browser.peers import listen
from tests.support.processes import RelayProcess
from tests.support.tone import from_pcm, judge, sine, to_pcm, write_wav

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997
FILE_RATE = 48_000
HOUR_SECONDS = 3600
HOUR_BYTES = HOUR_SECONDS * FILE_RATE * 2
"""The size of an hour of 16-bit audio."""

TRIES = 3


def wav(path: Path, seconds: int) -> Path:
    """Write one second of a tone followed by silence, as a sparse file that takes little disk space."""
    write_wav(path, sine(TONE, FILE_RATE, 1), FILE_RATE)
    header = bytearray(path.read_bytes()[:44])
    data_bytes = seconds * FILE_RATE * 2
    header[4:8] = (36 + data_bytes).to_bytes(4, "little")
    header[40:44] = data_bytes.to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write(header)
        file.truncate(44 + data_bytes)
    return path


def mp3(path: Path, seconds: int) -> Path:
    """Write copies of a ten-second tone until the file has this length."""
    with av.open(str(path), "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream: Any = container.add_stream("libmp3lame", rate=FILE_RATE, layout="mono")
        tone = av.AudioFrame(format="s16p", layout="mono", samples=10 * FILE_RATE)
        tone.planes[0].update(to_pcm(sine(TONE, FILE_RATE, 10)))
        tone.sample_rate = FILE_RATE
        container.mux(stream.encode(tone))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes() * (seconds // 10))
    return path


async def choose(tab: Tab, path: str, file: Path) -> None:
    """Open the broadcasting page, and choose a file."""
    await tab.open(path)
    await tab.page.get_by_role("radio", name="File").check()
    await choose_another(tab, file)


async def choose_another(tab: Tab, file: Path) -> None:
    """Choose a file, and wait until the browser has noted when it was last changed.

    The browser does so in the background, and before it reads from the file.
    """
    field = tab.page.get_by_label("Audio file")
    await field.set_input_files(file)
    await field.evaluate(
        """
        async (field) => {
          const reader = field.files[0].stream().getReader();
          await reader.read();
          await reader.cancel();
        }
        """
    )


async def milliseconds_to_live(tab: Tab) -> float:
    """Go live and stop again, and return how long the page took to go live."""
    took: float = await tab.page.evaluate(
        """
        () => new Promise((resolve) => {
          const began = performance.now();
          const watching = new AbortController();
          relayBroadcaster.addEventListener("statechange", () => {
            if (relayBroadcaster.state === "live") {
              watching.abort();
              resolve(performance.now() - began);
            }
          }, { signal: watching.signal });
          document.getElementById("go").click();
        })
        """
    )
    await tab.press("Stop")
    await tab.status("You are off the air.")
    return took


def private_bytes(process: int) -> int:
    """Return the size of a process's private memory without mapped files, or 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return 0
    kilobytes = re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * sum(map(int, kilobytes))


async def memory_bytes(browser: Browser) -> int:
    """Return the private memory of all processes of a browser."""
    session = await browser.new_browser_cdp_session()
    answer = await session.send("SystemInfo.getProcessInfo")
    await session.detach()
    return sum(private_bytes(process["id"]) for process in answer["processInfo"])


@pytest.mark.parametrize("write", [wav, mp3])
async def test_an_hour_begins_as_soon_as_half_a_minute_and_takes_no_more_memory(
    tab: Tab, browser: Browser, relay: RelayProcess, tmp_path: Path, write: Callable[[Path, int], Path]
) -> None:
    session = f"hour-{write.__name__}"
    await choose(tab, f"/broadcast/{session}", write(tmp_path / f"short.{write.__name__}", 30))
    short = [await milliseconds_to_live(tab) for _ in range(TRIES)]
    await choose_another(tab, write(tmp_path / f"hour.{write.__name__}", HOUR_SECONDS))
    before = await memory_bytes(browser)
    async with asyncio.timeout(60), aclosing(listen(relay.url, session)) as payloads:
        await tab.press("Go live")
        heard = b""
        while len(heard) < 2 * 0.8 * RATE:
            heard += await anext(payloads)
        assert await memory_bytes(browser) - before < HOUR_BYTES / 4
    # A busy machine can cause gaps; another test checks that a file plays without one.
    assert abs(judge(from_pcm(heard), RATE, TONE).frequency - TONE) < 2
    await tab.press("Stop")
    await tab.status("You are off the air.")
    hour = [await milliseconds_to_live(tab) for _ in range(TRIES)]
    assert min(hour) < 5 * min(short), (hour, short)


async def test_a_file_that_is_gone_is_not_called_unreadable(tab: Tab, tmp_path: Path) -> None:
    file = wav(tmp_path / "voice.wav", 60)
    await choose(tab, "/broadcast/gone", file)
    file.unlink()
    await tab.press("Go live")
    await tab.status("“voice.wav” was moved, deleted or changed")
    await choose_another(tab, wav(file, 60))
    wav(file, 120)
    await tab.press("Go live")
    await tab.status("“voice.wav” was moved, deleted or changed")
    await choose_another(tab, file)
    await tab.press("Go live")
    await tab.status("You are live.")
    tab.forgive("Failed to load resource")


@pytest.mark.parametrize(
    "content", [b"", b"not audio", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"], ids=["empty", "text", "picture"]
)
async def test_says_that_a_file_is_no_audio(tab: Tab, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.mp3"
    file.write_bytes(content)
    await choose(tab, "/broadcast/no-audio", file)
    await tab.press("Go live")
    await tab.status("The browser cannot read “notes.mp3” as audio.")
    # Chromium's error for an empty file.
    tab.forgive("net::ERR_REQUEST_RANGE_NOT_SATISFIABLE")


async def test_says_that_a_video_has_no_sound(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "mute.webm"
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libvpx", rate=25, width=64, height=64, pix_fmt="yuv420p")
        picture = av.VideoFrame(64, 64, "yuv420p")
        for picture.pts in range(25 * 10):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    await choose(tab, "/broadcast/no-track", file)
    await tab.press("Go live")
    await tab.status("There is no sound in “mute.webm”")


WATCHED_ELEMENTS = """
    window.made = [];
    window.Audio = class extends Audio {
      constructor() { super(); made.push(this); }
    };
"""


@pytest.mark.parametrize(("gone", "sentence"), [(False, "is damaged"), (True, "was moved, deleted or changed")])
async def test_a_file_that_fails_on_the_air_ends_the_broadcast_but_not_the_session(
    tab: Tab, relay: RelayProcess, tmp_path: Path, gone: bool, sentence: str
) -> None:
    """The test replaces the element's address, because a browser reads so far ahead that a missing file shows late."""
    file = wav(tmp_path / "voice.wav", HOUR_SECONDS)
    await tab.page.add_init_script(WATCHED_ELEMENTS)
    await choose(tab, "/broadcast/fails", file)
    async with asyncio.timeout(60), aclosing(listen(relay.url, "fails")) as payloads:
        await tab.press("Go live")
        await anext(payloads)
        if gone:
            file.unlink()
        await tab.page.evaluate("made[0].src = 'assets/style.css'")
        await tab.status(f"“voice.wav” {sentence}")
        await choose_another(tab, wav(file, HOUR_SECONDS))
        await tab.press("Go live")
        await tab.status("You are live.")
        # The same listener still receives audio.
        await anext(payloads)


async def test_nothing_but_the_page_pauses_a_file(tab: Tab, relay: RelayProcess, tmp_path: Path) -> None:
    """A media key, an unplugged headset or another app may pause the element."""
    await tab.page.add_init_script(WATCHED_ELEMENTS)
    await choose(tab, "/broadcast/media-key", wav(tmp_path / "voice.wav", HOUR_SECONDS))
    await tab.press("Go live")
    await tab.status("You are live.")
    await tab.until("made[0].currentTime > 0")
    place = await tab.page.evaluate("made[0].pause(), made[0].currentTime")
    await tab.until(f"!made[0].paused && made[0].currentTime > {place}")
    await tab.press("Stop")
    await tab.until("made[0].paused")


@asynccontextmanager
async def dragged(tab: Tab, *paths: Path, text: str = "") -> Any:
    """Drag from outside onto the page, and yield a function that continues with `dragOver`, `drop` or `dragCancel`."""
    session = await tab.page.context.new_cdp_session(tab.page)
    items = [{"mimeType": "text/plain", "data": text}] if text else []
    data = {"items": items, "files": [str(path) for path in paths], "dragOperationsMask": 1}

    async def move(kind: str) -> None:
        await session.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 200, "data": data})

    await move("dragEnter")
    await move("dragOver")
    yield move
    await session.detach()


async def test_a_file_is_dropped_on_the_page_and_heard(tab: Tab, relay: RelayProcess, tmp_path: Path) -> None:
    await tab.open("/broadcast/dropped")
    await tab.page.wait_for_selector("html[data-ready]")
    veil = tab.page.get_by_text("Drop the file here")
    file = wav(tmp_path / "voice.wav", HOUR_SECONDS)
    async with dragged(tab, file) as move:
        await veil.wait_for()
        await move("dragCancel")
        await veil.wait_for(state="hidden")
    async with dragged(tab, file) as move:
        await veil.wait_for()
        await move("drop")
        await veil.wait_for(state="hidden")
    await tab.page.get_by_role("radio", name="File", checked=True).wait_for()
    await tab.until("document.getElementById('file').files[0].name === 'voice.wav'")
    async with asyncio.timeout(60), aclosing(listen(relay.url, "dropped")) as payloads:
        await tab.press("Go live")
        await anext(payloads)
        # On the air, the page accepts no other file, and the browser does not leave the page for one.
        async with dragged(tab, tmp_path / "other.wav") as move:
            await move("drop")
        assert not await veil.is_visible()
        await anext(payloads)
    await tab.status("You are live.")


@pytest.mark.parametrize("what", ["two files", "a folder", "a word"])
async def test_a_drop_that_is_not_one_file_is_told_at_the_field(tab: Tab, tmp_path: Path, what: str) -> None:
    file = wav(tmp_path / "voice.wav", 10)
    paths = {"two files": [file, wav(tmp_path / "other.wav", 10)], "a folder": [tmp_path], "a word": []}[what]
    await tab.open("/broadcast/drops")
    await tab.page.wait_for_selector("html[data-ready]")
    async with dragged(tab, *paths, text="" if paths else "hello") as move:
        await move("drop")
    await tab.page.locator("#file:focus[aria-invalid=true]").wait_for()
    await tab.page.locator("#file-error").filter(has_text="Drop exactly one audio file").wait_for()
    async with dragged(tab, file) as move:
        await move("drop")
    await tab.page.locator("#file-error:empty").wait_for(state="attached")
    await tab.until("document.getElementById('file').files[0].name === 'voice.wav'")


async def test_a_word_is_dropped_into_a_field_as_ever(tab: Tab) -> None:
    await tab.open("/broadcast/words")
    await tab.page.wait_for_selector("html[data-ready]")
    await tab.page.get_by_text("Channel, language and key").click()
    name = tab.page.get_by_label("Name that listeners see")
    await name.scroll_into_view_if_needed()
    box = await name.bounding_box()
    assert box is not None
    session = await tab.page.context.new_cdp_session(tab.page)
    data = {"items": [{"mimeType": "text/plain", "data": "Foyer"}], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + 20, "y": box["y"] + box["height"] / 2}
        await session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    await tab.until("document.getElementById('name').value === 'Foyer'")
    assert await tab.page.locator("#file-error").text_content() == ""
