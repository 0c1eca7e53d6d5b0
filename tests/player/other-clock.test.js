/** Compares a player that moves to a relay with another clock to a player that returns to the same relay. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { longestSilence } from "./support/ear.js";
import { Simulation } from "./support/simulation.js";
import { loadTrace, stalled, steadyTrace } from "./support/trace.js";

const DEVICE_RATE = 48_000;
const BROKE_MS = 8000;
const DAYS_MS = 3 * 86_400_000;

/** The largest allowed difference between the two players, in what is heard and in what they report. */
const MOST_APART_MS = 5;

/**
 * Returns the trace of speech in sentences of 2.5 s, which the relay releases `leadMs` before they are due.
 *
 * @returns {import("./support/trace.js").Trace}
 */
function speech(leadMs = 0, pauseMs = 700) {
  const { frames, ...rest } = steadyTrace(30);
  const spoken = frames.map((frame) => {
    const dueMs = frame.dueMs + pauseMs * Math.floor(frame.seq / 125);
    return { ...frame, dueMs, arrivalMs: Math.max(0, dueMs - leadMs) + rest.wayMs };
  });
  return { ...rest, pace: "speech", frames: spoken };
}

const TRACES = {
  "a clean network": () => loadTrace("clean-20"),
  "frames of 256 ms": () => loadTrace("clean-256"),
  "Wi-Fi": () => loadTrace("wifi"),
  speech: () => speech(),
  "speech ahead of time": () => speech(2000),
};

/**
 * Returns a simulation whose connection breaks at `BROKE_MS` and resumes `awayMs` later.
 *
 * @param {import("./support/trace.js").Trace} trace
 * @param {object} options
 * @param {"low" | "balanced" | "stable"} options.latency
 * @param {number} options.awayMs
 * @param {string} [options.firstId] The id of the first relay's clock.
 * @param {Parameters<Simulation["resume"]>[1]} options.relay The relay at which it resumes.
 */
function resumed(trace, { latency, awayMs, firstId = "one", relay }) {
  const simulation = new Simulation(stalled(trace, BROKE_MS, awayMs), { latency, clockId: firstId, record: true });
  // The greeting comes before the audio.
  simulation.resume(BROKE_MS + awayMs - 1, relay);
  simulation.run(BROKE_MS + 12_000);
  return simulation;
}

/** Returns the largest difference of a value between two simulations since the connection broke. */
function apartMs(one, other, name) {
  const others = new Map(other.rows.map((row) => [row.now, row]));
  const both = one.rows.filter((row) => row.now > BROKE_MS).map((row) => [row[name], others.get(row.now)?.[name]]);
  assert.ok(both.length > 200);
  assert.ok(both.every(([a, b]) => Number.isFinite(a) && Number.isFinite(b)));
  return Math.max(...both.map(([a, b]) => Math.abs(a - b)));
}

for (const [name, make] of Object.entries(TRACES)) {
  for (const latency of /** @type {const} */ (["low", "stable"])) {
    for (const awayMs of [100, 500, 3000]) {
      test(`${name}, ${latency}, away for ${awayMs} ms: another clock makes no audible difference`, () => {
        const stayed = resumed(make(), { latency, awayMs, relay: { clockId: "one" } });
        for (const aheadMs of [300, -300, DAYS_MS, -DAYS_MS]) {
          const moved = resumed(make(), { latency, awayMs, relay: { clockId: "two", aheadMs } });
          assert.ok(apartMs(moved, stayed, "heardMs") <= MOST_APART_MS, `ahead by ${aheadMs}`);
          assert.ok(apartMs(moved, stayed, "delayMs") <= MOST_APART_MS, `ahead by ${aheadMs}`);
          const counts = ({ jumps, underruns, concealedMs, targetMs }) => ({ jumps, underruns, concealedMs, targetMs });
          assert.deepEqual(counts(moved.stats), counts(stayed.stats));
        }
      });
    }
  }
}

test("a relay that does not name its clock has another one if its time is far away", () => {
  const options = { latency: /** @type {const} */ ("stable"), awayMs: 100 };
  const stayed = resumed(speech(), { ...options, relay: { clockId: "one" } });
  for (const aheadMs of [DAYS_MS, -DAYS_MS]) {
    const moved = resumed(speech(), { ...options, firstId: undefined, relay: { aheadMs } });
    assert.ok(apartMs(moved, stayed, "heardMs") <= MOST_APART_MS);
  }
});

for (const lateMs of [30, 80]) {
  test(`a greeting of another clock that comes ${lateMs} ms late makes no hole in a sentence`, () => {
    const options = { latency: /** @type {const} */ ("stable"), awayMs: 300 };
    const stayed = resumed(speech(2000, 0), { ...options, relay: { clockId: "one" } });
    const moved = resumed(speech(2000, 0), { ...options, relay: { clockId: "two", aheadMs: -300, lateMs } });
    assert.ok(apartMs(moved, stayed, "heardMs") <= MOST_APART_MS);
    assert.ok(longestSilence(moved.recording.slice(BROKE_MS * (DEVICE_RATE / 1000)), DEVICE_RATE) < 0.001);
  });
}

test("a speaker's pause lasts as long as on the old clock", () => {
  const { frames, ...rest } = speech(0, 700);
  // The connection breaks at the end of a sentence, and returns at once.
  const brokeSeq = frames.findIndex(({ dueMs }) => dueMs > BROKE_MS);
  const boundary = Math.ceil(brokeSeq / 125) * 125;
  const fromMs = frames[boundary - 1].arrivalMs + 5;
  const simulation = (relay) => {
    const player = new Simulation({ ...rest, frames }, { latency: "balanced", clockId: "one" });
    player.resume(fromMs, relay);
    player.run(BROKE_MS + 15_000);
    return player;
  };
  const stayed = simulation({ clockId: "one" });
  for (const aheadMs of [300, -300]) {
    assert.ok(apartMs(simulation({ clockId: "two", aheadMs }), stayed, "heardMs") <= MOST_APART_MS);
  }
});
