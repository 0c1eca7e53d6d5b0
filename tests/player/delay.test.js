/** Tests the target delay, the base of arrivals, the relay's clock and the ladder. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Arrivals } from "../../relay/pages/player/arrivals.js";
import { Ladder } from "../../relay/pages/player/ladder.js";
import { RelayClock } from "../../relay/pages/player/relay-clock.js";
import { TargetDelay } from "../../relay/pages/player/target-delay.js";
import { WindowMinimum } from "../../relay/pages/player/window-minimum.js";

/** Observes the same delay for a while, and returns the target at the end. */
function settled(target, delayMs, seconds, fromMs = 0) {
  let found;
  for (let ms = fromMs; ms < fromMs + seconds * 1000; ms += 500) {
    target.observe(delayMs);
    found = target.at(ms);
  }
  return found;
}

test("the target begins at 150 ms or the preset's floor", () => {
  assert.equal(new TargetDelay("low").at(0), 155);
  assert.equal(new TargetDelay("balanced").at(0), 200);
  assert.equal(new TargetDelay("stable").at(0), 600);
});

test("the target falls to its floor at 20 ms per second, and rises at once", () => {
  const target = new TargetDelay("low");
  settled(target, 5, 4);
  const before = target.at(4000);
  assert.ok(Math.abs(before - target.at(5000) - 20) < 0.01);
  assert.equal(settled(target, 5, 20, 5000), 60);
  const risen = settled(target, 390, 4, 25_000);
  assert.equal(risen, 415);
  assert.ok(settled(target, 5, 1, 29_000) > 390);
});

test("one late frame in sixty does not move the target, but one in ten does", () => {
  const rare = new TargetDelay("low");
  settled(rare, 5, 30);
  rare.observe(1900);
  assert.equal(rare.at(30_000), 60);
  const often = new TargetDelay("low");
  for (let i = 0; i < 60; i += 1) {
    often.observe(i % 10 === 9 ? 290 : 5);
  }
  assert.equal(often.at(30_000), 315);
});

test("one late frame does not move a new target, but two do", () => {
  for (const before of [0, 1, 4, 8, 16]) {
    const target = new TargetDelay("low");
    settled(target, 5, before / 2);
    const least = target.at(before * 500);
    target.observe(1900);
    assert.equal(target.at(before * 500), least);
    target.observe(390);
    assert.equal(target.at(before * 500), 415);
  }
});

test("the target never exceeds 1.5 s", () => {
  assert.equal(settled(new TargetDelay("stable"), 60_000, 30), 1500);
});

test("a listener's choice takes effect at once", () => {
  const target = new TargetDelay("stable");
  settled(target, 5, 10);
  target.choose("low");
  assert.equal(target.at(10_000), 60);
});

test("a minimum is forgotten when it leaves the window", () => {
  const minimum = new WindowMinimum(2000);
  assert.equal(minimum.value, null);
  for (const [value, at] of [
    [5, 0],
    [9, 500],
    [7, 1000],
    [8, 1500],
  ]) {
    minimum.add(value, at);
  }
  assert.equal(minimum.value, 5);
  minimum.add(9, 2100);
  assert.equal(minimum.value, 7);
  minimum.add(9, 3600);
  assert.equal(minimum.value, 9);
});

test("a frame's delay is relative to the fastest frame of the last two seconds", () => {
  const arrivals = new Arrivals(new RelayClock());
  arrivals.restart(false, false);
  let observation = null;
  for (let i = 0; i <= 40; i += 1) {
    const lineMs = i * 20;
    const atMs = 1000 + lineMs + (i === 17 ? 44 : 3);
    arrivals.note(lineMs, 0, atMs, false);
    observation ??= arrivals.takeObservation(atMs);
  }
  assert.equal(arrivals.baseMs, 1003);
  assert.equal(observation, 41);
});

test("in pace speech, a frame is late only if it comes after its due time", () => {
  const clock = new RelayClock();
  clock.hear(50_000, 1010);
  const arrivals = new Arrivals(clock);
  arrivals.restart(true, false);
  assert.equal(arrivals.baseMs, 1010 - 50_000);
  arrivals.note(52_000, 52_000, 1012, false);
  arrivals.note(52_020, 52_020, 1600, false);
  assert.equal(arrivals.takeObservation(1600), 0);
  arrivals.note(52_040, 52_040, 52_040 - 48_990 + 30, false);
  arrivals.note(52_060, 52_060, 52_060 - 48_990 + 600, false);
  assert.equal(arrivals.takeObservation(5000), 600);
});

test("frames from before the join do not count as late", () => {
  const arrivals = new Arrivals(new RelayClock());
  arrivals.restart(false, false);
  arrivals.note(0, 0, 1000, true);
  arrivals.note(200, 200, 1000, false);
  arrivals.note(800, 800, 1600, false);
  assert.equal(arrivals.takeObservation(1600), 0);
});

