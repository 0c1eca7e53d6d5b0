/** Runs the whole player, except threads and sockets, over many kinds of networks and on a virtual clock. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { FLOORS_MS } from "../../relay/pages/player/target-delay.js";
import { levels, longestSilence, pitch, worstBreak } from "./support/ear.js";
import { Simulation, tone } from "./support/simulation.js";
import { droppedTrace, joined, loadTrace, stalled, steadyTrace } from "./support/trace.js";

const TONE = 997;
const DEVICE_RATE = 48_000;
const CLICK = 0.005;
const PRESETS = ["low", "balanced", "stable"];

function listen(trace, options = {}) {
  const simulation = new Simulation(trace, { deviceRate: DEVICE_RATE, ...options });
  simulation.run(trace.frames.at(-1).arrivalMs);
  return simulation;
}

/** Returns what was heard after the fade-in, and when the sound began. */
function heardBy(simulation) {
  const samples = simulation.recording;
  const onset = samples.findIndex((sample) => sample !== 0);
  assert.ok(onset >= 0, "nothing was heard");
  return { onsetMs: (onset * 1000) / DEVICE_RATE, samples: samples.slice(onset + 0.05 * DEVICE_RATE) };
}

function meanError(simulation, fromMs, toMs = Infinity) {
  const rows = simulation.rows.filter(({ now }) => now >= fromMs && now < toMs);
  return rows.reduce((sum, { error }) => sum + error, 0) / rows.length;
}

for (const latency of PRESETS) {
  for (const name of ["clean-20", "clean-256"]) {
    test(`${name}, ${latency}: a minute has no gap, click or skip, and the right level and pitch`, () => {
      const simulation = listen(loadTrace(name), { latency, record: true });
      const { samples } = heardBy(simulation);
      const { underruns, jumps, gaps, concealedMs } = simulation.stats;
      assert.deepEqual({ underruns, jumps, gaps, concealedMs }, { underruns: 0, jumps: 0, gaps: 0, concealedMs: 0 });
      assert.ok(worstBreak(samples, TONE, DEVICE_RATE) < CLICK);
      assert.ok(levels(samples, DEVICE_RATE, 0.02).every((level) => Math.abs(level) < 0.5));
      assert.ok(Math.abs(pitch(samples, DEVICE_RATE) - TONE) < 0.5);
      assert.ok(Math.abs(meanError(simulation, 30_000)) < 15);
    });
  }

  test(`groups of five frames, ${latency}: no underrun after the first 5 s`, () => {
    const simulation = listen(loadTrace("groups-of-five"), { latency });
    const early = simulation.rows.filter(({ now }) => now < 5000).at(-1).underruns;
    assert.equal(simulation.stats.underruns - early, 0);
    assert.equal(simulation.stats.jumps, 0);
  });

  test(`a stall of 300 ms, ${latency}: no jump, and within 60 ms of the target after 6 s`, () => {
    const simulation = listen(loadTrace("stall-300"), { latency, record: true });
    assert.equal(simulation.stats.jumps, 0);
    const later = simulation.rows.filter(({ now }) => now > 26_300);
    assert.ok(later.every(({ error }) => Math.abs(error) < 60));
    assert.ok(worstBreak(heardBy(simulation).samples, TONE, DEVICE_RATE) < CLICK);
  });

  test(`a stall of 3 s, ${latency}: exactly one jump, and within 100 ms of the target after 2 s`, () => {
    const simulation = listen(loadTrace("stall-3000"), { latency, record: true });
    assert.equal(simulation.stats.jumps, 1);
    const later = simulation.rows.filter(({ now }) => now > 25_000);
    assert.ok(later.every(({ error }) => Math.abs(error) < 100));
    assert.ok(worstBreak(heardBy(simulation).samples, TONE, DEVICE_RATE) < CLICK);
  });

  test(`a relay that drops a second, ${latency}: one splice, and no silence longer than 10 ms`, () => {
    const simulation = listen(droppedTrace(20, 500, 50), { latency, record: true });
    const { gaps, gapMs, jumps, underruns } = simulation.stats;
    assert.deepEqual({ gaps, gapMs, jumps, underruns }, { gaps: 1, gapMs: 1000, jumps: 0, underruns: 0 });
    const { samples } = heardBy(simulation);
    assert.ok(longestSilence(samples, DEVICE_RATE) < 0.01);
    assert.ok(worstBreak(samples, TONE, DEVICE_RATE) < CLICK);
    assert.equal(
      simulation.orders.filter(({ splice }) => splice).length,
      2,
      "the first frame and the one after the gap",
    );
  });

  test(`Wi-Fi, ${latency}: nothing is missing, and the delay is no longer than necessary`, () => {
    const simulation = listen(loadTrace("wifi"), { latency, record: true });
    assert.deepEqual([simulation.stats.underruns, simulation.stats.jumps], [0, 0]);
    assert.ok(simulation.rows.at(-1).targetMs <= Math.max(135, { low: 0, balanced: 200, stable: 600 }[latency]));
    assert.ok(worstBreak(heardBy(simulation).samples, TONE, DEVICE_RATE) < CLICK);
  });
}

