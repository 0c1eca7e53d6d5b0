"""The parts of the pages that need neither a sound card nor a socket, run in a real browser.

An OfflineAudioContext renders the player's audio thread; tests/player tests its rules.
"""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from relay.vocabulary.errors import BadRequestError, CloseCode
from relay.vocabulary.names import check_name
from tests.browser.conftest import Tab, open_context, open_tab
from tests.support.processes import RelayProcess
from tests.support.tone import Samples, assert_clean_tone, from_pcm, judge, sine, to_pcm, write_wav

pytestmark = [pytest.mark.pages, pytest.mark.asyncio(loop_scope="session")]

TONE = 997

OPUS_RATE = 48_000

ONSET_SECONDS = 0.05
"""Playback fades in, so tests judge only what follows."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tab(browser: Browser, relay: RelayProcess) -> AsyncIterator[Tab]:
    """One page for all tests of this module, because imported modules leave nothing behind."""
    async with open_context(browser) as context, open_tab(context, relay.url) as tab:
        await tab.open("/")
        yield tab
        assert tab.complaints == []


async def run(tab: Tab, module: str, body: str, **arguments: object) -> Any:
    """Run the body of an async function that can use a module's names and the arguments."""
    imported = f"const module = await import('/assets/{module}');"
    names = f"const {{{', '.join(arguments)}}} = given;"
    return await tab.page.evaluate(f"async (given) => {{ {imported} {names} {body} }}", arguments)


def decode_floats(text: str) -> Samples:
    return np.frombuffer(base64.b64decode(text), np.float32).astype(np.float64)


