/** Tests the audio thread of the broadcasting page: what it sends while the broadcaster is muted. */

import assert from "node:assert/strict";
import { test } from "node:test";

const RATE = 48_000;
const BLOCK = 128;

/** @type {any} The class of the audio thread's node. */
let CaptureProcessor;
Object.assign(globalThis, {
  sampleRate: RATE,
  AudioWorkletProcessor: class {
    port = { postMessage() {} };
  },
  registerProcessor: (_, made) => {
    CaptureProcessor = made;
  },
});
// Its types are those of the audio thread, not of this test, so its address is not a literal.
await import(`${new URL("../../relay/pages/capture-processor.js", import.meta.url)}`);

test("no sound escapes when the rate changes during a mute", () => {
  const capture = new CaptureProcessor();
  const frames = [];
  const hear = () => {
    for (let count = 0; count < RATE / 10; count += BLOCK) {
      capture.process([[new Float32Array(BLOCK).fill(0.5)]]);
    }
    return frames.splice(0).map((pcm) => Math.max(...pcm));
  };
  capture.port.onmessage({ data: { frames: { postMessage: (pcm) => frames.push(pcm) }, rate: RATE } });
  assert.ok(hear().some((peak) => peak > 10_000));
  capture.port.onmessage({ data: { muted: true } });
  // Within the first frame, the sound fades.
  assert.ok(
    hear()
      .slice(1)
      .every((peak) => peak === 0),
  );
  capture.port.onmessage({ data: { rate: 16_000 } });
  const silent = hear();
  assert.ok(silent.length >= 4 && silent.every((peak) => peak === 0), `${silent}`);
  capture.port.onmessage({ data: { muted: false } });
  assert.ok(
    hear()
      .slice(1)
      .every((peak) => peak > 10_000),
  );
});