/** Returns the error of the pitch, in Hz, for each 5 s of a recording. */
function pitchErrors(samples) {
  const length = 5 * DEVICE_RATE;
  return Array.from({ length: Math.floor(samples.length / length) }, (_, i) =>
    Math.abs(pitch(samples.slice(i * length, (i + 1) * length), DEVICE_RATE) - TONE),
  );
}

for (const latency of ["balanced", "stable"]) {
  test(`first frames that are 95 ms late, ${latency}: caught up within 3 s, and the right pitch from then on`, () => {
    const { frames, ...rest } = steadyTrace(30, { frameMs: 256 });
    const late = frames.map((frame) => ({ ...frame, arrivalMs: frame.arrivalMs + (frame.seq < 3 ? 95 : 0) }));
    const simulation = listen({ ...rest, frames: late }, { latency, record: true });
    assert.deepEqual([simulation.stats.jumps, simulation.stats.underruns], [0, 0]);
    const { onsetMs, samples } = heardBy(simulation);
    assert.ok(worstBreak(samples, TONE, DEVICE_RATE) < CLICK);
    const settled = simulation.rows.filter(({ now }) => now > onsetMs + 3000).map(({ error }) => Math.round(error));
    assert.ok(
      settled.every((error) => Math.abs(error) < 20),
      `${settled}`,
    );
    const errors = pitchErrors(samples.slice(3 * DEVICE_RATE));
    assert.ok(
      errors.every((error) => error < 0.45),
      `${errors}`,
    );
  });
}

test("a lag that is too large to ignore and too small to stretch does not bend the pitch", () => {
  const { frames, ...rest } = steadyTrace(40, { frameMs: 256 });
  // The network takes a faster route long after the start.
  const faster = frames.map((frame) => ({ ...frame, arrivalMs: frame.arrivalMs + (frame.seq < 40 ? 110 : 0) }));
  const simulation = listen({ ...rest, frames: faster }, { latency: "stable", record: true });
  const errors = pitchErrors(heardBy(simulation).samples);
  assert.ok(
    errors.every((error) => error < 0.45),
    `${errors}`,
  );
});

for (const latency of PRESETS) {
  test(`a join 150 ms after the newest frame of 256 ms, ${latency}: the frame's age does not count as delay`, () => {
    const simulation = listen(joined(steadyTrace(10, { frameMs: 256 }), 3 * 256 + 150), { latency });
    assert.deepEqual([simulation.stats.jumps, simulation.stats.underruns], [0, 0]);
    const early = simulation.rows.filter(({ now, mode }) => mode === "playing" && now < 1500);
    assert.ok(early.length > 10);
    assert.ok(
      early.every(({ error }) => Math.abs(error) < 20),
      `${early.map(({ error }) => Math.round(error))}`,
    );
    assert.ok(early.every(({ rate }) => Math.abs(rate - 1) < 0.001));
  });
}

test("the player waits for sound from before the join over a slow line, and does not run out at once", () => {
  const { frames, ...rest } = joined(steadyTrace(10), 600);
  const slow = frames.map((frame) => {
    const groupMs = frame.seq < 2 ? 2 : frame.seq < 8 ? 102 : 202;
    return { ...frame, arrivalMs: Math.max(frame.arrivalMs, groupMs) };
  });
  const simulation = listen({ ...rest, frames: slow }, { latency: "stable", record: true });
  assert.deepEqual([simulation.stats.jumps, simulation.stats.underruns], [0, 0]);
  assert.ok(heardBy(simulation).onsetMs < 300);
});

