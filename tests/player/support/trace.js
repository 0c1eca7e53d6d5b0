/** Reads the traces of ../traces, and makes those that would be too long for a file. */

import { readFileSync } from "node:fs";

/**
 * @param {string} name Of a file in ../traces.
 * @returns {{pace: string, wayMs: number, frames: object[]}} for a `Simulation`.
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
 */
export function droppedTrace(seconds, from, count) {
  const { frames, ...rest } = steadyTrace(seconds);
  const { durationMs } = frames[0];
  const lostMs = count * durationMs;
  const gap = { type: "gap", epoch: 7, from_seq: from, to_seq: from + count - 1, duration_ms: lostMs, reason: "overflow" };
  const before = frames.slice(0, from).map((frame) => ({ ...frame, arrivalMs: frame.arrivalMs + lostMs }));
  const [first, ...after] = frames.slice(from + count);
  return { ...rest, frames: [...before, { ...first, gap }, ...after] };
}
