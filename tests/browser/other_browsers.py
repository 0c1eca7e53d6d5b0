"""Debian's Firefox and WebKitGTK, which Playwright cannot drive, with a sound card without an output device.

Firefox speaks WebDriver BiDi, and WebKitGTK speaks WebDriver over HTTP. Every step has a limit. After a browser has
missed it once, every later step fails at once, so a browser that hangs costs a test run only one limit.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.browser.conftest import MICROPHONE_FREQUENCY
from tests.support.ports import free_port
from tests.support.processes import Process

STEP_SECONDS = 120.0
"""The limit of one step. It is generous: on a busy machine, Firefox may take a minute to start."""

END_SECONDS = 5.0
"""How long a program may take to end before it is killed, with everything that it started."""

PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.audio.fake_frequency": MICROPHONE_FREQUENCY,
    "media.navigator.permission.disabled": True,
}
"""Firefox's settings: its microphone hears a tone."""

AGAIN_SECONDS = 1.0
"""When to click again. A page that still loads may move a button away from the pointer, so a click may miss it."""

WATCH_CLICKS = """button => {
    button.wasClicked = false;
    button.addEventListener("click", () => { button.wasClicked = true; }, { once: true });
}"""


IN_THE_WAY = """button => {
    const { x, y, width, height } = button.getBoundingClientRect();
    const top = document.elementFromPoint(x + width / 2, y + height / 2);
    return `${top?.outerHTML.slice(0, 200)} in a page that is ${document.visibilityState}`;
}"""
"""What is where a button should be."""


class Page(ABC):
    """A tab of a browser.

    Attributes:
        complaints: Errors and warnings of the console. WebDriver does not report them, so WebKitGTK has none.
    """

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._fault: str | None = None

    @abstractmethod
    async def open(self, url: str) -> None:
        """Open an address, and wait until the page has loaded."""

    @abstractmethod
    async def press(self, button: str) -> None:
        """Click a button as a person does, once it is enabled."""

    async def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of its promise."""
        return json.loads(await self._evaluate(f"(async () => JSON.stringify((await ({expression})) ?? null))()"))

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        clock = asyncio.get_running_loop()
        latest = clock.time() + STEP_SECONDS
        while not await self.ask(condition):
            if clock.time() >= latest:
                shown = await self.ask("document.body.innerText")
                raise AssertionError(f"not true within {STEP_SECONDS:.0f} s: {condition}; the page shows: {shown}")
            await asyncio.sleep(0.05)

    @abstractmethod
    async def _evaluate(self, expression: str) -> str: ...

    async def _step(self, name: str, answer: Callable[[], Awaitable[Any]]) -> Any:
        """Await the browser's answer to a step. Fail if none comes in time, or if an earlier step timed out."""
        assert self._fault is None, self._fault
        try:
            async with asyncio.timeout(STEP_SECONDS):
                return await answer()
        except TimeoutError:
            self._fault = f"the browser hangs: no answer to {name} within {STEP_SECONDS:.0f} s"
            raise AssertionError(self._fault) from None


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
        element = {"sharedId": node["sharedId"]}
        await self._call(element, WATCH_CLICKS)
        clock = asyncio.get_running_loop()
        latest, again = clock.time() + STEP_SECONDS, 0.0
        while not await self._call(element, "button => button.wasClicked"):
            if clock.time() >= latest:
                there = await self._call(element, IN_THE_WAY)
                raise AssertionError(f"{button} was not hit within {STEP_SECONDS:.0f} s; there is {there}")
            # A person waits, too, until a button is enabled.
            if clock.time() >= again and not await self._call(element, "button => button.disabled"):
                await self._click(element)
                again = clock.time() + AGAIN_SECONDS
            await asyncio.sleep(0.02)

    async def _click(self, element: Mapping[str, str]) -> None:
        """Click where an element is."""
        # The pointer cannot reach an element below the bottom of the window.
        await self._call(element, "button => button.scrollIntoView({ behavior: 'instant', block: 'center' })")
        there = {"type": "element", "element": element}
        click = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": there},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": click}
        await self._do("input.performActions", context=self._tab, actions=[mouse])

    async def _call(self, element: Mapping[str, str], function: str) -> Any:
        """Return what a function returns for an element."""
        target = {"context": self._tab}
        answer = await self._do(
            "script.callFunction", functionDeclaration=function, arguments=[element], target=target, awaitPromise=False
        )
        return answer["result"].get("value")

    async def _evaluate(self, expression: str) -> str:
        target = {"context": self._tab}
        answer = await self._do("script.evaluate", expression=expression, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return str(answer["result"]["value"])

    async def _do(self, method: str, **params: Any) -> Any:
        """Execute a command of https://www.w3.org/TR/webdriver-bidi/, and keep the complaints that arrive meanwhile."""
        number = next(self._ids)

        async def answer() -> Any:
            await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
            while (message := json.loads(await self._socket.recv())).get("id") != number:
                entry = message["params"]
                if entry["level"] in ("error", "warn"):
                    self.complaints.append(entry["text"])
            return message

        message = await self._step(method, answer)
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

    async def open(self, url: str) -> None:
        await self._do("/url", url=url)

    async def press(self, button: str) -> None:
        (element,) = (await self._do("/element", **_named(button, "using"))).values()
        await self._do(f"/element/{element}/click")

    async def _evaluate(self, expression: str) -> str:
        return str(await self._do("/execute/sync", script=f"return {expression}", args=[]))

    async def _do(self, command: str, **params: Any) -> Any:
        """Execute a command of https://www.w3.org/TR/webdriver2/."""
        path = f"/session{self._session}{command}"
        return await self._step(path, lambda: asyncio.to_thread(self._post, path, params))

    def _post(self, path: str, params: Mapping[str, Any]) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=STEP_SECONDS)
        try:
            connection.request("POST", path, json.dumps(params), {"Content-Type": "application/json"})
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
        finally:
            connection.close()
        assert response.status == 200, value
        return value


