/** Reads the traces in ../traces and generates traces that would be too long for a file. */

import { readFileSync } from "node:fs";

/**
 * @typedef {object} TraceFrame
 * @property {number} seq
 * @property {number} mediaMs
 * @property {number} durationMs
 * @property {number} dueMs
 * @property {number} arrivalMs
 * @property {import("../../../relay/pages/player/messages.js").Gap} [gap] A gap message that arrives before the frame.
 *
 * @typedef {object} Trace The input of a `Simulation`; see ../traces/README.md.
 * @property {import("../../../relay/pages/player/messages.js").Hello["pace"]} pace
 * @property {number} wayMs
 * @property {TraceFrame[]} frames
 * @property {(ms: number) => number} [arriving] Returns when a message sent at `ms` arrives.
 */

/**
 * @param {string} name Name of a file in ../traces, without its extension.
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
 * Returns the trace of a network without jitter.
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
 * Returns the trace of a listener that falls behind until the relay drops frames. Frames before the drop are late by
 * the length of the drop. Frames after it are on time and follow a gap message that reports the loss.
 *
 * @param {number} seconds
 * @param {number} from The first lost frame.
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
 * Returns the trace for a player that joins at `joinMs` and receives the earlier frames at once.
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
 * Adds one network stall to a trace. Frames that would arrive during the stall arrive after it, in order.
 *
 * @param {Trace} trace
 * @param {number} atMs When the stall begins.
 * @param {number} lengthMs
 * @param {number} [speed] Speed at which the backlog arrives, as a multiple of real time.
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