/** Returns how far the target and the delay are from the preset's floor, and the jumps, 10 s after a stall. */
function behindStall(latency, frameMs, atMs, lengthMs, speed) {
  const steady = joined(steadyTrace(31, { frameMs }), FLOORS_MS[latency] + 130);
  const simulation = new Simulation(stalled(steady, atMs, lengthMs, speed), {
    latency,
    rate: 8000,
    deviceRate: 8000,
    sound: () => 0,
  });
  const backlogMs = lengthMs / (speed - 1);
  const fromMs = atMs + lengthMs + backlogMs + 10_000;
  simulation.run(fromMs + 1000);
  const rows = simulation.rows.filter(({ now }) => now >= fromMs);
  const most = (numbers) => Math.max(...numbers.map((number) => Math.abs(number - FLOORS_MS[latency])));
  return {
    targetMs: most(rows.map(({ targetMs }) => targetMs)),
    delayMs: most(rows.map(({ playoutMs }) => playoutMs)),
    jumps: simulation.stats.jumps,
  };
}

for (const latency of PRESETS) {
  for (const frameMs of [20, 256]) {
    test(`any stall in the first 10 s, ${latency}, ${frameMs} ms frames: forgotten 10 s later, at most one jump`, () => {
      for (const atMs of [0, 100, 300, 700, 1200, 1700, 2300, 3100, 4500, 6000, 7500, 9900]) {
        for (const lengthMs of [100, 300, 700, 1000, 1500, 3000, 6000]) {
          const { targetMs, delayMs, jumps } = behindStall(latency, frameMs, atMs, lengthMs, Infinity);
          const found = `${lengthMs} ms at ${atMs} ms: target ${targetMs} and delay ${delayMs} ms away, ${jumps} jumps`;
          assert.ok(targetMs <= 20 && delayMs < 100 && jumps <= 1, found);
        }
      }
    });
  }

  test(`a stall whose backlog comes over a slow line, ${latency}: one delay, not one per half second`, () => {
    for (const atMs of [300, 1200, 4500, 9900]) {
      for (const lengthMs of [700, 1500, 3000]) {
        const { targetMs } = behindStall(latency, 20, atMs, lengthMs, 3);
        assert.ok(targetMs <= 20, `${lengthMs} ms at ${atMs} ms: target ${targetMs} ms away`);
      }
    }
  });
}

test("the delay follows a falling target closely and no further, even when it cuts silence", () => {
  for (const sound of [tone(TONE, 16_000), () => 0]) {
    const simulation = listen(steadyTrace(20), { latency: "low", sound });
    assert.equal(simulation.stats.underruns, 0);
    const later = simulation.rows.filter(({ now }) => now > 4500).map(({ error }) => Math.round(error));
    assert.ok(
      later.every((error) => Math.abs(error) < 35),
      `${later}`,
    );
    assert.ok(Math.abs(meanError(simulation, 9000)) < 5);
  }
});

for (const ppm of [200, -200]) {
  test(`clocks that differ by ${ppm} ppm for an hour: the error stays within 15 ms, no jump, no underrun`, () => {
    // The rates of the sound and of the sound card are low, because only time matters here.
    const simulation = new Simulation(steadyTrace(3600, { ppm, frameMs: 100 }), {
      rate: 8000,
      deviceRate: 8000,
      sound: () => 0,
      latency: "balanced",
    });
    const smooth = [];
    for (let minute = 1; minute <= 60; minute += 1) {
      simulation.rows = [];
      simulation.orders = [];
      simulation.run(minute * 60_000 - 1000);
      smooth.push(meanError(simulation, 0));
    }
    assert.ok(
      smooth.slice(1).every((error) => Math.abs(error) < 15),
      `${smooth.map(Math.round)}`,
    );
    assert.deepEqual([simulation.stats.jumps, simulation.stats.underruns], [0, 0]);
    assert.ok(Math.abs(simulation.stats.driftPpm - ppm) < 100, `${simulation.stats.driftPpm}`);
  });
}

