/**
 * How much delay keeps nearly all frames in time. Pure: time is an argument, in milliseconds.
 *
 * After the delay manager of WebRTC's NetEq: a histogram of relative delays that forgets, and a quantile of it.
 */

/** How often an observation is made. */
export const OBSERVATION_MS = 500;

const BINS = 100;
const BIN_MS = 20;

/** With one observation each half second, half of an observation is forgotten in 20 s. */
const FORGETTING = 0.983;

/** The part of the observations that may be late. */
const LATE_PART = 0.05;

/**
 * So many of them may be late however few there are. One of the first ones would be more than their part, but one delay
 * is a stall; only two of them show what the network is like.
 */
const LATE_AT_LEAST = 1;

/** For what is between an arrival and the audio thread. */
const MARGIN_MS = 15;

const MAX_MS = 1500;

/** The least target until there are so many observations: before, too little is known. */
const START_MS = 155;
const FIRST_OBSERVATIONS = 6;

/** A target that falls is followed by a stretch; faster than this it would be heard. */
const FALL_PER_SECOND_MS = 20;

/**
 * The least targets that a person can choose from.
 *
 * @type {Readonly<Record<import("./types.js").Latency, number>>}
 */
export const FLOORS_MS = Object.freeze({ low: 60, balanced: 200, stable: 600 });

/**
 * @param {unknown} name
 * @returns {name is import("./types.js").Latency} whether a preset has this name.
 */
export function isLatency(name) {
  return Object.keys(FLOORS_MS).some((preset) => preset === name);
}

export class TargetDelay {
  #bins = new Float64Array(BINS);
  #observations = 0;
  #floorMs;
  #gatheringMs = 0;
  #targetMs;
  /** @type {number | null} */
  #askedMs = null;

  /** @param {import("./types.js").Latency} preset */
  constructor(preset) {
    this.#floorMs = FLOORS_MS[preset];
    this.#targetMs = this.#wantedMs();
  }

  /**
   * A person's choice holds at once.
   *
   * @param {import("./types.js").Latency} preset
   */
  choose(preset) {
    this.#floorMs = FLOORS_MS[preset];
    this.#targetMs = this.#wantedMs();
  }

  /**
   * Notes how long the relay gathers frames for one message. The target includes it at once, and not only as it shows.
   *
   * @param {number} ms
   */
  setGathering(ms) {
    this.#gatheringMs = ms;
  }

  /** The delay that the network needs, without what the relay gathers. */
  get networkMs() {
    const weight = this.#bins.reduce((sum, of) => sum + of, 0);
    const mayBeLate = Math.max(LATE_PART * weight, LATE_AT_LEAST) + 1e-9;
    let bin = BINS - 1;
    let late = this.#bins[bin];
    while (bin > 0 && late <= mayBeLate) {
      bin -= 1;
      late += this.#bins[bin];
    }
    return (bin + 1) * BIN_MS + MARGIN_MS;
  }

  /**
   * Notes the largest relative delay of the last `OBSERVATION_MS`.
   *
   * @param {number} delayMs
   */
  observe(delayMs) {
    this.#observations += 1;
    const bin = Math.min(BINS - 1, Math.max(0, Math.floor((delayMs - this.#gatheringMs) / BIN_MS)));
    for (let i = 0; i < BINS; i += 1) {
      this.#bins[i] *= FORGETTING;
    }
    this.#bins[bin] += 1;
  }

  /**
   * Gives the target now: it rises at once, and falls slowly.
   *
   * @param {number} nowMs
   */
  at(nowMs) {
    const elapsedMs = nowMs - (this.#askedMs ?? nowMs);
    this.#askedMs = nowMs;
    this.#targetMs = Math.max(this.#wantedMs(), this.#targetMs - (FALL_PER_SECOND_MS * elapsedMs) / 1000);
    return this.#targetMs;
  }

  #wantedMs() {
    const leastMs = this.#observations < FIRST_OBSERVATIONS ? Math.max(START_MS, this.#floorMs) : this.#floorMs;
    return Math.min(MAX_MS, Math.max(leastMs, this.networkMs + this.#gatheringMs));
  }
}
