/**
 * How late frames arrive, against the line on which they should be played. Pure: all times are in milliseconds.
 *
 * A frame's place on the line is its media time in pace `live` (so that jitter on both ways is seen) and its due time in
 * pace `speech` (so that what comes early is not early but has a lead). What matters is `baseMs`: the line shifted by it
 * is when the fastest frame arrives.
 */

import { OBSERVATION_MS } from "./target-delay.js";
import { WindowMinimum } from "./window-minimum.js";

/** Long enough for a fast frame among jittered ones, short enough to follow a route that changed. */
const BASE_WINDOW_MS = 2000;

/** A fall of the base beyond the noise: a backlog is still arriving. */
const FALL_MS = 5;

/** A frame that is later than this belongs to what held up the one before it. */
const IN_TIME_MS = 50;

/** As much as a relay holds for a listener; a delay that lasts longer is more than one stall. */
const LONGEST_OBSERVATION_MS = 10_000;

export class Arrivals {
  #clock;
  #isSpeech = false;
  #isSameLine = false;
  #base = new WindowMinimum(BASE_WINDOW_MS);
  /** From when a frame was due at the relay until it is here. */
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

  /** The shift of the line; null when it is not known. */
  get baseMs() {
    if (this.#isSpeech) {
      return this.#clock.fastestWayMs;
    }
    return this.#base.value === null ? null : this.#base.value - this.#heldMs;
  }

  /**
   * Notes how long the relay gathers frames for one message.
   *
   * @param {number} ms
   */
  setGathering(ms) {
    this.#gatheringMs = ms;
  }

  /**
   * How long the relay keeps even the last frame of a message, because it waits for one more that does not come in time.
   * What comes to a listener without delay would be so much earlier.
   */
  get #heldMs() {
    const { fastestWayMs } = this.#clock;
    const wayMs = this.#way.value;
    if (fastestWayMs === null || wayMs === null) {
      return 0;
    }
    return Math.min(this.#gatheringMs, Math.max(0, wayMs - fastestWayMs));
  }

  /** When the base fell last: the frames of a backlog arrive ever earlier. */
  get fellAtMs() {
    return this.#fellAtMs;
  }

  /**
   * Begins to measure anew: a new line, or the same one after a pause that must not count as delay.
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
   * Notes a frame.
   *
   * @param {number} lineMs Its place on the line.
   * @param {number} dueMs On the relay's clock, unwrapped.
   * @param {number} arrivalMs
   * @param {boolean} isPast Whether it was due before this connection began, so that its delay says nothing.
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
   * Gives the largest delay against the fastest frame, once each `OBSERVATION_MS` with frames; otherwise null. A stall and
   * the backlog behind it are one observation, however long the backlog takes to arrive.
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
      // The first one after a stall is late itself, and the newest of before the join is up to a frame old; the relay's
      // clock tells by how much.
      this.#base.add(Math.min(this.#clock.fastestWayMs + dueMs, arrivalMs) - lineMs, arrivalMs);
    }
    this.#base.add(arrivalMs - lineMs, arrivalMs);
    const after = this.#base.value;
    if (before !== null && after !== null && after < before - FALL_MS) {
      this.#fellAtMs = arrivalMs;
    }
  }
}
