/** Tests the codecs of the broadcasting page: which one it chooses, and how long the packets last. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { encodesOpus, OpusCoder, PcmCoder } from "../../relay/pages/coding.js";
import { installEncoder } from "./support/fake-encoder.js";

const frame = (samples, value = 1) => new Int16Array(samples).fill(value);

test("PCM is passed on unchanged, and lasts as long as its samples", async () => {
  const emitted = [];
  const coder = new PcmCoder((packet) => emitted.push(packet));
  coder.encode(frame(320));
  await coder.flush();
  assert.deepEqual([coder.codec, coder.clockRate], ["pcm_s16le", 16_000]);
  assert.deepEqual(emitted, [{ data: frame(320), ticks: 320 }]);
});

test("a browser without a working Opus encoder sends PCM", async (context) => {
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

test("a browser that encodes a tone sends Opus, and closes the encoder of the trial", async () => {
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

test("an encoder that falls a second behind has failed, and reports it once", () => {
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
