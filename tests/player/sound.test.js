/** Tests what the audio thread does to a tone: every step of the ladder must continue the sound without a break. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Concealment } from "../../relay/pages/player/concealment.js";
import { PLAYING, Playhead } from "../../relay/pages/player/playhead.js";
import { Renderer } from "../../relay/pages/player/renderer.js";
import { SincResampler } from "../../relay/pages/player/resampler.js";
import { Ring } from "../../relay/pages/player/ring.js";
import { levels, longestSilence, pitch, worstBreak } from "./support/ear.js";
import { tone } from "./support/simulation.js";

const TONE = 997;
const CLICK = 0.005;

/** Feeds a renderer with sound and records its output. */
class Bench {
  /** @type {(index: number, channel: number) => number} */
  #sound;
  #frames = 0;
  #blocksDue = 0;
  heard = [];
  sent = 0;

  /**
   * @param {object} [options]
   * @param {number} [options.rate] Sample rate of the sound.
   * @param {number} [options.outputRate]
   * @param {number} [options.channels]
   * @param {(index: number, channel: number) => number} [options.sound] Returns sample `index` of a channel, -1 to 1.
   */
  constructor({ rate = 16_000, outputRate = 48_000, channels = 1, sound = tone(TONE, rate) } = {}) {
    this.rate = rate;
    this.outputRate = outputRate;
    this.channels = channels;
    this.#sound = sound;
    this.renderer = new Renderer(outputRate);
    this.obey({ type: "format", rate, channels });
  }

  obey(order) {
    this.renderer.obey(order);
  }

  steer(order) {
    this.obey({ type: "steer", trimPpm: 0, stretch: 1, by: Infinity, expecting: true, ...order });
  }