test("a sound card that is 200 ppm slow counts as a broadcaster that is 200 ppm fast", () => {
  const simulation = listen(steadyTrace(600, { frameMs: 100 }), {
    rate: 8000,
    deviceRate: 8000,
    sound: () => 0,
    devicePpm: -200,
  });
  assert.ok(Math.abs(simulation.stats.driftPpm - 200) < 100, `${simulation.stats.driftPpm}`);
  assert.ok(Math.abs(meanError(simulation, 300_000)) < 15);
});

test("on a train, stalls longer than the delay are concealed without a click and caught up without a jump", () => {
  const simulation = listen(loadTrace("cellular"), { latency: "balanced", record: true });
  assert.ok(simulation.stats.underruns <= 4);
  assert.equal(simulation.stats.jumps, 0);
  assert.ok(worstBreak(heardBy(simulation).samples, TONE, DEVICE_RATE) < CLICK);
  const stable = listen(loadTrace("cellular"), { latency: "stable" });
  assert.deepEqual([stable.stats.underruns, stable.stats.jumps], [0, 0]);
});

test("speech that comes in bursts is played completely, on time and with its pauses", () => {
  const trace = loadTrace("speech");
  const simulation = new Simulation(trace, { record: true, deviceRate: DEVICE_RATE });
  const lastEndMs = trace.frames.at(-1).dueMs + 20;
  simulation.run(lastEndMs + 1000);
  const { underruns, jumps, gaps, targetMs } = simulation.stats;
  assert.deepEqual({ underruns, jumps, gaps, targetMs }, { underruns: 0, jumps: 0, gaps: 0, targetMs: 200 });
  const samples = simulation.recording;
  const heardSeconds = samples.filter((sample) => sample !== 0).length / DEVICE_RATE;
  assert.ok(Math.abs(heardSeconds - trace.frames.length * 0.02) < 0.25, `${heardSeconds}`);
  const pauses = pausesIn(samples, 0.05);
  const wanted = trace.frames.flatMap(({ dueMs }, i) => {
    const pauseMs = i === 0 ? 0 : dueMs - trace.frames[i - 1].dueMs - 20;
    return pauseMs > 50 ? [pauseMs / 1000] : [];
  });
  assert.equal(pauses.length, wanted.length);
  for (const [i, pause] of pauses.entries()) {
    assert.ok(Math.abs(pause - wanted[i]) < 0.06, `${pauses} instead of ${wanted}`);
  }
  const { rows } = simulation;
  assert.ok(rows.filter(({ mode }) => mode === "playing").every(({ rate }) => Math.abs(rate - 1) < 0.0025));
});

/** Returns the silences between sounds that last at least `shortest` seconds. */
function pausesIn(samples, shortest) {
  const found = [];
  let run = 0;
  let isInside = false;
  for (const sample of samples) {
    if (sample === 0) {
      run += 1;
    } else {
      if (isInside && run > shortest * DEVICE_RATE) {
        found.push(run / DEVICE_RATE);
      }
      isInside = true;
      run = 0;
    }
  }
  return found;
}

test("a backlog of the broadcaster is caught up with one jump", () => {
  const { frames, ...rest } = steadyTrace(20);
  // The broadcaster's network stalls for 3 s, and frames are due when they arrive at the relay.
  const late = frames.map((frame) => {
    const dueMs = frame.dueMs > 8000 && frame.dueMs < 11_000 ? 11_000 + frame.seq * 0.001 : frame.dueMs;
    return { ...frame, dueMs, arrivalMs: dueMs + 12 };
  });
  const simulation = listen({ ...rest, frames: late });
  assert.equal(simulation.stats.jumps, 1);
  assert.ok(simulation.rows.filter(({ now }) => now > 13_000).every(({ error }) => Math.abs(error) < 60));
});

for (const pauseMs of [400, 1500, 5000]) {
  test(`a broadcaster that sends nothing for ${pauseMs} ms costs no jump and no delay`, () => {
    const { frames, ...rest } = steadyTrace(20);
    const paused = frames.map((frame) => {
      const shift = frame.seq < 400 ? 0 : pauseMs;
      return { ...frame, dueMs: frame.dueMs + shift, arrivalMs: frame.arrivalMs + shift };
    });
    const simulation = listen({ ...rest, frames: paused });
    assert.equal(simulation.stats.jumps, 0);
    assert.ok(
      simulation.rows.filter(({ now }) => now > 8000 + pauseMs + 4000).every(({ error }) => Math.abs(error) < 60),
    );
    assert.equal(Math.round(simulation.stats.targetMs), 200);
  });
}

