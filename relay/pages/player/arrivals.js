/**
 * Measures how late frames arrive against the timeline on which they should play, the line. Pure: all times are
 * arguments, in milliseconds.
 *
 * In pace `live`, a frame's place on the line is its media time, so the measurement includes the jitter between the
 * broadcaster and the relay. In pace `speech`, it is its due time, so a frame that the relay sends ahead is not early.
 * `baseMs` is the least difference between a frame's arrival and its place on the line.
 */

import { OBSERVATION_MS } from "./target-delay.js";
import { WindowMinimum } from "./window-minimum.js";

/** Long enough to contain a fast frame despite jitter, and short enough to follow a change of route. */
const BASE_WINDOW_MS = 2000;

/** If the base falls by more than this, which is more than noise, a backlog is still arriving. */
const FALL_MS = 5;

/** A frame that is later than this belongs to the same stall as the frame before it. */
const IN_TIME_MS = 50;

/** As much as a relay buffers for a listener. A delay that lasts longer is more than one stall. */
const LONGEST_OBSERVATION_MS = 10_000;

export class Arrivals {
  #clock;
  #isSpeech = false;
  #isSameLine = false;
  #base = new WindowMinimum(BASE_WINDOW_MS);
  /** Times from a frame's due time at the relay to its arrival. */
  #way = new WindowMinimum(BASE_WINDOW_MS);
  #gatheringMs = 0;
  /** @type {number | null} */
  #observedFromMs = null;
  #slowestMs = -Infinity;
  #latestMs = -Infinity;
  #fellAtMs = -Infinity;

  /** @param {import("./relay-clock.js").RelayClock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** The least difference between arrival and place on the line; null if unknown. */
  get baseMs() {
    if (this.#isSpeech) {
      return this.#clock.fastestWayMs;
    }
    return this.#base.value === null ? null : this.#base.value - this.#heldMs;
  }

  /**
   * Sets how long the relay gathers frames for one message.
   *
   * @param {number} ms
   */
  setGathering(ms) {
    this.#gatheringMs = ms;
  }

  /**
   * How long the relay holds even the last frame of a message while it waits for another one. Without gathering, frames
   * would arrive earlier by this time.
   */
  get #heldMs() {
    const { fastestWayMs } = this.#clock;
    const wayMs = this.#way.value;
    if (fastestWayMs === null || wayMs === null) {
      return 0;
    }
    return Math.min(this.#gatheringMs, Math.max(0, wayMs - fastestWayMs));
  }

  /** When the base last fell. It falls while a backlog arrives, because each of its frames is less late. */
  get fellAtMs() {
    return this.#fellAtMs;
  }

  /**
   * Restarts the measurement, for a new line or after a pause that must not count as delay.
   *
   * @param {boolean} isSpeech
   * @param {boolean} isSameLine
   */
  restart(isSpeech, isSameLine) {
    this.#isSpeech = isSpeech;
    this.#isSameLine = isSameLine;
    this.#base.clear();
    this.#way.clear();
    this.#observedFromMs = null;
    this.#slowestMs = -Infinity;
    this.#fellAtMs = -Infinity;
  }

  /**
   * Records the arrival of a frame.
   *
   * @param {number} lineMs Its place on the line.
   * @param {number} dueMs Its due time on the relay's clock, unwrapped.
   * @param {number} arrivalMs
   * @param {boolean} isPast Whether it was due before this connection began. Its delay then does not count.
   */
  note(lineMs, dueMs, arrivalMs, isPast) {
    if (!this.#isSpeech) {
      this.#noteBase(lineMs, dueMs, arrivalMs, isPast);
    }
    if (isPast) {
      return;
    }
    this.#way.add(arrivalMs - dueMs, arrivalMs);
    this.#observedFromMs ??= arrivalMs;
    this.#latestMs = arrivalMs - lineMs;
    this.#slowestMs = Math.max(this.#slowestMs, this.#latestMs);
  }

  /**
   * Returns the largest delay relative to the fastest frame, once per `OBSERVATION_MS` with frames; otherwise null. A
   * stall and its backlog count as one observation, up to `LONGEST_OBSERVATION_MS`.
   *
   * @param {number} nowMs
   */
  takeObservation(nowMs) {
    const { baseMs } = this;
    if (this.#observedFromMs === null || baseMs === null) {
      return null;
    }
    const leastMs = this.#isCatchingUp(baseMs, nowMs) ? LONGEST_OBSERVATION_MS : OBSERVATION_MS;
    if (nowMs - this.#observedFromMs < leastMs) {
      return null;
    }
    const observation = Math.max(0, this.#slowestMs - baseMs);
    this.#observedFromMs = null;
    this.#slowestMs = -Infinity;
    return observation;
  }

  /**
   * @param {number} baseMs
   * @param {number} nowMs
   */
  #isCatchingUp(baseMs, nowMs) {
    const isFalling = nowMs - this.#fellAtMs < OBSERVATION_MS;
    return !this.#isSpeech && (isFalling || this.#latestMs - baseMs > IN_TIME_MS);
  }

  /**
   * @param {number} lineMs
   * @param {number} dueMs
   * @param {number} arrivalMs
   * @param {boolean} isPast
   */
  #noteBase(lineMs, dueMs, arrivalMs, isPast) {
    const before = this.#base.value;
    const isLate = isPast || (before === null && this.#isSameLine);
    if (isLate && this.#clock.fastestWayMs !== null) {
      // The first frame after a stall is itself late, and the newest frame from before the join is up to a frame old.
      // The relay's clock shows by how much.
      this.#base.add(Math.min(this.#clock.fastestWayMs + dueMs, arrivalMs) - lineMs, arrivalMs);
    }
    this.#base.add(arrivalMs - lineMs, arrivalMs);
    const after = this.#base.value;
    if (before !== null && after !== null && after < before - FALL_MS) {
      this.#fellAtMs = arrivalMs;
    }
  }
}
