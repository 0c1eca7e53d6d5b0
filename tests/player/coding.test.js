/** The broadcasting page's codecs: which one it takes, and how long its packets last. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { encodesOpus, OpusCoder, PcmCoder } from "../../relay/pages/coding.js";
import { installEncoder } from "./support/fake-encoder.js";

const frame = (samples, value = 1) => new Int16Array(samples).fill(value);

test("PCM goes through as it is, and lasts as long as its samples", async () => {
  const emitted = [];
  const coder = new PcmCoder((packet) => emitted.push(packet));
  coder.encode(frame(320));
  await coder.flush();
  assert.deepEqual([coder.codec, coder.clockRate], ["pcm_s16le", 16_000]);
  assert.deepEqual(emitted, [{ data: frame(320), ticks: 320 }]);
});

test("a browser without an encoder, or with one that does not do what it says, sends PCM", async (context) => {
  delete globalThis.AudioEncoder;
  assert.equal(await encodesOpus(), false);
  for (const wrong of [{ supported: false }, { fails: true }, { bytes: 3 }, { toc: 0x70 }]) {
    installEncoder(wrong);
    assert.equal(await encodesOpus(), false, JSON.stringify(wrong));
  }
  context.mock.timers.enable({ apis: ["setTimeout"] });
  installEncoder({ hangs: true });
  const hanging = encodesOpus();
  await setImmediate();
  context.mock.timers.tick(3000);
  assert.equal(await hanging, false);
});

test("a browser that makes packets of a tone sends Opus, and the encoder of the trial is closed", async () => {
  const encoders = installEncoder();
  assert.equal(await encodesOpus(), true);
  assert.deepEqual(
    encoders.map(({ state }) => state),
    ["closed"],
  );
  const { codec, sampleRate, numberOfChannels, bitrate, opus } = encoders[0].config;
  assert.deepEqual([codec, sampleRate, numberOfChannels, bitrate], ["opus", 48_000, 1, 32_000]);
  assert.deepEqual(opus, { frameDuration: 20_000, useinbandfec: false, usedtx: false });
});

test("an encoder that falls a second behind fails once", () => {
  installEncoder({ hangs: true });
  const failures = [];
  const coder = new OpusCoder(
    () => assert.fail("it hangs"),
    (error) => failures.push(error.message),
  );
  for (let i = 0; i < 100; i += 1) {
    coder.encode(frame(960));
  }
  assert.deepEqual(failures, ["The browser's Opus encoder does not keep up."]);
});
