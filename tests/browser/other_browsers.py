"""Firefox and WebKitGTK as Debian has them, which Playwright can not drive, with a sound card that nobody hears.

Both are driven by the protocol that they speak themselves: Firefox by WebDriver BiDi, WebKitGTK by WebDriver over HTTP.
"""

import asyncio
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.browser.conftest import MICROPHONE_FREQUENCY
from tests.support.ports import free_port
from tests.support.processes import Process

PAGE_SECONDS = 60.0
"""Generous, because other work may keep the machine busy."""

PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.audio.fake_frequency": MICROPHONE_FREQUENCY,
    "media.navigator.permission.disabled": True,
}
"""Of a Firefox whose microphone hears a tone."""


class Page(ABC):
    """A tab of a browser.

    Attributes:
        complaints: Errors and warnings in the browser's console, where it tells of them.
    """

    def __init__(self) -> None:
        self.complaints: list[str] = []

    @abstractmethod
    async def open(self, url: str) -> None:
        """Go to an address; the page is loaded when it returns."""

    @abstractmethod
    async def press(self, button: str) -> None:
        """Click a button, as a person does."""

    async def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, or what its promise gives."""
        return json.loads(await self._evaluate(f"(async () => JSON.stringify((await ({expression})) ?? null))()"))

    async def until(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                while not await self.ask(condition):  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never true: {condition}") from None

    @abstractmethod
    async def _evaluate(self, expression: str) -> str: ...


class FirefoxPage(Page):
    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self._socket = socket
        self._ids = itertools.count()
        self._tab = ""

    async def start(self) -> None:
        await self._do("session.new", capabilities={})
        await self._do("session.subscribe", events=["log.entryAdded"])
        self._tab = (await self._do("browsingContext.create", type="tab"))["context"]

    async def open(self, url: str) -> None:
        await self._do("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    async def press(self, button: str) -> None:
        found = await self._do("browsingContext.locateNodes", context=self._tab, locator=_named(button, "type"))
        (node,) = found["nodes"]
        there = {"type": "element", "element": {"sharedId": node["sharedId"]}}
        click = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": there},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": click}
        await self._do("input.performActions", context=self._tab, actions=[mouse])

    async def _evaluate(self, expression: str) -> str:
        target = {"context": self._tab}
        answer = await self._do("script.evaluate", expression=expression, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return str(answer["result"]["value"])

    async def _do(self, method: str, **params: Any) -> Any:
        """Carry out a command of https://www.w3.org/TR/webdriver-bidi/, and read what the browser tells meanwhile."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(PAGE_SECONDS):
            while (message := json.loads(await self._socket.recv())).get("id") != number:
                told = message["params"]
                if told["level"] in ("error", "warn"):
                    self.complaints.append(told["text"])
        assert message["type"] == "success", message
        return message["result"]


class WebKitPage(Page):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._session = ""

    async def start(self) -> None:
        answer = await self._do("", capabilities={})
        self._session = f"/{answer['sessionId']}"

    async def end(self) -> None:
        await asyncio.to_thread(self._ask, "DELETE", f"/session{self._session}")

    async def open(self, url: str) -> None:
        await self._do("/url", url=url)

    async def press(self, button: str) -> None:
        (element,) = (await self._do("/element", **_named(button, "using"))).values()
        await self._do(f"/element/{element}/click")

    async def _evaluate(self, expression: str) -> str:
        return str(await self._do("/execute/sync", script=f"return {expression}", args=[]))

    async def _do(self, command: str, **params: Any) -> Any:
        """Carry out a command of https://www.w3.org/TR/webdriver2/."""
        return await asyncio.to_thread(self._ask, "POST", f"/session{self._session}{command}", params)

    def _ask(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PAGE_SECONDS)
        try:
            connection.request(method, path, json.dumps(params), {"Content-Type": "application/json"})
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
        finally:
            connection.close()
        assert response.status == 200, value
        return value


def _named(button: str, kind: str) -> dict[str, str]:
    """Return how a button is found by its words; the protocols differ in one word."""
    return {kind: "xpath", "value": f"//button[normalize-space()='{button}']"}


@asynccontextmanager
async def firefox(folder: Path) -> AsyncIterator[Page]:
    """Run a headless Firefox with a profile of its own in a folder."""
    profile = folder / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    command = ["firefox-esr", "--headless", "--no-remote", "--profile", str(profile)]
    port = f"--remote-debugging-port={free_port()}"
    told = "WebDriver BiDi listening on "
    async with (
        _sound_card(folder) as environment,
        _running(*command, port, ready=lambda line: told in line, environment=environment) as line,
        connect(f"{line.partition(told)[2]}/session", proxy=None, max_size=None, ping_interval=None) as socket,
    ):
        page = FirefoxPage(socket)
        await page.start()
        yield page


@asynccontextmanager
async def webkit(folder: Path) -> AsyncIterator[Page]:
    """Run WebKitGTK's own small browser on a screen that nobody sees."""
    port = free_port()
    async with (
        _sound_card(folder) as environment,
        _running("Xvfb", "-displayfd", "2", "-nolisten", "tcp", ready=str.isdigit, environment=environment) as display,
        _running("WebKitWebDriver", f"--port={port}", environment={**environment, "DISPLAY": f":{display}"}),
    ):
        await _listens(port)
        page = WebKitPage(port)
        await page.start()
        try:
            yield page
        finally:
            await page.end()


@asynccontextmanager
async def _sound_card(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """Run PulseAudio with one output that leads nowhere: without one, Firefox lets no AudioContext run.

    Yields:
        The environment of a browser that has this sound card, and the folder for its files.
    """
    environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    socket = folder / "sound"
    command = ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--log-level=info"]
    modules = ["module-null-sink", f"module-native-protocol-unix auth-anonymous=1 socket={socket}"]
    loads = [f"--load={module}" for module in modules]
    async with _running(*command, *loads, ready=lambda line: "startup complete" in line, environment=environment):
        yield {**environment, "PULSE_SERVER": f"unix:{socket}"}


@asynccontextmanager
async def _running(
    *command: str, environment: Mapping[str, str], ready: Callable[[str], bool] | None = None
) -> AsyncIterator[str]:
    """Run a program while the block runs; gives the line of standard error by which it tells that it is ready."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    process = Process(child)
    try:
        yield await process.line(ready, PAGE_SECONDS) if ready else ""
    finally:
        await process.end()


async def _listens(port: int) -> None:
    async with asyncio.timeout(PAGE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
