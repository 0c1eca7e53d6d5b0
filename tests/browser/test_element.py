"""`<relay-player>` in plain pages, React and Vue: moved, changed, and created before its definition."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from playwright.async_api import BrowserContext, Route

from relay.pages.files import Pages
from tests.browser.conftest import FOLDER, Tab
from tests.browser.peers import broadcasting, claimed, network
from tests.support.processes import RelayProcess, relay_process
from tests.support.tokens import SECRET, token
from tests.support.tone import sine, to_pcm

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

MODULES = FOLDER / "node_modules"

SOUND = to_pcm(sine(997, 16_000, 1))
LOUD = 0.1

ELEMENT = "/assets/player/element.js"
SAME_ELEMENT = f"{Pages().assets}/player/element.js"

PAGE = b"""<!doctype html><title>A page</title><link rel="icon" href="/assets/icon.svg">
<main id="here"></main><aside id="there"></aside>"""

REACT = {
    "react": "react/cjs/react.production.js",
    "scheduler": "scheduler/cjs/scheduler.production.js",
    "react-dom": "react-dom/cjs/react-dom.production.js",
    "react-dom/client": "react-dom/cjs/react-dom-client.production.js",
}
VUE = "@vue/runtime-dom/dist/runtime-dom.esm-browser.prod.js"


def react_module() -> bytes:
    """Wrap React, which ships only as CommonJS, as a module for browsers."""
    files = {name: (MODULES / path).read_text(encoding="utf-8") for name, path in REACT.items()}
    parts = "".join(f'"{name}": (exports, module, require) => {{{text}\n}},\n' for name, text in files.items())
    return f"""
        const made = {{}};
        const makers = {{{parts}}};
        function require(name) {{
          if (!(name in made)) {{
            const module = {{ exports: {{}} }};
            makers[name](module.exports, module, require);
            made[name] = module.exports;
          }}
          return made[name];
        }}
        export const {{ createElement }} = require("react");
        export const {{ flushSync }} = require("react-dom");
        export const {{ createRoot }} = require("react-dom/client");
    """.encode()


class Stage:
    """A third-party page with two places for players.

    Attributes:
        tab: The page.
        workers: How many Workers it has created so far.
    """

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.workers = 0
        tab.page.on("worker", self._count)

    async def run(self, body: str, **given: object) -> Any:
        """Run the body of an async function that can use `here`, `there`, `element` (the first player) and `given`."""
        names = f"const {{{', '.join(given)}}} = given;"
        scope = (
            "const [here, there, element] = ['#here', '#there', 'relay-player'].map((s) => document.querySelector(s));"
        )
        return await self.tab.page.evaluate(f"async (given) => {{ {names} {scope} {body} }}", given)

    async def define(self) -> None:
        await self.run("await import(path);", path=ELEMENT)

    async def show(self, **attributes: str) -> None:
        """Insert a player."""
        await self.define()
        await self.run(
            """
            const made = document.createElement("relay-player");
            Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
            here.append(made);
            """,
            attributes=attributes,
        )

    async def until(self, condition: str) -> None:
        """Wait until an expression about `element` is true."""
        await self.tab.page.wait_for_function(
            f"() => {{ const element = document.querySelector('relay-player'); return {condition}; }}"
        )

    async def play(self, number: int = 0) -> None:
        """Start a player and wait until it plays; after a minute, fail with its states."""
        started = await self.run(
            """
            const player = document.querySelectorAll("relay-player")[number];
            const states = [];
            return new Promise((resolve) => {
              player.addEventListener("statechange", ({ detail: { state, reason } }) => {
                states.push(state, reason);
                if (["playing", "failed", "ended"].includes(state)) {
                  resolve([state, states]);
                }
              });
              setTimeout(() => resolve([player.state, [...states, JSON.stringify(player.stats)]]), 60_000);
              player.play();
            });
            """,
            number=number,
        )
        assert started[0] == "playing", started

    async def hears(self, number: int = 0) -> bool:
        """Wait until a player's output has sound; return false if it has no output."""
        record = """
            window.relayPlayer = document.querySelectorAll("relay-player")[number].player;
            return relayPlayer.output && recordPlayer(0.3);
        """
        # A busy machine may interrupt the sound, but a stopped player has no output at all.
        while (recorded := await self.run(record, number=number)) is not None:
            samples = np.frombuffer(base64.b64decode(recorded["left"]), np.float32)
            if np.sqrt(np.mean(np.square(samples))) > LOUD:
                return True
        return False

    def _count(self, _worker: object) -> None:
        self.workers += 1


