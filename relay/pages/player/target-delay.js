/**
 * Computes the delay that keeps nearly all frames on time. Pure: time is an argument, in milliseconds.
 *
 * It follows the delay manager of WebRTC's NetEq: the target is a quantile of a histogram of relative delays that
 * gradually forgets.
 */

/** How often an observation is made. */
export const OBSERVATION_MS = 500;

const BINS = 100;
const BIN_MS = 20;

/** With two observations per second, an observation's weight halves in 20 s. */
const FORGETTING = 0.983;

/** The part of the observations that may be late. */
const LATE_PART = 0.05;

/**
 * This many observations may be late however few there are. A single delay is a stall; only a second one shows that the
 * network is slow.
 */
const LATE_AT_LEAST = 1;

/** Allowance for the time between a frame's arrival and the audio thread. */
const MARGIN_MS = 15;

const MAX_MS = 1500;

/** Minimum target for the first observations, when too little is known of the network. */
const START_MS = 155;
const FIRST_OBSERVATIONS = 6;

/** A stretch follows a falling target. A faster fall would be audible. */
const FALL_PER_SECOND_MS = 20;

/**
 * Minimum target of each latency preset.
 *
 * @type {Readonly<Record<import("./types.js").Latency, number>>}
 */
export const FLOORS_MS = Object.freeze({ low: 60, balanced: 200, stable: 600 });

/**
 * @param {unknown} name
 * @returns {name is import("./types.js").Latency} Whether a preset has this name.
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
   * Selects a preset, which takes effect at once.
   *
   * @param {import("./types.js").Latency} preset
   */
  choose(preset) {
    this.#floorMs = FLOORS_MS[preset];
    this.#targetMs = this.#wantedMs();
  }

  /**
   * Sets how long the relay gathers frames for one message. The target includes this at once, before it is observed.
   *
   * @param {number} ms
   */
  setGathering(ms) {
    this.#gatheringMs = ms;
  }

  /** The delay that the network requires, without the relay's gathering. */
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
   * Records the largest relative delay of the last `OBSERVATION_MS`.
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
   * Returns the present target. It rises at once and falls slowly.
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
