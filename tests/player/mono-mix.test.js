/** Tests how the broadcasting page mixes the two channels of a microphone into one. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { MonoMix } from "../../relay/pages/mono-mix.js";

const RATE = 48_000;
const BLOCK = 128;

const tone =
  (hertz, gain = 0.5, phase = 0) =>
  (i) =>
    gain * Math.sin((2 * Math.PI * hertz * i) / RATE + phase);
const silence = () => 0;
const root = (samples) => Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
const decibels = (samples, gain = 0.5) => 20 * Math.log10(root(samples) / (gain * Math.SQRT1_2));

/** Mixes another stretch of two sounds, and returns its samples. */
function mixed(mix, seconds, left, right) {
  const samples = [];
  for (let start = 0; start < seconds * RATE; start += BLOCK) {
    const block = [left, right].map((sound) => Float32Array.from({ length: BLOCK }, (_, i) => sound(start + i)));
    samples.push(...mix.mix(block));
  }
  return samples;
}

test("a voice on one channel keeps its loudness, from the first sample on", () => {
  for (const sides of [
    [tone(440), silence],
    [silence, tone(440)],
  ]) {
    const heard = mixed(new MonoMix(RATE), 1, ...sides);
    assert.deepEqual(heard.slice(0, BLOCK), [...Float32Array.from({ length: BLOCK }, (_, i) => tone(440)(i))]);
    assert.ok(Math.abs(decibels(heard)) < 0.1);
  }
});

test("a voice on both channels keeps its loudness", () => {
  assert.ok(Math.abs(decibels(mixed(new MonoMix(RATE), 1, tone(440), tone(440)))) < 0.1);
});

test("two different sounds together are as loud as the louder one", () => {
  const heard = mixed(new MonoMix(RATE), 2, tone(440), tone(613));
  assert.ok(Math.abs(decibels(heard.slice(RATE))) < 0.3);
  const uneven = mixed(new MonoMix(RATE), 2, tone(440), tone(613, 0.05));
  assert.ok(Math.abs(decibels(uneven.slice(RATE))) < 0.3);
});

test("channels of opposite phase are not amplified", () => {
  const heard = mixed(new MonoMix(RATE), 1, tone(440), tone(440, 0.5, Math.PI));
  assert.ok(decibels(heard) < -34);
});

test("noise on the other channel and pauses do not change the loudness", () => {
  const mix = new MonoMix(RATE);
  const noise = () => 0.0003 * (Math.random() - 0.5);
  mixed(mix, 1, tone(440), noise);
  mixed(mix, 3, noise, noise);
  assert.ok(Math.abs(decibels(mixed(mix, 1, tone(440), noise))) < 0.1);
});

test("a change of the gain makes no click", () => {
  const mix = new MonoMix(RATE);
  const left = tone(440);
  const heard = mixed(mix, 3, left, (i) => (i < RATE ? 0 : left(i)));
  const step = heard.reduce((most, sample, i) => Math.max(most, Math.abs(sample - (heard[i - 1] ?? 0))), 0);
  assert.ok(step < 0.06, `${step}`);
});

test("a single channel is passed on unchanged", () => {
  const only = new Float32Array(BLOCK);
  assert.equal(new MonoMix(RATE).mix([only]), only);
});