@asynccontextmanager
async def open_stage(context: BrowserContext, relay_url: str) -> AsyncIterator[Stage]:
    """Open a page, served beside a relay's own pages, that loads nothing yet."""
    files = {
        "/assets/test-stage.html": PAGE,
        "/assets/test-react.js": react_module(),
        "/assets/test-vue.js": (MODULES / VUE).read_bytes(),
        "/assets/test-recorder.js": (FOLDER / "recorder.js").read_bytes(),
    }
    async with network(relay_url, files) as between:
        page = await context.new_page()
        tab = Tab(page, between)
        await tab.open("/assets/test-stage.html")
        yield Stage(tab)
        await page.close()
        assert tab.complaints == []


MOVES = {
    "append": "there.append(element);",
    "insertBefore": "here.insertBefore(element, here.firstChild);",
    "a parent": "const p = document.createElement('p'); here.append(p); p.append(element); there.append(p);",
    "out and in": "element.remove(); await null; await null; there.append(element);",
    "moveBefore": "here.moveBefore(element, null);",
}


async def test_it_goes_on_playing_wherever_it_is_moved(context: BrowserContext, relay: RelayProcess) -> None:
    async with (
        broadcasting(relay.url, "moved", 16_000, SOUND),
        open_stage(context, relay.url) as stage,
    ):
        await stage.show(src="/listen/moved")
        await stage.play()
        await stage.run(
            """
            window.first = element.player;
            window.left = [];
            element.addEventListener("statechange", ({ detail }) => left.push(detail.state));
            """
        )
        for name, move in MOVES.items():
            await stage.run(move)
            assert await stage.hears(), name
            assert await stage.run("return element.player === first;"), name
        assert "idle" not in await stage.run("return left;")
        assert stage.workers == 1


async def test_taken_out_it_stops_and_put_in_again_it_can_be_played(
    context: BrowserContext, relay: RelayProcess
) -> None:
    async with (
        broadcasting(relay.url, "taken-out", 16_000, SOUND),
        open_stage(context, relay.url) as stage,
    ):
        await stage.show(src="/listen/taken-out")
        await stage.play()
        await stage.run("window.kept = element; window.first = element.player; element.remove();")
        await stage.tab.until("kept.player === null && first.context === null")
        await stage.run("here.append(kept);")
        await stage.play()
        assert await stage.hears()
        assert stage.workers == 2