test("the exchange with the shortest round trip sets the relay's clock, even across a wraparound", () => {
  const clock = new RelayClock();
  clock.exchange(1000, 0xffff_fff0, 1040);
  clock.exchange(3000, 2004 - 16, 3008);
  clock.exchange(5000, 4100 - 16, 5300);
  assert.ok(Math.abs(clock.relayNow(3004) - (2 ** 32 + 2004 - 16)) < 1e-6);
  assert.equal(clock.unwrap(2), 2 ** 32 + 2);
  assert.equal(clock.unwrap(0xffff_ffff), 2 ** 32 - 1);
});

test("the times of another clock continue those of the last clock", () => {
  const clock = new RelayClock();
  clock.greet("one", 50_000, 1010);
  clock.exchange(2000, 51_005, 2010);
  assert.equal(clock.unwrap(52_000), 52_000);
  clock.greet("one", 53_001, 4012);
  assert.equal(clock.moves, 0);
  // The difference of the clocks for the fastest message so far is 1005 - 50_000.
  for (const [id, wireMs] of /** @type {const} */ ([
    ["two", 54_305],
    ["three", 0xffff_fff0],
  ])) {
    clock.greet(id, wireMs, 5010);
    assert.equal(clock.unwrap(wireMs), 54_005);
    assert.equal(clock.unwrap((wireMs + 100) >>> 0), 54_105);
    assert.equal(clock.fastestWayMs, 1005 - 50_000 - 0);
    // The last exchange with the old clock counts until the first exchange with the new clock.
    assert.equal(clock.relayNow(5010), 54_010);
  }
  assert.equal(clock.moves, 2);
  clock.exchange(5010, 0xffff_fff0 + 15, 5030);
  assert.equal(clock.relayNow(5030), 54_030);
});

test("a relay that names no clock has the same clock, unless its time differs by a second", () => {
  const clock = new RelayClock();
  clock.greet(undefined, 50_000, 1000);
  clock.greet(undefined, 50_700, 2000);
  clock.greet("one", 51_900, 3000);
  assert.equal(clock.moves, 0);
  clock.greet("one", 9000, 4000);
  clock.greet(undefined, 700_000, 5000);
  assert.equal(clock.moves, 2);
  assert.equal(clock.unwrap(700_000), 54_000);
});

/** Runs a ladder on a simulated delay, and returns its decisions. */
function climb(ladder, startMs, seconds, { targetMs = 200, driftPpm = 0, noiseMs = 0, fromMs = 0 } = {}) {
  let errorMs = startMs;
  const rows = [];
  for (let ms = 0; ms < seconds * 1000; ms += 50) {
    const noise = (((ms * 7919) % 101) / 50 - 1) * noiseMs;
    ladder.decide(errorMs + noise, targetMs, fromMs + ms);
    const rate = ladder.stretch * (1 + ladder.trimPpm * 1e-6);
    rows.push({ ms, errorMs, rate, stretch: ladder.stretch, trimPpm: ladder.trimPpm });
    errorMs += 50 * (1 + driftPpm * 1e-6 - rate);
  }
  return rows;
}

test("a small error is corrected by an inaudible change of rate", () => {
  const rows = climb(new Ladder(), 20, 120, { noiseMs: 5 });
  assert.ok(rows.every(({ stretch, trimPpm }) => stretch === 1 && Math.abs(trimPpm) <= 500));
  assert.ok(Math.abs(rows.at(-1).errorMs) < 3);
});

test("the ladder learns the drift, and then there is no error", () => {
  for (const driftPpm of [200, -200]) {
    const ladder = new Ladder();
    const rows = climb(ladder, 0, 600, { driftPpm, noiseMs: 5 });
    assert.ok(rows.every(({ errorMs }) => Math.abs(errorMs) < 4));
    assert.ok(Math.abs(ladder.driftPpm - driftPpm) < 30, `${ladder.driftPpm}`);
  }
});

test("after a second, a lag is played 5 % faster, and a large one 10 %", () => {
  const rows = climb(new Ladder(), 150, 6);
  assert.ok(rows.filter(({ ms }) => ms < 1000).every(({ stretch }) => stretch === 1));
  assert.ok(rows.some(({ stretch }) => stretch === 1.05) && !rows.some(({ stretch }) => stretch === 1.1));
  assert.ok(Math.abs(rows.at(-1).errorMs) < 20);
  const large = climb(new Ladder(), 700, 20);
  assert.ok(large.some(({ stretch }) => stretch === 1.1));
  assert.ok(Math.abs(large.at(-1).errorMs) < 20);
});

test("sound that is too early is played slower", () => {
  const rows = climb(new Ladder(), -100, 5);
  assert.ok(rows.some(({ stretch }) => stretch === 0.95));
  assert.ok(rows.every(({ stretch }) => stretch <= 1));
  assert.ok(Math.abs(rows.at(-1).errorMs) < 20);
});

test("a jump is not followed by another one within three seconds", () => {
  const ladder = new Ladder();
  assert.ok(ladder.mayJump(0));
  ladder.noteJump(1000);
  assert.ok(!ladder.mayJump(3999));
  assert.ok(ladder.mayJump(4000));
});