def encode_pcm(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


RENDER = """
    const context = new OfflineAudioContext(2, seconds * deviceRate, deviceRate);
    await context.audioWorklet.addModule("/assets/player/processor.js");
    const node = new AudioWorkletNode(context, "relay-player", { numberOfInputs: 0, outputChannelCount: [2] });
    node.connect(context.destination);
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage({ port: port1 }, [port1]);

    const pcm = new Int16Array(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
    const frameLength = rate / 50;
    let position = 0;
    let frame = 0;
    const send = (order) => port2.postMessage(order);
    const write = (count) => {
      for (let i = 0; i < count; i += 1) {
        const samples = pcm.slice(position, position + frameLength);
        send({ type: "audio", frame, samples, splice: false, pause: 0 });
        position += frameLength;
        frame += 1;
      }
    };
    const answer = () => new Promise((resolve) => {
      port2.onmessage = ({ data }) => resolve(data.report);
      send({ type: "report", id: 1 });
    });

    send({ type: "format", rate, channels: 1 });
    for (const { at, frames = 0, orders = [] } of script) {
      const act = async () => {
        write(frames);
        orders.forEach(send);
        await answer();
      };
      if (at === 0) {
        await act();
      } else {
        context.suspend(at).then(act).then(() => context.resume());
      }
    }
    const buffer = await context.startRendering();
    return { report: await answer(), left: encodeFloats(buffer.getChannelData(0)) };
"""

START = {"type": "start", "inSeconds": 0}


def steer(**order: object) -> dict[str, object]:
    return {"type": "steer", "trimPpm": 0, "stretch": 1, "expecting": True, **order}


async def render(
    tab: Tab, script: list[dict[str, object]], *, seconds: float, rate: int = 16_000, device_rate: int = 48_000
) -> tuple[dict[str, Any], Samples]:
    """Play a tone with the real processor in an OfflineAudioContext.

    Args:
        tab: Any page.
        script: For each time `at` in seconds, how many `frames` of 20 ms arrive and which `orders` follow.
        seconds: How much to render.
        rate: The tone's sample rate.
        device_rate: The context's sample rate.

    Returns:
        The processor's last report, and the sound after the onset.
    """
    body = f"const {{ script, text, rate, deviceRate, seconds }} = given; {RENDER}"
    given = {
        "script": script,
        "text": encode_pcm(to_pcm(sine(TONE, rate, 10))),
        "rate": rate,
        "deviceRate": device_rate,
        "seconds": seconds,
    }
    result = await tab.page.evaluate(f"async (given) => {{ {body} }}", given)
    return result["report"], decode_floats(result["left"])[round(ONSET_SECONDS * device_rate) :]


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
@pytest.mark.parametrize("device_rate", [44_100, 48_000])
async def test_the_audio_thread_plays_a_tone(tab: Tab, rate: int, device_rate: int) -> None:
    report, heard = await render(
        tab, [{"at": 0, "frames": 100, "orders": [START]}], seconds=1.5, rate=rate, device_rate=device_rate
    )
    assert_clean_tone(heard, device_rate, TONE)
    assert report["mode"] == "playing"
    assert report["frame"] * 0.02 + report["offsetSeconds"] == pytest.approx(1.5, abs=0.01)


LADDER = {
    "trimmed": [steer(trimPpm=300)],
    "5 % faster": [steer(stretch=1.05)],
    "10 % faster": [steer(stretch=1.1)],
    "slower": [steer(stretch=0.95)],
    "a jump": [{"type": "jump", "seconds": 1.2345}],
}


@pytest.mark.parametrize("orders", LADDER.values(), ids=LADDER.keys())
async def test_every_step_of_the_ladder_goes_on_where_it_was(
    tab: Tab, tmp_path: Path, orders: list[dict[str, object]]
) -> None:
    script: list[dict[str, object]] = [{"at": 0, "frames": 250, "orders": [START]}, {"at": 0.5, "orders": orders}]
    _, heard = await render(tab, script, seconds=2)
    write_wav(tmp_path / "heard.wav", heard, 48_000)
    verdict = judge(heard, 48_000, TONE)
    assert verdict.clicks == ()
    assert verdict.silences == ()
    assert abs(verdict.worst_level_db()) < 0.5
    assert verdict.worst_pitch_error(TONE) < 2


async def test_what_comes_late_is_concealed_and_what_ends_fades(tab: Tab) -> None:
    script: list[dict[str, object]] = [
        {"at": 0, "frames": 25, "orders": [START]},
        {"at": 0.53, "frames": 25},
        {"at": 1.8, "frames": 25, "orders": [START]},
    ]
    report, heard = await render(tab, script, seconds=2)
    verdict = judge(heard, 48_000, TONE)
    assert verdict.clicks == ()
    (silence,) = verdict.silences
    assert silence.seconds == pytest.approx(0.7, abs=0.1)
    assert report["underruns"] == 2
    assert 0.09 < report["concealedSeconds"] < 0.13


async def test_close_codes_that_forbid_to_connect_again(tab: Tab) -> None:
    codes = [*range(1000, 1016), 3000, 4000, 4001, 4499, 4500, 4502, 4504, 4999, *CloseCode]
    final = await run(tab, "player/close-codes.js", "return codes.filter(module.isFinal);", codes=codes)
    assert set(final) == {1000, 1002, 1003, 1007, 1008, 1009, 4500, 4501, 4502, 4503, 4504, 4999} & set(codes)


async def test_names_are_those_of_the_relay(tab: Tab) -> None:
    candidates = ["a", "A-Z_0.9~", "", ".", "...", ".a", "a b", "ä", "a/b", "x" * 64, "x" * 65, "a\n", "%20"]
    allowed = await run(tab, "player/wire.js", "return names.filter(module.isName);", names=candidates)
    assert allowed == [name for name in candidates if is_name(name)]


async def test_names_for_people_are_those_of_the_relay(tab: Tab) -> None:
    vectors = (Path(__file__).parent.parent / "vectors" / "names.json").read_text()
    script = "return JSON.parse(vectors).names.map(({ said }) => module.tidyName(said));"
    tidied = await run(tab, "label.js", script, vectors=vectors)
    assert tidied == [vector["name"] for vector in json.loads(vectors)["names"]]


def is_name(name: str) -> bool:
    try:
        check_name("session", name)
    except BadRequestError:
        return False
    return True


QUEUE = """
    const sent = [];
    const socket = {
      bufferedAmount: 0,
      isStuck: false,
      send: (data) => {
        sent.push(data[0]);
        socket.bufferedAmount += socket.isStuck ? data.byteLength : 0;
      },
    };
    const queue = new module.SendQueue(1000);
    const push = (first, last, nowMs = 0) => {
      for (let number = first; number <= last; number += 1) {
        queue.push({ data: new Uint8Array(1 + (number % 7)).fill(number), ticks: 20 }, nowMs);
      }
    };
"""
"""A queue for packets of 20 ms. Their sizes differ, and the bytes of each equal its number."""


async def test_send_queue_is_bounded_and_drops_the_oldest(tab: Tab) -> None:
    script = """
        queue.connect(socket, 0);
        push(0, 0);
        socket.isStuck = true;
        push(1, 100);
        const waiting = queue.waitingSeconds;
        socket.bufferedAmount = 0;
        queue.flush();
        return { sent, waiting, dropped: queue.droppedSeconds };
    """
    result = await run(tab, "send-queue.js", QUEUE + script)
    # The socket took a quarter of a second; together with it, the queue keeps 1.5 s.
    assert result["waiting"] == pytest.approx(1.5)
    assert result["dropped"] == pytest.approx(0.5)
    assert result["sent"] == [*range(14), *range(39, 101)]


async def test_send_queue_keeps_the_newest_while_there_is_no_connection(tab: Tab) -> None:
    script = """
        queue.connect(socket, 0);
        push(0, 8);
        socket.isStuck = true;
        push(9, 9);
        queue.disconnect();
        push(10, 99);
        const waiting = queue.waitingSeconds;
        Object.assign(socket, { isStuck: false, bufferedAmount: 0 });
        queue.connect(socket, 0);
        return { sent, waiting, dropped: queue.droppedSeconds };
    """
    result = await run(tab, "send-queue.js", QUEUE + script)
    assert result["waiting"] == pytest.approx(1.5)
    # 15 packets exceeded the limit, and the old connection had one unsent packet.
    assert result["dropped"] == pytest.approx(0.3 + 0.02)
    assert result["sent"] == [*range(10), *range(25, 100)]


async def test_send_queue_notices_a_socket_that_takes_nothing(tab: Tab) -> None:
    script = """
        queue.connect(socket, 0);
        socket.isStuck = true;
        push(0, 29);
        const stuck = [];
        const check = (nowMs) => {
          push(30, 30, nowMs);
          stuck.push(queue.isStuck(nowMs));
        };
        check(4999);
        socket.bufferedAmount -= 1; // the first packet left
        check(5000);
        check(9999);
        check(10_000);
        return stuck;
    """
    assert await run(tab, "send-queue.js", QUEUE + script) == [False, False, False, True]


async def test_the_browser_encodes_what_the_page_sends(tab: Tab) -> None:
    """Chromium's own encoder; PyAV decodes its output."""
    script = """
        const packets = [];
        const coder = new module.OpusCoder(
          (packet) => packets.push(packet),
          (error) => { throw error; },
        );
        const samples = new Int16Array(Uint8Array.from(atob(pcm), (character) => character.charCodeAt(0)).buffer);
        for (let start = 0; start < samples.length; start += 960) {
          coder.encode(samples.slice(start, start + 960));
        }
        await coder.flush();
        coder.close();
        const encoded = packets.map(({ data }) => btoa(String.fromCharCode(...data)));
        return { hasOpus: await module.encodesOpus(), ticks: packets.map(({ ticks }) => ticks), encoded };
    """
    result = await run(tab, "coding.js", script, pcm=encode_pcm(to_pcm(sine(TONE, OPUS_RATE, 1))))
    assert result["hasOpus"]
    # The last packet holds the encoder's look-ahead and silence.
    assert result["ticks"] == [OPUS_RATE // 50] * 51
    packets = [base64.b64decode(packet) for packet in result["encoded"]]
    assert sum(map(len, packets)) == pytest.approx(32_000 / 8, rel=0.3)
    # The decoder returns two channels for a mono stream.
    decoder: Any = av.CodecContext.create("libopus", "r")
    frames = [frame.to_ndarray()[0, ::2] for packet in packets for frame in decoder.decode(av.Packet(packet))]
    heard = from_pcm(np.concatenate(frames).tobytes())
    assert_clean_tone(heard[OPUS_RATE // 10 : OPUS_RATE], OPUS_RATE, TONE)


@pytest.mark.parametrize(
    ("languages", "chosen"),
    [
        (["de-AT", "en"], "de"),
        (["pt-PT"], "pt-BR"),
        (["pt-BR"], "pt-BR"),
        (["sw", "ar"], "ar"),
        (["sw"], "main"),
        ([], "main"),
    ],
)
async def test_who_picks_no_channel_gets_the_one_in_their_language(tab: Tab, languages: list[str], chosen: str) -> None:
    channels = [
        {"id": "ar", "name": "ar", "lang": "ar", "state": "waiting"},
        {"id": "main", "name": "main", "lang": None, "state": "live"},
        {"id": "de", "name": "de", "lang": "de", "state": "live"},
        {"id": "pt", "name": "pt", "lang": "pt-AO", "state": "live"},
        {"id": "pt-BR", "name": "pt", "lang": "pt-BR", "state": "live"},
    ]
    if languages == ["pt-PT"]:
        channels = channels[-1:]
    script = "return module.preferredChannel(channels, languages);"
    assert await run(tab, "channel-chooser.js", script, channels=channels, languages=languages) == chosen


async def test_who_has_no_channel_in_their_language_gets_one_that_is_live(tab: Tab) -> None:
    channels = [
        {"id": "one", "name": "one", "lang": "fr", "state": "waiting"},
        {"id": "two", "name": "two", "lang": "es", "state": "live"},
    ]
    script = "return module.preferredChannel(channels, ['ja']);"
    assert await run(tab, "channel-chooser.js", script, channels=channels) == "two"


async def test_pages_speak_the_first_language_that_they_know(tab: Tab) -> None:
    wanted = [[None, "ja", "uk-UA", "en"], ["de", "en"], ["AR-eg"], ["ja"], [None]]
    chosen = await run(tab, "i18n.js", "return wanted.map(module.chooseLanguage);", wanted=wanted)
    assert chosen == ["uk", "de", "ar", "en", "en"]


async def test_languages_are_written_in_the_direction_that_the_browser_knows(tab: Tab) -> None:
    script = """
        const { SPOKEN } = await import("/assets/spoken-languages.js");
        const direction = (tag) => new Intl.Locale(tag).getTextInfo().direction;
        return SPOKEN.filter((tag) => direction(tag) !== module.directionOf(tag));
    """
    assert await run(tab, "i18n.js", script) == []


UPLINK = """
    const sent = [];
    let socket;
    const { WebSocket } = globalThis;
    const FakeSocket = class {
      bufferedAmount = 0;
      constructor() { socket = this; }
      send(data) { sent.push(typeof data === "string" ? JSON.parse(data).type : "frame"); }
      close() {}
    };
    const connectUplink = (report) => {
      globalThis.WebSocket = FakeSocket;
      const made = new module.Uplink({ address: "ws://relay/", protocols: [] }, { hasOpus: false }, report);
      globalThis.WebSocket = WebSocket;
      return made;
    };
    const uplink = connectUplink(() => {});
    const hello = () => socket.onmessage({ data: JSON.stringify({ type: "hello" }) });
    hello();
    sent.length = 0;
    const push = () => uplink.push(new Int16Array(320));
    // An end follows the last packet, which the encoder may still hold.
    const encoded = () => new Promise((resolve) => setTimeout(resolve, 50));
"""


@pytest.mark.parametrize("end", ["end", "pause", "close"])
async def test_an_uplink_sends_nothing_behind_its_end(tab: Tab, end: str) -> None:
    script = f"push(); uplink.{end}(); push(); await encoded(); uplink.close(); push(); return sent;"
    expected = {"end": ["frame", "end"], "pause": ["frame", "pause"], "close": ["frame"]}
    assert await run(tab, "uplink.js", UPLINK + script) == expected[end]


async def test_an_uplink_says_on_each_connection_that_it_is_muted_and_ends_a_session_without_one(tab: Tab) -> None:
    script = """
        uplink.mute(true);
        hello();
        push();
        uplink.mute(false);
        hello();
        const muted = sent.splice(0);
        const news = [];
        const later = connectUplink((one) => news.push(one));
        later.end();
        hello();
        await encoded();
        const ended = sent.splice(0);
        const unreachable = connectUplink((one) => news.push(one));
        unreachable.end();
        socket.onclose({ code: 1006, reason: "" });
        return { muted, ended, code: news.at(-1).code };
    """
    assert await run(tab, "uplink.js", UPLINK + script) == {
        "muted": ["mute", "mute", "ping", "frame", "mute", "ping"],
        "ended": ["ping", "end"],
        "code": "not-ended",
    }


async def test_a_muted_frame_is_silent_and_neither_end_of_it_clicks(tab: Tab) -> None:
    script = """
        const frames = [];
        const maker = new module.FrameMaker(16_000, 16_000, (frame) => frames.push(frame));
        const second = Float32Array.from({ length: 16_000 }, (_, i) => Math.sin(2 * Math.PI * 440 * i / 16_000) / 2);
        const hear = () => {
          for (let at = 0; at < 16_000; at += 128) maker.write([second.subarray(at, at + 128)]);
        };
        hear();
        const before = frames.length;
        maker.muted = true;
        hear();
        const after = frames.length;
        maker.muted = false;
        hear();
        const samples = frames.flatMap(({ pcm }) => [...pcm]);
        const step = Math.max(...samples.slice(1600).map((sample, i) => Math.abs(sample - samples[i + 1599])));
        const peaks = frames.map(({ pcm }) => Math.max(...pcm));
        return { muted: peaks.slice(before + 1, after), rest: [peaks[before - 1], peaks[after + 1]], step,
          levels: frames.slice(before, after).map(({ rms }) => rms) };
    """
    made = await run(tab, "capture.js", script)
    assert len(made["muted"]) > 40
    assert set(made["muted"]) == {0}
    assert min(made["rest"]) > 15_000
    assert made["step"] < 1.1 * 16_384 * 2 * np.pi * 440 / 16_000, "no steeper than the tone itself"
    assert min(made["levels"]) > 0.3


async def test_speech_is_noticed_and_a_cough_is_not(tab: Tab) -> None:
    script = """
        const watch = new module.SpeechWatch();
        const hear = (rms, seconds) => {
          for (let at = 0; at < seconds; at += 0.02) watch.take(rms, 0.02);
          return watch.isSpeaking;
        };
        return [hear(0.001, 5), hear(0.3, 0.2), hear(0.001, 1), hear(0.05, 0.5), hear(0.001, 3), hear(0.001, 2)];
    """
    assert await run(tab, "speech-watch.js", script) == [False, False, False, True, True, False]
