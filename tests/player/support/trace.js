/** Reads the traces of ../traces, and makes those that would be too long for a file. */

import { readFileSync } from "node:fs";

/**
 * @typedef {object} TraceFrame
 * @property {number} seq
 * @property {number} mediaMs
 * @property {number} durationMs
 * @property {number} dueMs
 * @property {number} arrivalMs
 * @property {import("../../../relay/pages/player/messages.js").Gap} [gap] Arrives before the frame.
 *
 * @typedef {object} Trace What a `Simulation` plays; see ../traces/README.md.
 * @property {import("../../../relay/pages/player/messages.js").Hello["pace"]} pace
 * @property {number} wayMs
 * @property {TraceFrame[]} frames
 * @property {(ms: number) => number} [arriving] When what is sent at `ms` arrives.
 */

/**
 * @param {string} name Of a file in ../traces.
 * @returns {Trace}
 */
export function loadTrace(name) {
  const file = readFileSync(new URL(`../traces/${name}.json`, import.meta.url), "utf8");
  const { pace, frame_ms: frameMs, way_ms: wayMs, due_ms: dues, late_ms: late } = JSON.parse(file);
  const frames = late.map((lateMs, i) => {
    const dueMs = dues?.[i] ?? (i + 1) * frameMs;
    return { seq: i, mediaMs: i * frameMs, durationMs: frameMs, dueMs, arrivalMs: dueMs + wayMs + lateMs };
  });
  return { pace, wayMs, frames };
}

/**
 * Makes the trace of a line without jitter.
 *
 * @param {number} seconds
 * @param {object} [options]
 * @param {number} [options.frameMs]
 * @param {number} [options.ppm] How much faster than its rate the broadcaster's sound card runs.
 * @returns {Trace}
 */
export function steadyTrace(seconds, { frameMs = 20, ppm = 0 } = {}) {
  const wayMs = 12;
  const frames = Array.from({ length: Math.floor((seconds * 1000) / frameMs) }, (_, i) => {
    const dueMs = ((i + 1) * frameMs) / (1 + ppm * 1e-6);
    return { seq: i, mediaMs: i * frameMs, durationMs: frameMs, dueMs, arrivalMs: dueMs + wayMs };
  });
  return { pace: "live", wayMs, frames };
}

/**
 * Has a relay drop frames of a listener that is behind: all frames up to the drop are `durationMs` late, those after it
 * are in time, and a gap before them tells what is lost.
 *
 * @param {number} seconds
 * @param {number} from The first frame that is lost.
 * @param {number} count
 * @returns {Trace}
 */
export function droppedTrace(seconds, from, count) {
  const { frames, ...rest } = steadyTrace(seconds);
  const { durationMs } = frames[0];
  const lostMs = count * durationMs;
  /** @type {TraceFrame["gap"]} */
  const gap = {
    type: "gap",
    epoch: 7,
    from_seq: from,
    to_seq: from + count - 1,
    duration_ms: lostMs,
    reason: "overflow",
  };
  const before = frames.slice(0, from).map((frame) => ({ ...frame, arrivalMs: frame.arrivalMs + lostMs }));
  const [first, ...after] = frames.slice(from + count);
  return { ...rest, frames: [...before, { ...first, gap }, ...after] };
}

/**
 * The same network for a player that comes in at `joinMs`, and is given what was due before at once.
 *
 * @param {Trace} trace
 * @param {number} joinMs
 * @param {number} [firstMs] When the first frame arrives.
 * @returns {Trace}
 */
export function joined({ frames, ...rest }, joinMs, firstMs = 2) {
  const moved = frames.map((frame) => {
    const dueMs = frame.dueMs - joinMs;
    return { ...frame, dueMs, arrivalMs: Math.max(firstMs, dueMs + rest.wayMs) };
  });
  return { ...rest, frames: moved };
}

/**
 * Has a network stand still once: what would have come meanwhile comes behind it, in order.
 *
 * @param {Trace} trace
 * @param {number} atMs When it begins.
 * @param {number} lengthMs
 * @param {number} [speed] How much faster than it is spoken the backlog comes.
 * @returns {Trace}
 */
export function stalled({ frames, ...rest }, atMs, lengthMs, speed = Infinity) {
  const endMs = atMs + lengthMs;
  let freeMs = endMs;
  const late = frames.map((frame) => {
    if (frame.arrivalMs < atMs || frame.arrivalMs >= freeMs) {
      return frame;
    }
    const arrivalMs = freeMs;
    freeMs += frame.durationMs / speed;
    return { ...frame, arrivalMs };
  });
  return { ...rest, frames: late, arriving: (ms) => (ms < atMs ? ms : Math.max(ms, endMs)) };
}