FRAMEWORKS = {
    # `draw` takes a list of keys and the common properties, and renders players with these keys in this order.
    "react": """
        const { createElement, createRoot, flushSync } = await import("/assets/test-react.js");
        const root = createRoot(here);
        const draw = (key, properties) => createElement("relay-player", { key, id: key, ...properties });
        window.draw = (ids, properties) => flushSync(() => root.render(ids.map((key) => draw(key, properties))));
    """,
    "vue": """
        const { Fragment, h, render } = await import("/assets/test-vue.js");
        const draw = (key, properties) => h("relay-player", { key, id: key, ...properties });
        window.draw = (ids, properties) => render(h(Fragment, ids.map((key) => draw(key, properties))), here);
    """,
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_framework_re_orders_changes_and_makes_it_before_it_is_defined(
    context: BrowserContext, relay: RelayProcess, framework: str
) -> None:
    async with (
        broadcasting(relay.url, "framed", 16_000, SOUND),
        broadcasting(relay.url, "framed/de", 16_000, SOUND),
        open_stage(context, relay.url) as stage,
    ):
        await stage.run(FRAMEWORKS[framework])
        properties = {"src": "/listen/framed", "channel": "de", "latency": "stable"}
        await stage.run("draw(['a', 'b'], properties);", properties=properties)
        await stage.define()
        assert await stage.run("return [element.player.channel, element.player.latency];") == ["de", "stable"]
        await stage.play(0)
        await stage.play(1)
        await stage.run("window.before = [a.player, b.player];")
        # A framework may move either of the two.
        await stage.run("draw(['b', 'a'], properties);", properties=properties)
        assert await stage.run("return here.children[0] === b && here.children[1] === a;")
        assert await stage.hears(0)
        assert await stage.hears(1)
        # One property is removed, and another is changed.
        await stage.run("draw(['b', 'a'], properties);", properties={"src": "/listen/framed", "latency": "low"})
        await stage.until("['a', 'b'].every((id) => document.getElementById(id).player.channel === 'main')")
        assert await stage.run("return [a.player.latency, a.hasAttribute('channel')];") == ["low", False]
        assert await stage.run("return before[0] === a.player && before[1] === b.player;")
        assert await stage.hears(0)
        assert stage.workers == 2


async def test_vue_teleports_it(context: BrowserContext, relay: RelayProcess) -> None:
    async with (
        broadcasting(relay.url, "teleported", 16_000, SOUND),
        open_stage(context, relay.url) as stage,
    ):
        await stage.define()
        await stage.run(
            """
            const { Teleport, h, render } = await import("/assets/test-vue.js");
            const root = document.createElement("div");
            window.draw = (to) => render(h(Teleport, { to }, [h("relay-player", { src: "/listen/teleported" })]), root);
            draw("#here");
            """
        )
        await stage.play()
        await stage.run("draw('#there');")
        assert await stage.run("return there.contains(element);")
        assert await stage.hears()
        assert stage.workers == 1


async def test_properties_are_attributes_whenever_they_are_set(context: BrowserContext, relay: RelayProcess) -> None:
    async with open_stage(context, relay.url) as stage:
        await stage.run(
            """
            const made = document.createElement("relay-player");
            Object.assign(made, { session: "props", channel: "en" });
            here.append(made);
            """
        )
        await stage.define()
        given = "return [element.getAttribute('channel'), element.channel, element.player.channel];"
        assert await stage.run(given) == ["en"] * 3
        await stage.run("element.channel = 'de';")
        assert await stage.run(given) == ["de"] * 3
        await stage.run("element.channel = null;")
        assert await stage.run(given) == [None, None, "main"]
        # Other changes keep the channel that the person chose.
        await stage.run("element.player.switchChannel('fr'); element.latency = 'low'; element.saveData = true;")
        shown = "return [element.player.channel, element.player.latency, element.player.saveData];"
        assert await stage.run(shown) == ["fr", "low", True]
        await stage.run("element.setAttribute('save-data', 'false');")
        await stage.until("!element.player.saveData")
        assert stage.workers == 1


async def test_what_changes_at_once_is_one_change(context: BrowserContext, relay: RelayProcess) -> None:
    async with (
        broadcasting(relay.url, "one", 16_000, SOUND),
        broadcasting(relay.url, "other/de", 16_000, SOUND),
        open_stage(context, relay.url) as stage,
    ):
        await stage.show()
        change = "Object.entries(to).forEach(([name, value]) => element.setAttribute(name, value));"
        to = {"src": "/", "session": "one", "channel": "main", "latency": "low"}
        await stage.run(change, to=to)
        await stage.play()
        await stage.run(
            """
            window.starts = 0;
            element.addEventListener("statechange", ({ detail }) => (starts += detail.state === "connecting"));
            """
        )
        to = {"session": "other", "channel": "de", "latency": "stable", "token": "a-token-of-some-length"}
        await stage.run(change, to=to)
        # The sound continues with the other session.
        await stage.until("element.state === 'playing' && element.player.session === 'other'")
        assert await stage.hears()
        assert await stage.run("return starts;") == 1
        assert stage.workers == 2


WRONG = {
    "session": ({"session": "no name"}, "names no valid session"),
    "empty session": ({"session": ""}, "names no valid session"),
    "relay alone": ({"src": "wss://relay.example"}, "names no valid session"),
    "channel": ({"src": "/listen/ev1", "channel": ""}, "names no valid channel"),
    "token": ({"src": "/listen/ev1", "token": "short"}, "token is cut off or misspelt"),
    "token of src": ({"src": "/listen/ev1#token=short"}, "token is cut off or misspelt"),
    "address": ({"src": "ftp://relay.example/listen/ev1"}, "no valid address of a relay"),
}


async def test_it_says_what_is_wrong_with_it(context: BrowserContext, relay: RelayProcess) -> None:
    async with open_stage(context, relay.url) as stage:
        await stage.define()
        await stage.run("window.bubbled = []; addEventListener('error', ({ detail }) => bubbled.push(detail));")
        for name, (attributes, sentence) in WRONG.items():
            codes = await stage.run(
                """
                const made = document.createElement("relay-player");
                const codes = [];
                made.addEventListener("error", ({ detail }) => codes.push(detail.code, detail.reason));
                Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
                here.replaceChildren(made);
                await new Promise((resolve) => setTimeout(resolve));
                made.title = "What is wrong stays wrong, and is told once.";
                made.latency = "low";
                await new Promise((resolve) => setTimeout(resolve));
                return codes;
                """,
                attributes=attributes,
            )
            code = {"empty session": "session", "relay alone": "session", "token of src": "token"}.get(name, name)
            assert codes[::2] == [code]
            assert sentence in codes[1]
            await stage.tab.page.locator("relay-player").get_by_text(sentence).wait_for()
            assert await stage.tab.page.get_by_role("button", name="Play").is_disabled()
        assert await stage.run("return bubbled;") == []
        await stage.run("element.src = '/listen/ev1';")
        await stage.until("!element.shadowRoot.querySelector('button').disabled")
        assert await stage.tab.page.locator("relay-player").get_by_text(sentence).count() == 0


HTML = """<!doctype html><title>Strict</title><link rel="icon" href="data:,"><output id="code"></output>
<relay-player src="/listen/strict"></relay-player>
<script>
  document.querySelector("relay-player").addEventListener("error", ({ detail }) => {
    document.getElementById("code").textContent = detail.code;
  });
</script>
<script type="module">{before} import("{element}");</script>"""

DEFAULT_POLICY = 'trustedTypes.createPolicy("default", { createScriptURL: (url) => url });'


@asynccontextmanager
async def foreign_stage(
    context: BrowserContext, relay_url: str, before: str, headers: dict[str, str]
) -> AsyncIterator[Tab]:
    """Open a page with a player, its own script and headers, under a path that the relay does not have."""
    async with network(relay_url, {}) as between:
        page = await context.new_page()
        body = HTML.replace("{before}", before).replace("{element}", between.url + ELEMENT)
        await page.route("**/strict.html", lambda route: route.fulfill(body=body, headers=headers))
        yield Tab(page, between)
        await page.close()


@pytest.mark.parametrize("before", ["", DEFAULT_POLICY], ids=["without", "with a policy"])
async def test_trusted_types(context: BrowserContext, relay: RelayProcess, before: str) -> None:
    headers = {"content-type": "text/html", "content-security-policy": "require-trusted-types-for 'script'"}
    async with foreign_stage(context, relay.url, before, headers) as tab:
        await tab.open("/strict.html")
        if before:
            await tab.press("Play")
            await tab.page.get_by_text("Waiting for the broadcaster.").wait_for()
        else:
            await tab.page.get_by_text("Trusted Types do not let the player start").wait_for()
            await tab.page.locator("#code", has_text="trusted-types").wait_for()
            tab.forgive("TrustedScriptURL")
        assert tab.complaints == []


async def test_another_host(context: BrowserContext, relay: RelayProcess) -> None:
    async def allow(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, headers={**answer.headers, "access-control-allow-origin": "*"})

    async with foreign_stage(context, relay.url, "", {"content-type": "text/html"}) as tab:
        await tab.page.route("**/assets/player/*", allow)
        await tab.page.goto(tab.network.url.replace("127.0.0.1", "localhost") + "/strict.html")
        await tab.page.get_by_text("works only where its files come from the page's own host").wait_for()
        await tab.page.locator("#code", has_text="foreign-host").wait_for()
        assert tab.complaints == []


async def test_a_token_behind_the_address_counts(context: BrowserContext) -> None:
    settings = {"RELAY_ACCESS_TOKEN_SECRET": SECRET, "RELAY_ACCESS_OPEN_SESSIONS": "[]"}
    async with relay_process(**settings) as relay, open_stage(context, relay.url) as stage:
        await stage.show(src="/listen/ev1")
        await stage.run("window.codes = []; element.addEventListener('error', (e) => codes.push(e.detail.code));")
        await stage.run("element.play();")
        await stage.until("element.state === 'failed'")
        assert await stage.run("return codes;") == [4502]
        await stage.run("element.src = `/listen/ev1#token=${token}`; await element.play();", token=token())
        await stage.until("element.state === 'waiting'")
        assert stage.workers == 1


async def test_a_second_copy_of_the_script_leaves_the_element_to_the_first(
    context: BrowserContext, relay: RelayProcess
) -> None:
    async with open_stage(context, relay.url) as stage:
        script = """
            const [one, other] = [await import(first), await import(second)];
            return one.RelayPlayerElement === other.RelayPlayerElement;
        """
        assert await stage.run(script, first=ELEMENT, second=SAME_ELEMENT)


async def test_of_two_players_the_one_that_stops_leaves_the_lock_screen_to_the_other(
    context: BrowserContext, relay: RelayProcess
) -> None:
    shown = "const { playbackState, metadata } = navigator.mediaSession; return [playbackState, metadata?.artist];"
    async with (
        broadcasting(relay.url, "left", 16_000, SOUND),
        broadcasting(relay.url, "right", 16_000, SOUND),
        open_stage(context, relay.url) as stage,
    ):
        await stage.show(src="/listen/left")
        await stage.show(src="/listen/right")
        await stage.play(0)
        await stage.play(1)
        assert await stage.run(shown) == ["playing", "right"]
        await stage.run("here.lastChild.stop();")
        assert await stage.run(shown) == ["playing", "left"]
        await stage.play(1)
        # News about the first session must not change the second.
        async with claimed(relay.url, "left/de", "lang=de"):
            await stage.until("element.player.channels.length === 2")
            assert await stage.run(shown) == ["playing", "right"]
        await stage.run("element.stop();")
        assert await stage.run(shown) == ["playing", "right"]
        await stage.run("here.lastChild.stop();")
        assert await stage.run(shown) == ["paused", "right"]


async def test_says_why_there_is_nothing_to_hear(context: BrowserContext, relay: RelayProcess) -> None:
    async with claimed(relay.url, "hushed") as broadcaster, open_stage(context, relay.url) as stage:
        await stage.show(session="hushed")
        await stage.run(
            """
            globalThis.told = [];
            element.addEventListener("silence", ({ detail }) => told.push(detail.silence));
            await element.play();
            """
        )
        status = "element.shadowRoot.querySelector('output').value"
        await broadcaster.send('{"type":"mute","on":true}')
        await stage.until(f"{status} === 'The broadcaster is muted.'")
        await broadcaster.send('{"type":"pause"}')
        await stage.until(f"{status} === 'The broadcaster has paused.'")
        assert await stage.run("return [...told, element.player.silence];") == ["muted", "paused", "paused"]