  /** Writes sound in frames of 20 ms. */
  write(seconds, { splice = false, pause = 0 } = {}) {
    const count = Math.round(0.02 * this.rate);
    for (let frame = 0; frame < Math.round(seconds / 0.02); frame += 1) {
      const samples = new Int16Array(count * this.channels);
      for (let i = 0; i < samples.length; i += 1) {
        const index = this.sent + Math.floor(i / this.channels);
        samples[i] = Math.round(32_767 * this.#sound(index, i % this.channels));
      }
      this.sent += count;
      const isFirst = frame === 0;
      this.obey({ type: "audio", frame: this.#frames, samples, splice: isFirst && splice, pause: isFirst ? pause : 0 });
      this.#frames += 1;
    }
  }

  /** Skips sound, as if it had been lost. */
  lose(seconds) {
    this.sent += Math.round(seconds * this.rate);
  }

  render(seconds) {
    const left = new Float32Array(128);
    const right = new Float32Array(128);
    const heard = [];
    for (this.#blocksDue += (seconds * this.outputRate) / 128; this.#blocksDue >= 1; this.#blocksDue -= 1) {
      this.renderer.render(left, right);
      heard.push(...left);
      this.right = right;
    }
    this.heard.push(...heard);
    return heard;
  }

  /** Writes and renders at the same pace. */
  run(seconds) {
    for (let part = 0; part < Math.round(seconds / 0.02); part += 1) {
      this.write(0.02);
      this.render(0.02);
    }
  }

  start(heldSeconds) {
    this.write(heldSeconds);
    this.obey({ type: "start", inSeconds: 0 });
    this.render(0.1);
    this.heard = [];
  }

  get held() {
    return this.renderer.report().heldSeconds;
  }

  assertUnbroken(name, { level = 0.5 } = {}) {
    const found = worstBreak(this.heard, TONE, this.outputRate);
    assert.ok(found < CLICK, `${name}: a click of ${found}`);
    assert.equal(longestSilence(this.heard, this.outputRate) > 0.002, false, `${name}: silence`);
    const quietest = Math.min(...levels(this.heard, this.outputRate, 0.01));
    assert.ok(quietest > -level, `${name}: ${quietest} dB`);
  }
}

const FORMATS = [
  { rate: 16_000, outputRate: 48_000 },
  { rate: 16_000, outputRate: 44_100 },
  { rate: 48_000, outputRate: 48_000 },
  { rate: 48_000, outputRate: 44_100, channels: 2 },
  { rate: 8000, outputRate: 48_000 },
];

for (const format of FORMATS) {
  const { rate, outputRate, channels = 1 } = format;
  test(`no step of the ladder makes a break, ${rate} Hz × ${channels} to ${outputRate} Hz`, () => {
    const bench = new Bench(format);
    bench.start(0.5);
    bench.run(0.5);
    bench.assertUnbroken("playing");

    for (const trimPpm of [2000, -2000]) {
      bench.heard = [];
      bench.steer({ trimPpm });
      bench.run(1);
      bench.assertUnbroken(`${trimPpm} ppm`);
      assert.ok(Math.abs(pitch(bench.heard, outputRate) / TONE - 1 - trimPpm * 1e-6) < 1e-4);
    }

    for (const stretch of [1.05, 1.1, 0.95]) {
      bench.write(0.5);
      bench.render(0.02);
      bench.heard = [];
      bench.steer({ stretch });
      const before = bench.held;
      bench.run(2);
      assert.ok(Math.abs(before - bench.held - 2 * (stretch - 1)) < 0.03, `${stretch}: ${before - bench.held}`);
      bench.assertUnbroken(`stretch ${stretch}`);
      assert.ok(Math.abs(pitch(bench.heard, outputRate) / TONE - 1) < 0.002);
    }

    bench.steer({});
    bench.write(2);
    bench.heard = [];
    const before = bench.held;
    bench.obey({ type: "jump", seconds: 1.2345 });
    bench.run(0.2);
    assert.ok(Math.abs(before - bench.held - 1.2345) < 0.012);
    bench.assertUnbroken("a jump");

    bench.heard = [];
    bench.lose(0.7391);
    bench.write(0.2, { splice: true });
    bench.render(bench.held - 0.01);
    bench.assertUnbroken("a splice");
  });
}

for (const { name, sound, worst } of [
  { name: "a tone", sound: tone(TONE, 16_000), worst: 0.01 },
  { name: "silence", sound: () => 0, worst: 0.001 },
]) {
  test(`a stretch of ${name} ends by itself when it has gained or lost as much as it should`, () => {
    for (const [stretch, by] of [
      [1.05, 0.09],
      [1.1, 0.05],
      [0.95, 0.04],
    ]) {
      const bench = new Bench({ sound });
      bench.start(0.5);
      bench.run(0.5);
      const before = bench.held;
      bench.steer({ stretch, by });
      bench.run(3);
      const gained = stretch > 1 ? before - bench.held : bench.held - before;
      assert.ok(Math.abs(gained - by) < worst + 0.006, `${stretch}: ${gained} instead of ${by}`);
    }
  });
}

test("undisturbed playback at equal rates reproduces every sample", () => {
  const random = Float32Array.from({ length: 48_000 }, (_, i) => (((i * 7919) % 65_521) / 65_521) * 2 - 1);
  const bench = new Bench({ rate: 48_000, outputRate: 48_000, sound: (index) => random[index] });
  bench.write(0.5);
  bench.obey({ type: "start", inSeconds: 0 });
  bench.render(0.4);
  const from = 4800;
  const first = bench.heard.findIndex((sample) => sample !== 0);
  const offset = bench.heard
    .slice(from, from + 1000)
    .map((_, i) => Math.round(32_767 * random[from + i - first]) / 32_768);
  const matches = [first - 1, first, first + 1].some((delay) =>
    offset.every(
      (_, i) => Math.abs(bench.heard[from + i] - Math.round(32_767 * random[from + i - delay]) / 32_768) < 1e-7,
    ),
  );
  assert.ok(matches);
});

for (const lateMs of [12, 12.25, 12.5, 12.75, 21, 27]) {
  test(`sound that comes ${lateMs} ms late continues its concealment in phase`, () => {
    const bench = new Bench();
    bench.start(0.2);
    bench.render(bench.held + lateMs / 1000);
    assert.equal(bench.renderer.report().mode, "concealing");
    bench.write(0.2);
    bench.render(0.1);
    const { mode, underruns, concealedSeconds } = bench.renderer.report();
    assert.equal(mode, "playing");
    assert.equal(underruns, 1);
    assert.ok(concealedSeconds > (lateMs - 4) / 1000 && concealedSeconds < (lateMs + 21) / 1000, `${concealedSeconds}`);
    bench.assertUnbroken("concealment", { level: 2.5 });
  });
}

test("concealment repeats whole periods, falls to half in 60 ms, and is silent after 80 ms", () => {
  const ring = new Ring(1, 4096);
  ring.append(Int16Array.from({ length: 1600 }, (_, i) => Math.round(32_767 * tone(TONE, 16_000)(i))));
  const concealment = new Concealment(ring, 16_000);
  concealment.begin(true);
  const periods = (concealment.period * TONE) / 16_000;
  assert.ok(Math.abs(periods - Math.round(periods)) < 0.02, `${periods}`);
  const samples = Array.from({ length: 1600 }, (_, i) => concealment.sampleAt(0, i));
  const loudest = (from, to) => Math.max(...samples.slice(from * 16, to * 16).map(Math.abs));
  assert.ok(Math.abs(loudest(0, 3) - 0.5) < 0.02);
  assert.ok(Math.abs(loudest(58, 60) - 0.25) < 0.02);
  assert.equal(loudest(80, 100), 0);
  const joined = [...ring.planes[0].slice(1500, 1600), ...samples];
  assert.ok(worstBreak(joined, TONE, 16_000) < 0.02);
});

test("a longer gap fades to exact silence without a click, and sound returns without a click", () => {
  const bench = new Bench();
  bench.start(0.2);
  bench.render(0.5);
  assert.equal(bench.renderer.report().mode, "silent");
  assert.ok(bench.heard.slice(-4800).every((sample) => sample === 0));
  bench.write(0.3);
  bench.render(0.1);
  assert.ok(
    bench.heard.slice(-4800).every((sample) => sample === 0),
    "the renderer waits for the order to start",
  );
  bench.obey({ type: "start", inSeconds: 0.05 });
  const again = bench.render(0.1);
  const onset = again.findIndex((sample) => sample !== 0) / 48_000;
  assert.ok(Math.abs(onset - 0.05) < 0.004, `${onset}`);
  assert.ok(worstBreak(bench.heard, TONE, 48_000) < CLICK);
});

test("the end of a speech fades out, and is no underrun", () => {
  const bench = new Bench();
  bench.start(0.2);
  bench.steer({ expecting: false });
  bench.render(0.3);
  const { underruns, concealedSeconds } = bench.renderer.report();
  assert.equal(underruns, 0);
  assert.equal(concealedSeconds, 0);
  assert.ok(worstBreak(bench.heard, TONE, 48_000) < CLICK);
});

test("clear ends the sound within 20 ms without a click", () => {
  for (const held of [0.5, 0.11, 0.101]) {
    const bench = new Bench();
    bench.start(held);
    bench.obey({ type: "clear" });
    bench.render(0.1);
    assert.ok(worstBreak(bench.heard, TONE, 48_000) < CLICK);
    assert.ok(bench.heard.slice(0.023 * 48_000).every((sample) => sample === 0));
    assert.equal(bench.held, 0);
  }
});

test("a pause lasts as long as it should", () => {
  const bench = new Bench();
  bench.start(0.3);
  bench.write(0.3, { pause: 0.25 });
  bench.render(0.7);
  assert.ok(Math.abs(longestSilence(bench.heard.slice(0, 0.5 * 48_000), 48_000) - 0.25) < 0.004);
});

test("silence is shortened before speech", () => {
  const speechAndPause = (index) => (index % 16_000 < 8000 ? tone(TONE, 16_000)(index) : 0);
  const bench = new Bench({ sound: speechAndPause });
  bench.start(1);
  bench.run(1);
  bench.write(1);
  bench.steer({ stretch: 1.05 });
  const before = bench.held;
  bench.run(1);
  const saved = before - bench.held;
  assert.ok(saved > 0.2, `${saved} s saved in a second that is half silence`);
});

test("left and right are not exchanged", () => {
  const bench = new Bench({ rate: 48_000, channels: 2, sound: (_index, channel) => (channel === 0 ? 0.25 : -0.5) });
  bench.write(0.3);
  bench.obey({ type: "start", inSeconds: 0 });
  bench.render(0.2);
  assert.ok(Math.abs(bench.heard.at(-1) - 0.25) < 1e-4);
  assert.ok(Math.abs(bench.right.at(-1) + 0.5) < 1e-4);
});

test("another format takes over without a click", () => {
  const bench = new Bench();
  bench.start(0.5);
  bench.obey({ type: "format", rate: 48_000, channels: 2 });
  bench.render(0.1);
  assert.ok(worstBreak(bench.heard, TONE, 48_000) < CLICK);
  assert.equal(bench.renderer.report().heldSeconds, 0);
});

test("the ring is bounded: it drops the oldest sound, and counts it", () => {
  const bench = new Bench({ rate: 8000 });
  bench.write(20);
  const { heldSeconds, lostSeconds } = bench.renderer.report();
  assert.ok(Math.abs(heldSeconds - 16) < 0.03);
  assert.ok(Math.abs(lostSeconds - 4) < 0.03);
});

test("the renderer reports which frame is heard, and how much of it", () => {
  const bench = new Bench();
  bench.write(1);
  bench.obey({ type: "start", inSeconds: 0 });
  bench.render(0.5);
  const { frame, offsetSeconds, newest } = bench.renderer.report();
  assert.ok(Math.abs(frame * 0.02 + offsetSeconds - 0.5) < 0.005, `${frame} ${offsetSeconds}`);
  assert.equal(newest, 49);
});

test("a jump does nothing when all sound has been played", () => {
  const ring = new Ring(1, 4096);
  const playhead = new Playhead(ring, 16_000);
  playhead.write(new Int16Array(1600).fill(1000), false, 0);
  playhead.startIn = 0;
  playhead.read([new Float32Array(1600)], 1600);
  assert.deepEqual([playhead.mode, playhead.held], [PLAYING, 0]);
  playhead.jump(100);
  assert.equal(playhead.place, ring.end);
});

test("a ring joins two pieces and leaves the first one in its place", () => {
  const ring = new Ring(1, 64);
  ring.append(Int16Array.from({ length: 8 }, () => 16_384));
  const seam = ring.end;
  ring.append(Int16Array.from({ length: 8 }, (_, i) => (i < 2 ? 32_767 : -16_384)));
  ring.join(seam, 4, 2);
  assert.equal(ring.end, 10);
  const samples = Array.from({ length: ring.end }, (_, i) => ring.planes[0][i & ring.mask]);
  assert.deepEqual(samples.slice(0, 4), [0.5, 0.5, 0.5, 0.5]);
  assert.deepEqual(
    samples.slice(4, 8).map((x) => x.toFixed(3)),
    ["0.375", "0.125", "-0.125", "-0.375"],
  );
  assert.deepEqual(samples.slice(8), [-0.5, -0.5]);
});

for (const rate of [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]) {
  test(`the resampler preserves a tone from ${rate} Hz`, () => {
    for (const outputRate of [16_000, 44_100, 48_000]) {
      const resampler = new SincResampler({ inputRate: rate, outputRate, channels: 1, capacity: 4096 });
      const sound = tone(TONE, rate);
      const output = [new Float32Array(128)];
      const heard = [];
      let written = 0;
      while (heard.length < outputRate / 2) {
        const count = resampler.missing(128);
        resampler.write(Float32Array.from({ length: count }, (_, i) => sound(written + i)));
        written += count;
        resampler.read(output, 128);
        heard.push(...output[0]);
      }
      assert.equal(resampler.available >= 128, resampler.missing(128) === 0);
      assert.ok(Math.abs(pitch(heard.slice(outputRate / 10), outputRate) - TONE) < 0.02);
      const loud = levels(heard.slice(outputRate / 10), outputRate, 0.1);
      assert.ok(
        loud.every((level) => Math.abs(level) < 0.06),
        `${rate} to ${outputRate}: ${loud}`,
      );
    }
  });
}
