/** Writes the traces; see README.md. Run it again after a change: node tests/player/traces/generate.js */

import { writeFileSync } from "node:fs";

const WAY_MS = 12;

/** A small generator of random numbers with a seed (Lehmer's), so that the traces are always the same. */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

/** TCP keeps the order: nothing comes before what was sent before it. */
function inOrder(dues, late) {
  let last = -Infinity;
  return dues.map((due, i) => {
    last = Math.max(last, due + Math.max(0, late[i]));
    return Math.round((last - due) * 10) / 10;
  });
}

function steady(seconds, frameMs) {
  return Array.from({ length: Math.floor((seconds * 1000) / frameMs) }, (_, i) => (i + 1) * frameMs);
}

/** What was due during a stall comes after it, as fast as the line allows. */
function stalled(dues, stalls, msPerFrame = 0.4) {
  const late = dues.map(() => 0);
  for (const { at, for: length } of stalls) {
    let n = 0;
    dues.forEach((due, i) => {
      if (due > at && due < at + length) {
        late[i] = at + length - due + n * msPerFrame;
        n += 1;
      }
    });
  }
  return late;
}

function write(name, trace) {
  const { description, pace = "live", frame_ms: frameMs, due_ms: due, late_ms: late } = trace;
  const members = { description, pace, frame_ms: frameMs, way_ms: WAY_MS, ...(due && { due_ms: due }), late_ms: late };
  const text = JSON.stringify(members, null, 1).replace(
    /\[\s+([^\]]+?)\s+\]/g,
    (_, list) => `[${list.replace(/\s+/g, "")}]`,
  );
  writeFileSync(new URL(`${name}.json`, import.meta.url), `${text}\n`);
}

const random = randomFrom(20_260);
const exponential = (mean) => -mean * Math.log(1 - random());

{
  const dues = steady(60, 20);
  const late = dues.map(() => exponential(3) + (random() < 0.01 ? 30 + 60 * random() : 0));
  write("wifi", {
    description:
      "A phone in a full room: 3 ms of jitter, and each two seconds a frame that waits 30 to 90 ms for the air.",
    frame_ms: 20,
    late_ms: inOrder(dues, late),
  });
}

{
  const dues = steady(120, 20);
  let wander = 30;
  const stalls = [
    { at: 17_000, for: 350 },
    { at: 41_000, for: 250 },
    { at: 43_500, for: 480 },
    { at: 88_000, for: 400 },
  ];
  const held = stalled(dues, stalls, 2);
  const late = dues.map((_, i) => {
    wander = Math.max(0, Math.min(110, wander + (random() - 0.5) * 3));
    return wander + exponential(8) + held[i];
  });
  write("cellular", {
    description:
      "A train: the delay wanders by 110 ms, 8 ms of jitter, and a quarter to half a second without a cell four times.",
    frame_ms: 20,
    late_ms: inOrder(dues, late),
  });
}

for (const [name, length] of [
  ["stall-300", 300],
  ["stall-3000", 3000],
]) {
  const dues = steady(40, 20);
  const stall = stalled(dues, [{ at: 20_000, for: length }]);
  const late = dues.map((_, i) => exponential(1) + stall[i]);
  write(name, {
    description: `A good line that stands still for ${length} ms after 20 s; then all of it comes at once.`,
    frame_ms: 20,
    late_ms: inOrder(dues, late),
  });
}

{
  const dues = steady(30, 20).map((due) => Math.ceil(due / 100) * 100);
  write("groups-of-five", {
    description: "A broadcaster, or a relay that coalesces, that sends five frames together each 100 ms.",
    frame_ms: 20,
    due_ms: dues,
    late_ms: inOrder(
      dues,
      dues.map(() => exponential(1)),
    ),
  });
}

for (const frameMs of [20, 256]) {
  const dues = steady(60, frameMs);
  write(`clean-${frameMs}`, {
    description: `A cable, frames of ${frameMs} ms.`,
    frame_ms: frameMs,
    late_ms: inOrder(
      dues,
      dues.map(() => exponential(0.3)),
    ),
  });
}

{
  // Sentences of speech synthesis: 15 s of sound within 0.5 s. The relay releases them 2 s before they are due.
  const dues = [];
  const late = [];
  let scheduled = 0;
  for (const [start, seconds] of [
    [0, 15],
    [16_500, 4],
    [21_100, 15],
    [37_000, 2.5],
    [39_600, 6],
  ]) {
    const count = (seconds * 1000) / 20;
    for (let i = 0; i < count; i += 1) {
      const arrived = start + (i * 500) / count;
      scheduled = Math.round(Math.max(arrived, scheduled));
      dues.push(scheduled);
      late.push(Math.round((Math.max(arrived, scheduled - 2000) - scheduled + exponential(2)) * 10) / 10);
      scheduled += 20;
    }
  }
  for (let i = 1; i < dues.length; i += 1) {
    late[i] = Math.round(Math.max(late[i], dues[i - 1] + late[i - 1] - dues[i]) * 10) / 10;
  }
  write("speech", {
    description:
      "Pace speech: sentences of up to 15 s that come in half a second each, with pauses between some of them.",
    pace: "speech",
    frame_ms: 20,
    due_ms: dues,
    late_ms: late,
  });
}
