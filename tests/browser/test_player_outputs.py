"""The player's element, and the player where sound takes another path: plain HTTP, broken contexts."""

import base64

import numpy as np
import pytest
from playwright.async_api import ElementHandle

from tests.browser.conftest import Tab
from tests.browser.peers import broadcasting
from tests.support.processes import RelayProcess
from tests.support.tone import assert_clean_tone, is_clean_tone, sine, to_pcm

pytestmark = [pytest.mark.ear, pytest.mark.asyncio(loop_scope="session")]

TONE = 997

MONO_16K = to_pcm(sine(TONE, 16_000, 1))

INSERT = """
async (attributes) => {
  await import("/assets/player/element.js");
  const element = document.createElement("relay-player");
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  document.body.append(element);
  globalThis.relayPlayer = element.player;
  return element;
}
"""


async def insert(tab: Tab, **attributes: str) -> ElementHandle:
    """Insert a `<relay-player>` into the start page, whose Content-Security-Policy applies to it."""
    await tab.open("/")
    handle = (await tab.page.evaluate_handle(INSERT, attributes)).as_element()
    assert handle is not None
    return handle


async def wait_for_state(tab: Tab, state: str) -> None:
    await tab.until(f"relayPlayer.state === '{state}'")


async def press(tab: Tab, button: str) -> None:
    await tab.page.locator("relay-player").get_by_role("button", name=button, exact=True).click()


async def test_the_element_plays_stops_and_tells(tab: Tab, relay: RelayProcess) -> None:
    element = await insert(tab, src="/listen/element/de", latency="low")
    await element.evaluate("""(element) => {
        globalThis.heard = [];
        document.body.addEventListener("statechange", ({ detail }) => heard.push(detail.state));
        document.body.addEventListener("stats", ({ detail }) => { globalThis.stats = detail; });
    }""")
    player = tab.page.locator("relay-player")
    async with broadcasting(relay.url, "element/de", 16_000, MONO_16K):
        await press(tab, "Play")
        await player.get_by_text("Live", exact=True).wait_for()
        await tab.until("globalThis.stats?.delayMs > 0")
        assert await tab.page.evaluate("navigator.mediaSession.metadata.artist") == "element"
        assert await tab.page.evaluate("navigator.mediaSession.playbackState") == "playing"
        assert await tab.page.evaluate("[relayPlayer.session, relayPlayer.channel]") == ["element", "de"]
        await player.get_by_label("Volume").fill("50")
        assert await tab.page.evaluate("relayPlayer.volume") == 0.25
        await press(tab, "Stop")
        await player.get_by_role("button", name="Play", exact=True).wait_for()
        assert await tab.page.evaluate("relayPlayer.context") is None
        assert await tab.page.evaluate("navigator.mediaSession.playbackState") == "paused"
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
    await player.get_by_text("The session has ended.").wait_for()
    heard = await tab.page.evaluate("heard")
    assert heard[0] == "connecting"
    assert heard[-1] == "ended"
    await element.evaluate("(element) => element.remove()")
    assert await element.evaluate("(element) => element.player") is None


WATCH = """() => {
    globalThis.actions = {};
    const { setActionHandler } = MediaSession.prototype;
    MediaSession.prototype.setActionHandler = function (action, handler) {
        actions[action] = handler;
        setActionHandler.call(this, action, handler);
    };
    const { play } = HTMLMediaElement.prototype;
    HTMLMediaElement.prototype.play = function () {
        globalThis.silence = this;
        return play.call(this);
    };
}"""
"""Records the lock screen's actions and the media element behind them."""


async def test_controls_of_a_lock_screen_are_shown_for_an_element_that_plays_silence_as_long_as_the_sound(
    tab: Tab, relay: RelayProcess
) -> None:
    element = await insert(tab, src="/listen/lock-screen")
    await tab.page.evaluate(WATCH)
    async with broadcasting(relay.url, "lock-screen", 16_000, MONO_16K):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await tab.until("silence.currentTime > 0")
        assert await tab.page.evaluate("[silence.paused, silence.muted, silence.volume, silence.loop]") == [
            False,
            False,
            1,
            True,
        ]
        # Browsers show no controls for media shorter than 5 s.
        assert await tab.page.evaluate("silence.duration") == 10
        assert await tab.page.evaluate("""async () => {
            const file = await (await fetch(silence.src)).arrayBuffer();
            const sound = await relayPlayer.context.decodeAudioData(file);
            return sound.getChannelData(0).every((sample) => sample === 0);
        }""")
        await tab.page.evaluate("actions.pause()")
        await wait_for_state(tab, "idle")
        assert await tab.page.evaluate("[silence.paused, relayPlayer.context]") == [True, None]
        await tab.page.evaluate("actions.play()")
        await wait_for_state(tab, "playing")
        await tab.until("!silence.paused")
        await element.evaluate("(element) => element.remove()")
        assert await tab.page.evaluate("[silence.paused, actions.play]") == [True, None]
        # An element that loses its media looks for another first, and is empty once it has found none.
        await tab.until("silence.networkState === HTMLMediaElement.NETWORK_EMPTY")


