/** Tests which of the latencies that a browser reports the player believes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { OutputLatency } from "../../relay/pages/player/output-latency.js";

const LOOK_MS = 250;

/**
 * Returns the latency that the player believes after each look.
 *
 * @param {(seconds: number) => object} tell Returns what the browser reports at that many seconds after its start.
 */
function looks(tell, count = 40) {
  const latency = new OutputLatency();
  return Array.from({ length: count }, (_, look) => {
    const seconds = 3 + (look * LOOK_MS) / 1000;
    return latency.read({ currentTime: seconds, ...tell(seconds) }, 5000 + seconds * 1000);
  });
}

/** Returns the timestamp of sound that leaves the speaker `lateSeconds` late. */
function stamp(seconds, lateSeconds) {
  return { contextTime: seconds - lateSeconds, performanceTime: 5000 + seconds * 1000 };
}

test("a stable latency is believed from the third look on", () => {
  for (const seconds of [0.004, 0.04, 0.3, 2]) {
    const told = looks(() => ({ outputLatency: seconds, baseLatency: 0.01 }));
    assert.deepEqual(new Set(told.slice(2)), new Set([seconds * 1000]));
    const stamped = looks((now) => ({ baseLatency: 0.01, getOutputTimestamp: () => stamp(now, seconds) }));
    assert.ok(stamped.slice(2).every((ms) => Math.abs(ms - seconds * 1000) < 1));
    assert.deepEqual([...told.slice(0, 2), ...stamped.slice(0, 2)], [10, 10, 10, 10]);
  }
});

test("a timestamp slightly ahead of the context's clock is no error", () => {
  const told = looks((now) => ({ baseLatency: 0.01, getOutputTimestamp: () => stamp(now, -0.003) }));
  assert.equal(told.at(-1), 0);
});

test("the latency of another device is believed after a little more than a second", () => {
  const told = looks((now) => ({ outputLatency: now < 5 ? 0.04 : 0.3, baseLatency: 0.01 }));
  assert.deepEqual(new Set(told.slice(2, 11)), new Set([40]));
  assert.deepEqual(new Set(told.slice(13)), new Set([300]));
});

test("a few readings that are far off change nothing", () => {
  const latencyAt = (now) => ([5, 5.25, 6].includes(now) ? 0.2 : 0.04);
  const told = looks((now) => ({ outputLatency: latencyAt(now), baseLatency: 0.01 }));
  assert.deepEqual(new Set(told.slice(2)), new Set([40]));
  const stamped = looks((now) => ({ baseLatency: 0.01, getOutputTimestamp: () => stamp(now, latencyAt(now)) }));
  assert.ok(stamped.slice(2).every((ms) => Math.abs(ms - 40) < 1));
});

const WRONG = {
  "a timestamp that stands still": (now) => ({ contextTime: 0.01, performanceTime: 5000 + now * 1000 }),
  "a timestamp divided by the sample rate": (now) => ({
    contextTime: now / 48_000,
    performanceTime: 5000 + now * 1000,
  }),
  "a timestamp that advances at half speed": (now) => ({ contextTime: now / 2, performanceTime: 5000 + now * 1000 }),
  "a timestamp in other units": (now) => ({ contextTime: now, performanceTime: 5 + now }),
  "a timestamp from minutes ago": (now) => ({ contextTime: now, performanceTime: 5000 + now * 1000 + 120_000 }),
  "a timestamp of zeros": () => ({ contextTime: 0, performanceTime: 0 }),
  "an empty timestamp": () => ({}),
};

for (const [name, timestamp] of Object.entries(WRONG)) {
  test(`${name} is not believed`, () => {
    const base = looks((now) => ({ baseLatency: 0.012, getOutputTimestamp: () => timestamp(now) }));
    assert.deepEqual(new Set(base), new Set([12]));
    const nothing = looks((now) => ({ getOutputTimestamp: () => timestamp(now) }));
    assert.deepEqual(new Set(nothing), new Set([0]));
  });
}