def _named(button: str, kind: str) -> dict[str, str]:
    """Return a locator for a button by its text. The protocols name the locator's kind differently."""
    return {kind: "xpath", "value": f"//button[normalize-space()='{button}']"}


@asynccontextmanager
async def firefox(folder: Path) -> AsyncIterator[Page]:
    """Run a headless Firefox that keeps all its files in one folder."""
    profile = folder / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    command = ["firefox-esr", "--headless", "--no-remote", "--profile", str(profile)]
    port = f"--remote-debugging-port={free_port()}"
    ready = "WebDriver BiDi listening on "
    async with (
        _sound_card(folder) as environment,
        _running(*command, port, ready=lambda line: ready in line, environment=environment) as line,
        connect(
            f"{line.partition(ready)[2]}/session",
            proxy=None,
            max_size=None,
            ping_interval=None,
            open_timeout=STEP_SECONDS,
            close_timeout=END_SECONDS,
        ) as socket,
    ):
        page = FirefoxPage(socket)
        await page.start()
        yield page


@asynccontextmanager
async def webkit(folder: Path) -> AsyncIterator[Page]:
    """Run MiniBrowser, which comes with WebKitGTK, on a virtual screen."""
    port = free_port()
    async with (
        _sound_card(folder) as environment,
        _running("Xvfb", "-displayfd", "2", "-nolisten", "tcp", ready=str.isdigit, environment=environment) as display,
        _running("WebKitWebDriver", f"--port={port}", environment={**environment, "DISPLAY": f":{display}"}),
    ):
        await _listens(port)
        page = WebKitPage(port)
        await page.start()
        yield page


@asynccontextmanager
async def _sound_card(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """Run PulseAudio with one output that discards sound. Firefox needs an output to run an AudioContext.

    Yields:
        The environment of a browser that has this sound card.
    """
    environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    socket = folder / "sound"
    command = ["pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--log-level=info"]
    # Without norewinds, the output queues 2 s of silence, and every new sound waits for it to end.
    modules = ["module-null-sink norewinds=1", f"module-native-protocol-unix auth-anonymous=1 socket={socket}"]
    loads = [f"--load={module}" for module in modules]
    async with _running(*command, *loads, ready=lambda line: "startup complete" in line, environment=environment):
        yield {**environment, "PULSE_SERVER": f"unix:{socket}"}


@asynccontextmanager
async def _running(
    *command: str, environment: Mapping[str, str], ready: Callable[[str], bool] | None = None
) -> AsyncIterator[str]:
    """Run a program while the block runs, and yield the line of standard error that reports that it is ready.

    When the block ends, none of its processes remain.
    """
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    process = Process(child)
    try:
        yield await process.line(ready, STEP_SECONDS) if ready else ""
    finally:
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            child.terminate()
            await asyncio.wait_for(child.wait(), END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await process.wait()


async def _listens(port: int) -> None:
    """Wait until a program listens on a port of this machine."""
    clock = asyncio.get_running_loop()
    latest = clock.time() + STEP_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            assert clock.time() < latest, f"nothing listens on port {port} within {STEP_SECONDS:.0f} s"
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