test("clear discards the held sound, and later sound is played", () => {
  const trace = steadyTrace(10);
  const simulation = new Simulation(trace, { record: true, deviceRate: DEVICE_RATE });
  simulation.run(5000);
  simulation.say({ type: "gap", epoch: 7, from_seq: 249, to_seq: 250, duration_ms: 40, reason: "clear" });
  simulation.say({ type: "clear" });
  simulation.run(5060);
  assert.ok(simulation.stats.bufferMs < 80);
  simulation.run(9000);
  assert.equal(simulation.conductor.mode, "playing");
  assert.equal(simulation.stats.gaps, 0);
  assert.ok(worstBreak(simulation.recording.slice(DEVICE_RATE), TONE, DEVICE_RATE) < CLICK);
});

test("speech after a clear is no underrun, although it is due before the withdrawn speech would have ended", () => {
  const sentence = (from, dueMs) =>
    Array.from({ length: 100 }, (_, i) => {
      const seq = from + i;
      return { seq, mediaMs: 20 * seq, durationMs: 20, dueMs: dueMs + 20 * i, arrivalMs: dueMs + 10 };
    });
  const frames = [...sentence(0, 1000), ...sentence(100, 2000)];
  const simulation = new Simulation({ frames, pace: "speech", wayMs: 10 }, { record: true, deviceRate: DEVICE_RATE });
  simulation.run(1500);
  assert.equal(simulation.conductor.mode, "playing");
  simulation.say({ type: "clear" });
  simulation.run(1900);
  assert.equal(simulation.conductor.mode, "silent");
  simulation.run(4500);
  const { underruns, jumps, gaps } = simulation.stats;
  assert.deepEqual({ underruns, jumps, gaps }, { underruns: 0, jumps: 0, gaps: 0 });
  assert.equal(pausesIn(simulation.recording, 0.05).length, 1);
  assert.ok(worstBreak(heardBy(simulation).samples, TONE, DEVICE_RATE) < CLICK);
});

test("when a session ends, the player plays the rest and is then drained", () => {
  const trace = steadyTrace(5);
  const simulation = listen(trace, { latency: "stable" });
  assert.ok(!simulation.conductor.isDrained);
  simulation.conductor.end();
  simulation.run(6000);
  assert.ok(simulation.conductor.isDrained);
  assert.equal(simulation.stats.underruns, 0);
});

test("the reported delay from capture to render is exact to 10.7 ms, one callback of the audio thread", () => {
  const simulation = new Simulation(steadyTrace(10), {
    record: true,
    deviceRate: DEVICE_RATE,
    // The sound is a click of one period each second.
    sound: (index) => (index % 16_000 < 16 ? tone(1000, 16_000)(index) : 0),
  });
  simulation.run(9000);
  const samples = simulation.recording;
  const at = samples.findIndex((sample, i) => i > 7.9 * DEVICE_RATE && Math.abs(sample) > 0.1);
  // On this clock, sample k * 16000 was captured at k seconds.
  const trueDelay = ((at / DEVICE_RATE) % 1) * 1000;
  assert.ok(Math.abs(simulation.stats.delayMs - trueDelay) < 11, `${simulation.stats.delayMs} for ${trueDelay}`);
});

test("a change of preset is followed without a jump", () => {
  const trace = steadyTrace(40);
  const simulation = new Simulation(trace, { latency: "low", record: true, deviceRate: DEVICE_RATE });
  simulation.run(8000);
  simulation.conductor.setLatency("stable");
  simulation.run(22_000);
  assert.ok(Math.abs(meanError(simulation, 21_000)) < 30);
  simulation.conductor.setLatency("low");
  simulation.run(36_000);
  assert.ok(Math.abs(meanError(simulation, 35_000)) < 30);
  assert.deepEqual([simulation.stats.jumps, simulation.stats.underruns], [0, 0]);
  assert.ok(worstBreak(heardBy(simulation).samples, TONE, DEVICE_RATE) < CLICK);
});
