/**
 * Finds where to cut or repeat a little sound, so that it plays faster or slower at the same pitch.
 *
 * Between two cuts, the samples stay unchanged. A cut drops or repeats a piece that is similar to its neighbour (WSOLA
 * with one long segment between overlaps). Silence is dropped first, because that is inaudible. Pure. It allocates
 * nothing.
 */

import { Similarity, powerAt } from "./similarity.js";

/** Minimum and maximum length of a cut: one or a few pitch periods of a voice. */
const SHORTEST_CUT_SECONDS = 0.0025;
const LONGEST_CUT_SECONDS = 0.015;

/** A cut is due once this much sound should have been dropped or repeated. */
const CUT_AT_SECONDS = 0.005;

/** A cut with less similarity waits for a better place, until the overdue sound exceeds PATIENCE_SECONDS. */
const LIKENESS = 0.5;
const PATIENCE_SECONDS = 0.02;

const OVERLAP_SECONDS = 0.01;

/** Length of a cut in silence, and how much sound must be silent for it. */
const SILENT_CUT_SECONDS = 0.02;
const SILENT_SECONDS = 0.04;

/** Sound is silent if it is 34 dB below the recent maximum loudness and also below -46 dB of full scale. */
const SILENT_RATIO = 4e-4;
const SILENT_POWER = 2.5e-5;

/** The recent maximum loudness halves in about 5 s. */
const LOUDNESS_DECAY_PER_SECOND = 0.87;

export class Wsola {
  #ring;
  #rate;
  #similarity;
  #debt = 0;
  #loudest = 0;

  /** @param {import("./ring.js").Ring} ring @param {number} rate Samples per second. */
  constructor(ring, rate) {
    this.#ring = ring;
    this.#rate = rate;
    this.#similarity = new Similarity(ring, rate);
    /** The place to move to, from the last proposal. */
    this.place = 0;
  }

  reset() {
    this.#debt = 0;
  }

  /**
   * Proposes whether to move to another place now.
   *
   * @param {number} place The next sample.
   * @param {number} stretch The speed. 1 proposes nothing.
   * @param {number} by Maximum number of samples to drop or repeat, give or take half the length of a cut.
   * @param {number} hop Number of samples played since the last call.
   * @returns {number} The length of the blend into the sound at `this.place`, or 0 to stay.
   */
  propose(place, stretch, by, hop) {
    const loudness = place - hop >= this.#ring.start ? powerAt(this.#ring, place - hop, hop) : 0;
    this.#loudest = Math.max(loudness, this.#loudest * LOUDNESS_DECAY_PER_SECOND ** (hop / this.#rate));
    if (stretch === 1 || by < this.#samples(CUT_AT_SECONDS)) {
      this.#debt = 0;
      return 0;
    }
    this.#debt += (stretch - 1) * hop;
    return stretch > 1 ? this.#proposeDropping(place, by) : this.#proposeRepeating(place);
  }

  /**
   * @param {number} place
   * @param {number} by
   */
  #proposeDropping(place, by) {
    const overlap = this.#samples(OVERLAP_SECONDS);
    const held = this.#ring.end - place;
    if (held >= this.#samples(SILENT_SECONDS) && this.#isSilent(place)) {
      this.place = place + Math.min(by, this.#samples(SILENT_CUT_SECONDS));
      this.#debt = 0;
      return overlap;
    }
    const longest = Math.min(this.#samples(LONGEST_CUT_SECONDS), held - 2 * overlap);
    const shortest = this.#samples(SHORTEST_CUT_SECONDS);
    if (this.#debt < this.#samples(CUT_AT_SECONDS) || longest < shortest) {
      return 0;
    }
    this.#similarity.search(place, place + shortest, place + longest, overlap);
    return this.#settle(place, overlap);
  }

  /** @param {number} place */
  #proposeRepeating(place) {
    const overlap = this.#samples(OVERLAP_SECONDS);
    const longest = Math.min(this.#samples(LONGEST_CUT_SECONDS), place - this.#ring.start);
    const shortest = this.#samples(SHORTEST_CUT_SECONDS);
    if (-this.#debt < this.#samples(CUT_AT_SECONDS) || longest < shortest || this.#ring.end - place < overlap) {
      return 0;
    }
    this.#similarity.search(place, place - longest, place - shortest, overlap);
    return this.#settle(place, overlap);
  }

  /**
   * @param {number} place
   * @param {number} overlap
   */
  #settle(place, overlap) {
    if (this.#similarity.score < LIKENESS && Math.abs(this.#debt) < this.#samples(PATIENCE_SECONDS)) {
      return 0;
    }
    this.place = this.#similarity.place;
    this.#debt -= this.place - place;
    return overlap;
  }

  /** @param {number} place */
  #isSilent(place) {
    const power = powerAt(this.#ring, place, this.#samples(SILENT_SECONDS));
    return power <= Math.min(SILENT_POWER, SILENT_RATIO * this.#loudest);
  }

  /** @param {number} seconds */
  #samples(seconds) {
    return Math.floor(seconds * this.#rate);
  }
}
