/**
 * Where to cut or repeat a little sound, so that it plays faster or slower at the same pitch.
 *
 * Between two cuts the sound stays sample for sample as it was; a cut drops or repeats what its neighbour repeats
 * anyway (WSOLA with one long segment between overlaps). Silence is dropped first, because nobody hears it. Pure; it
 * allocates nothing.
 */

import { Similarity, powerAt } from "./similarity.js";

/** The least and the most that one cut drops: a period or some of a voice. */
const SHORTEST_CUT_SECONDS = 0.0025;
const LONGEST_CUT_SECONDS = 0.015;

/** One cut for so much sound that should have been dropped by now. */
const CUT_AT_SECONDS = 0.005;

/** A cut where the sound is less alike than this waits for a better place, but not for ever. */
const LIKENESS = 0.5;
const PATIENCE_SECONDS = 0.02;

const OVERLAP_SECONDS = 0.01;

/** So much of silence is dropped at once, and so much must be silent around it. */
const SILENT_CUT_SECONDS = 0.02;
const SILENT_SECONDS = 0.04;

/** Silent is what is this much (-34 dB) below the loudest of late, and below -46 dB of full scale in any case. */
const SILENT_RATIO = 4e-4;
const SILENT_POWER = 2.5e-5;

/** The loudest of late is forgotten by half in about 5 s. */
const LOUDNESS_DECAY_PER_SECOND = 0.87;

export class Wsola {
  #ring;
  #rate;
  #similarity;
  #debt = 0;
  #loudest = 0;

  /** @param {import("./ring.js").Ring} ring @param {number} rate Samples a second. */
  constructor(ring, rate) {
    this.#ring = ring;
    this.#rate = rate;
    this.#similarity = new Similarity(ring, rate);
    /** Where the last proposal leads to. */
    this.place = 0;
  }

  reset() {
    this.#debt = 0;
  }

  /**
   * Says whether to go on elsewhere now.
   *
   * @param {number} place The next sample.
   * @param {number} stretch Speed; 1 proposes nothing.
   * @param {number} by How much is to be dropped or repeated at most, give or take half of what a cut needs.
   * @param {number} hop Samples that were played since the last call.
   * @returns {number} over how many samples to blend into what stands at `this.place`; 0 to go on as it is.
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
