"""The parts of the pages that need no sound card and no socket, run in the browser that they are written for."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from relay.core.wire import Header
from relay.vocabulary.audio import SAMPLE_RATES
from relay.vocabulary.errors import BadRequestError, CloseCode
from relay.vocabulary.names import check_name
from tests.browser.conftest import Tab, open_context, open_tab
from tests.support.processes import RelayProcess
from tests.support.tone import AMPLITUDE, Samples, judge, sine, to_pcm

pytestmark = pytest.mark.asyncio(loop_scope="session")

TONE = 997
DEVICE_RATE = 44_100


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tab(browser: Browser, relay: RelayProcess) -> AsyncIterator[Tab]:
    """One page for all tests of this module; importing modules leaves nothing behind."""
    async with open_context(browser) as context, open_tab(context, relay.url) as tab:
        await tab.open("/")
        yield tab
        assert tab.complaints == []


async def run(tab: Tab, module: str, body: str, **arguments: object) -> Any:
    """Run the body of an async function with the names of a module and the arguments in scope."""
    imported = f"const module = await import('/assets/{module}');"
    names = f"const {{{', '.join(arguments)}}} = given;"
    return await tab.page.evaluate(f"async (given) => {{ {imported} {names} {body} }}", arguments)


def decode_floats(text: str) -> Samples:
    return np.frombuffer(base64.b64decode(text), np.float32).astype(np.float64)


def encode_pcm(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


RESAMPLE = """
    const pcm = Int16Array.from(new Int16Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
    const resampler = new module.SincResampler({ inputRate, outputRate, channels: 1, capacity: inputRate });
    const output = [];
    for (let start = 0; start < pcm.length; start += 331) {
      resampler.writeInterleaved(pcm.subarray(start, start + 331));
      const block = [new Float32Array(resampler.available)];
      resampler.read(block, block[0].length);
      output.push(...block[0]);
    }
    return encodeFloats(output);
"""


async def resample(tab: Tab, samples: Samples, input_rate: int, output_rate: int) -> Samples:
    text = await run(
        tab,
        "resampler.js",
        RESAMPLE,
        text=encode_pcm(to_pcm(samples)),
        inputRate=input_rate,
        outputRate=output_rate,
    )
    return decode_floats(text)


def noise_db(samples: Samples, rate: int, frequency: int) -> float:
    """Everything in the recording that is not the tone, against the tone, in dB."""
    phase = 2 * np.pi * frequency * np.arange(len(samples)) / rate
    basis = np.stack((np.sin(phase), np.cos(phase)), axis=1)
    rest = samples - basis @ np.linalg.lstsq(basis, samples)[0]
    return float(20 * np.log10(np.sqrt(np.mean(rest**2)) / (AMPLITUDE / np.sqrt(2))))


@pytest.mark.parametrize("input_rate", SAMPLE_RATES)
@pytest.mark.parametrize("output_rate", [16_000, 44_100, 48_000])
async def test_resampler_keeps_a_tone(tab: Tab, input_rate: int, output_rate: int) -> None:
    output = await resample(tab, sine(TONE, input_rate, 1), input_rate, output_rate)
    assert len(output) == pytest.approx(output_rate, abs=output_rate * 0.005)
    settled = output[output_rate // 50 :]
    assert abs(judge(settled, output_rate, TONE).level_db) < 0.01
    assert noise_db(settled, output_rate, TONE) < -75


async def test_resampler_at_equal_rates_copies_every_sample(tab: Tab) -> None:
    samples = np.random.default_rng(1).uniform(-1, 1, 5000)
    output = await resample(tab, samples, 16_000, 16_000)
    expected = np.frombuffer(to_pcm(samples), "<i2") / 32768
    assert len(output) > len(samples) - 50
    assert np.array_equal(output, expected[: len(output)])


async def test_resampler_suppresses_what_would_alias(tab: Tab) -> None:
    output = await resample(tab, sine(9_000, 48_000, 1), 48_000, 16_000)
    assert 20 * np.log10(np.abs(output[320:]).max() / AMPLITUDE) < -70


PLAY = f"""
    const playout = new module.Playout({DEVICE_RATE});
    const pcm = new Int16Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
    const output = [];
    let position = 0;
    const steps = {{
      write: (seconds) => {{
        const count = Math.round(seconds * 16000);
        playout.write(pcm.subarray(position, position + count));
        position += count;
      }},
      render: (seconds) => {{
        const [left, right] = [new Float32Array(128), new Float32Array(128)];
        for (let block = 0; block < (seconds * {DEVICE_RATE}) / 128; block += 1) {{
          playout.render(left, right);
          output.push(...left);
        }}
      }},
      drain: () => playout.drain(),
    }};
    playout.setFormat(16000, 1);
    for (const [step, seconds] of script) {{
      steps[step](seconds);
    }}
    return {{ report: playout.report(), output: encodeFloats(output) }};
"""

LOUDEST_STEP = 2 * np.pi * TONE / DEVICE_RATE * AMPLITUDE
"""Between two samples of the tone; a recording that never jumps more has no click."""


async def play(tab: Tab, *script: tuple[str, float]) -> tuple[dict[str, Any], Samples]:
    """Run a `Playout` at `DEVICE_RATE` through a script of steps on a tone of 16 kHz mono."""
    text = encode_pcm(to_pcm(sine(TONE, 16_000, 8)))
    result = await run(tab, "playout.js", PLAY, text=text, script=[list(step) for step in script])
    return result["report"], decode_floats(result["output"])


async def test_playout_waits_for_the_start_up_buffer(tab: Tab) -> None:
    report, output = await play(tab, ("write", 0.28), ("render", 0.1))
    assert not report["playing"]
    assert not output.any()
    report, output = await play(tab, ("write", 0.32), ("render", 0.1))
    assert report["playing"]
    assert np.abs(output[1000:]).max() == pytest.approx(AMPLITUDE, abs=0.01)


async def test_playout_rebuffers_after_an_underrun_and_never_jumps(tab: Tab) -> None:
    report, output = await play(
        tab, ("write", 0.4), ("render", 0.6), ("write", 0.2), ("render", 0.2), ("write", 0.2), ("render", 0.2)
    )
    assert report["underruns"] == 1
    assert report["playing"]
    silent = output == 0
    assert silent[int(0.45 * DEVICE_RATE) : int(0.8 * DEVICE_RATE)].all()
    assert not silent[-int(0.1 * DEVICE_RATE) :].all()
    assert np.abs(np.diff(output)).max() < 1.1 * LOUDEST_STEP


async def test_playout_skips_to_the_target_when_too_much_is_held(tab: Tab) -> None:
    report, output = await play(tab, ("write", 1), ("render", 0.5), ("write", 2.7), ("render", 0.2))
    assert report["skippedSeconds"] == pytest.approx(0.5 + 2.7 - 0.3, abs=0.02)
    assert report["heldSeconds"] == pytest.approx(0.1, abs=0.02)
    assert report["playing"]
    assert np.abs(np.diff(output)).max() < 1.5 * LOUDEST_STEP


async def test_playout_plays_one_word_though_nothing_follows(tab: Tab) -> None:
    report, output = await play(tab, ("write", 0.1), ("render", 0.5))
    assert not output.any()
    report, output = await play(tab, ("write", 0.1), ("render", 1))
    assert np.abs(output).max() == pytest.approx(AMPLITUDE, abs=0.02)
    report, output = await play(tab, ("write", 0.1), ("drain", 0), ("render", 0.5))
    assert np.abs(output[: DEVICE_RATE // 10]).max() == pytest.approx(AMPLITUDE, abs=0.02)
    assert report["underruns"] == 0


async def test_frames_are_read_as_the_relay_writes_them(tab: Tab) -> None:
    header = Header(epoch=0xFFFE, seq=0xFFFF_FFFD, media_time=0x8000_0001, due_ms=7)
    message = header.pack() + np.array([1, -2, 32767, -32768], "<i2").tobytes()
    frame = await run(
        tab,
        "wire.js",
        "const { samples, ...header } = module.readFrame(new Uint8Array(bytes).buffer);"
        "return { ...header, samples: [...samples] };",
        bytes=list(message),
    )
    assert frame == {
        "epoch": header.epoch,
        "seq": header.seq,
        "mediaTime": header.media_time,
        "dueMs": header.due_ms,
        "samples": [1, -2, 32767, -32768],
    }


@pytest.mark.parametrize("message", [b"", b"\1" * 15, b"\1" * 17, b"\2" + b"\0" * 19])
async def test_what_is_no_frame_is_refused(tab: Tab, message: bytes) -> None:
    refused = await run(
        tab,
        "wire.js",
        "try { module.readFrame(new Uint8Array(bytes).buffer); } catch (error) { return error.name; }",
        bytes=list(message),
    )
    assert refused == "RangeError"


async def test_close_codes_that_forbid_to_connect_again(tab: Tab) -> None:
    codes = [*range(1000, 1016), 3000, 4000, 4001, 4499, 4500, 4502, 4504, 4999, *CloseCode]
    final = await run(tab, "wire.js", "return codes.filter(module.isFinal);", codes=codes)
    assert set(final) == {1000, 1002, 1003, 1007, 1008, 1009, 4500, 4502, 4503, 4504, 4999}


async def test_names_are_those_of_the_relay(tab: Tab) -> None:
    candidates = ["a", "A-Z_0.9~", "", ".", "...", ".a", "a b", "ä", "a/b", "x" * 64, "x" * 65, "a\n", "%20"]
    allowed = await run(tab, "wire.js", "return names.filter(module.isName);", names=candidates)
    assert allowed == [name for name in candidates if is_name(name)]


def is_name(name: str) -> bool:
    try:
        check_name("session", name)
    except BadRequestError:
        return False
    return True


async def test_retries_are_spread_and_bounded(tab: Tab) -> None:
    bounds = await run(
        tab,
        "relay-socket.js",
        "return attempts.map((attempt) => [0, 0.5, 1].map((random) => module.retryDelayMs(attempt, random)));",
        attempts=[0, 1, 2, 3, 4, 50],
    )
    assert [attempt[2] for attempt in bounds] == [1000, 2000, 4000, 8000, 10_000, 10_000]
    assert all(attempt[0] == 0 and attempt[1] == attempt[2] / 2 for attempt in bounds)


async def test_send_queue_is_bounded_and_drops_the_oldest(tab: Tab) -> None:
    result = await run(
        tab,
        "send-queue.js",
        """
        const sent = [];
        const socket = { bufferedAmount: 0, send: (frame) => sent.push(frame[0]) };
        const queue = new module.SendQueue(socket, 1000);
        const frame = (number) => new Uint8Array(20).fill(number);
        queue.push(frame(0));
        socket.bufferedAmount = 300;
        for (let number = 1; number <= 100; number += 1) {
          queue.push(frame(number));
        }
        const waiting = queue.waitingSeconds;
        socket.bufferedAmount = 0;
        queue.flush();
        return { sent, waiting, dropped: queue.droppedSeconds };
        """,
    )
    assert result["waiting"] <= 1.5
    assert result["dropped"] == pytest.approx(0.8)
    assert result["sent"] == [0, *range(41, 101)]