async def test_a_browser_that_refuses_the_silence_plays_the_sound(tab: Tab, relay: RelayProcess) -> None:
    await insert(tab, src="/listen/refused")
    await tab.page.evaluate("""() => {
        globalThis.refused = 0;
        HTMLMediaElement.prototype.play = () => {
            refused += 1;
            return Promise.reject(new DOMException("not here", "NotAllowedError"));
        };
    }""")
    async with broadcasting(relay.url, "refused", 16_000, MONO_16K):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await hear_tone(tab)
        assert await tab.page.evaluate("refused") > 0
        await press(tab, "Stop")
        await wait_for_state(tab, "idle")


async def test_the_element_lets_choose_among_the_channels_of_the_session(tab: Tab, relay: RelayProcess) -> None:
    await insert(tab, session="choice", src="/")
    player = tab.page.locator("relay-player")
    async with (
        broadcasting(relay.url, "choice", 16_000, MONO_16K),
        broadcasting(relay.url, "choice/de", 48_000, to_pcm(sine(TONE, 48_000, 1), sine(TONE, 48_000, 1))),
    ):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await player.get_by_label("Channel").select_option("de")
        await tab.until("relayPlayer.channel === 'de' && relayPlayer.state === 'playing'")
        await hear_tone(tab)
        # If a channel does not exist any more, the chooser returns to the channel that plays.
        await player.get_by_label("Channel").evaluate("""(select) => {
            globalThis.chooser = select;
            select.add(new Option("Gone", "gone"));
            select.value = "gone";
            select.dispatchEvent(new Event("change"));
        }""")
        await tab.until("chooser.value === 'de'")


RECORD = """
async (seconds) => {
  const { context, output } = relayPlayer;
  const analyser = new AnalyserNode(context, { fftSize: 32768 });
  output.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const until = context.currentTime + samples.length / context.sampleRate + seconds;
  while (context.currentTime < until) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  analyser.getFloatTimeDomainData(samples);
  return { rate: context.sampleRate, samples: encodeFloats(samples) };
}
"""


async def hear_tone(tab: Tab) -> None:
    """Wait until 0.7 s of the output contain the tone without a fault; this needs no worklet.

    The player settles for 2 s. If a busy machine spoils the recording, the test repeats it, at most twice.
    """
    for settle_seconds in (2, 0, 0):
        result = await tab.page.evaluate(RECORD, settle_seconds)
        rate = int(result["rate"])
        samples = np.frombuffer(base64.b64decode(result["samples"]), np.float32).astype(np.float64)
        if is_clean_tone(samples, rate, TONE):
            return
    assert_clean_tone(samples, rate, TONE)


async def test_plain_http_of_another_machine_is_played_from_scheduled_buffers(
    insecure_tab: tuple[Tab, RelayProcess],
) -> None:
    tab, relay = insecure_tab
    await insert(tab, src="/listen/plain")
    assert await tab.page.evaluate("[isSecureContext, globalThis.AudioWorklet]") == [False, None]
    async with broadcasting(relay.url, "plain", 16_000, MONO_16K):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await hear_tone(tab)


async def test_a_context_whose_clock_stands_still_is_replaced(tab: Tab, relay: RelayProcess) -> None:
    await insert(tab, src="/listen/stuck")
    async with broadcasting(relay.url, "stuck", 16_000, MONO_16K):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await tab.page.evaluate("""() => {
            globalThis.broken = relayPlayer.context;
            Object.defineProperty(broken, "currentTime", { get: () => 1 });
        }""")
        await tab.until("relayPlayer.context !== broken && relayPlayer.state === 'playing'")
        await hear_tone(tab)


async def test_an_interruption_is_waited_for_and_a_suspended_context_asks_for_a_click(
    tab: Tab, relay: RelayProcess
) -> None:
    await insert(tab, src="/listen/interrupted")
    async with broadcasting(relay.url, "interrupted", 16_000, MONO_16K):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await tab.page.evaluate("""() => {
            Object.defineProperty(relayPlayer.context, "state", { get: () => "interrupted", configurable: true });
        }""")
        await wait_for_state(tab, "interrupted")
        await tab.page.evaluate("delete relayPlayer.context.state")
        await wait_for_state(tab, "playing")
        await tab.page.evaluate("relayPlayer.context.suspend()")
        await wait_for_state(tab, "blocked")
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await hear_tone(tab)
        assert await tab.page.evaluate("relayPlayer.stats.jumps") == 0


async def test_play_in_an_interruption_that_does_not_end_goes_on_with_another_context(
    tab: Tab, relay: RelayProcess
) -> None:
    await insert(tab, src="/listen/endless")
    async with broadcasting(relay.url, "endless", 16_000, MONO_16K):
        await press(tab, "Play")
        await wait_for_state(tab, "playing")
        await tab.page.evaluate("""() => {
            globalThis.broken = relayPlayer.context;
            Object.defineProperty(broken, "state", { get: () => "interrupted" });
        }""")
        await wait_for_state(tab, "interrupted")
        await press(tab, "Play")
        await tab.until("relayPlayer.context !== broken && relayPlayer.state === 'playing'")
        await hear_tone(tab)


async def test_what_can_not_be_is_refused_with_a_sentence(tab: Tab) -> None:
    await insert(tab, src="/")
    assert await tab.page.locator("relay-player").get_by_role("button").is_disabled()
    complaint = await tab.page.evaluate("""async () => {
        const { RelayPlayer } = await import("/assets/player/index.js");
        try { new RelayPlayer({ session: "no name" }); } catch (error) { return String(error); }
    }""")
    assert complaint == 'TypeError: The session "no name" must have 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -'