test("timers that fire in bursts do not make a wrong timestamp credible", () => {
  const latency = new OutputLatency();
  const told = new Set();
  for (let ms = 1000, look = 0; ms < 4000; look += 1) {
    const context = {
      currentTime: ms / 1000,
      baseLatency: 0.01,
      getOutputTimestamp: () => WRONG["a timestamp that stands still"](ms / 1000),
    };
    told.add(latency.read(context, 5000 + ms));
    ms += [5, 250, 60, 90, 700][look % 5];
  }
  assert.deepEqual(told, new Set([10]));
});

test("a wrong timestamp is not believed while the audio thread hardly runs", () => {
  const latency = new OutputLatency();
  const told = new Set();
  for (let look = 0; look < 40; look += 1) {
    // The audio thread gets a turn once a second.
    const seconds = 1 + Math.floor(look / 4);
    const getOutputTimestamp = () => ({ contextTime: 0.01, performanceTime: 5000 + look * LOOK_MS });
    told.add(latency.read({ currentTime: seconds, baseLatency: 0.01, getOutputTimestamp }, 5000 + look * LOOK_MS));
  }
  assert.deepEqual(told, new Set([10]));
});

test("a wrong timestamp is not believed although sound is rendered in bursts, even if two readings agree", () => {
  const latency = new OutputLatency();
  const told = new Set();
  // How long ago the browser rendered, and took its timestamp: as on a machine with other work.
  const sinceMs = [0, 250, 10, 200, 0, 90, 5, 240, 30];
  for (let look = 0; look < 40; look += 1) {
    const nowMs = 2000 + look * LOOK_MS * 1.2;
    const renderedMs = nowMs - 1000;
    const performanceTime = nowMs - sinceMs[look % sinceMs.length];
    const getOutputTimestamp = () => ({ contextTime: 0.01, performanceTime });
    told.add(latency.read({ currentTime: renderedMs / 1000, baseLatency: 0.01, getOutputTimestamp }, nowMs));
  }
  assert.deepEqual(told, new Set([10]));
});

test("an impossible output latency is not believed, but a good timestamp is", () => {
  for (const wrong of [() => 60, () => -1, () => NaN, () => Infinity, () => undefined, () => 0, (now) => now]) {
    const told = looks((now) => ({ outputLatency: wrong(now), getOutputTimestamp: () => stamp(now, 0.05) }));
    assert.ok(
      told.slice(2).every((ms) => Math.abs(ms - 50) < 1),
      `${wrong}: ${told}`,
    );
  }
});

test("an impossible base latency is not believed either", () => {
  for (const baseLatency of [undefined, NaN, -1, 60, Infinity]) {
    assert.deepEqual(new Set(looks(() => ({ baseLatency }))), new Set([0]));
  }
});

/** A context that counts the queries that freeze Firefox. */
class Asked {
  times = 0;
  baseLatency = 0.01;

  constructor(seconds) {
    this.currentTime = seconds;
  }

  get outputLatency() {
    this.times += 1;
    return 0.04;
  }

  getOutputTimestamp() {
    this.times += 1;
    return stamp(this.currentTime, 0.04);
  }
}

/** Returns the latency after three looks, and the number of queries. */
function askedBy(userAgent) {
  const latency = new OutputLatency(userAgent);
  const contexts = [new Asked(3), new Asked(4), new Asked(5)];
  const told = contexts.map((context) => latency.read(context, 5000 + context.currentTime * 1000));
  return { told: told.at(-1), times: contexts.reduce((sum, { times }) => sum + times, 0) };
}

test("Firefox on Linux is never asked for what freezes it", () => {
  const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0";
  assert.deepEqual(askedBy(firefox), { told: 10, times: 0 });
});

test("every other browser is asked", () => {
  for (const userAgent of [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:153.0) Gecko/20100101 Firefox/153.0",
    "Mozilla/5.0 (Android 14; Mobile; rv:153.0) Gecko/153.0 Firefox/153.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/153.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
  ]) {
    assert.deepEqual(askedBy(userAgent), { told: 40, times: 6 }, userAgent);
  }
});
