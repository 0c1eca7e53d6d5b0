/**
 * Sound in place of sound that did not come: the last pitch period over and over, decaying, then faded out.
 *
 * After the idea of ITU-T G.711 Appendix I. Invariants: it begins where the ring ends, without a step; after
 * `CONCEAL_SECONDS` and the fade it is exact silence; only the constructor allocates.
 */

import { Similarity } from "./similarity.js";

/** Speech is nearly periodic for about so long; repeated longer it buzzes. */
const CONCEAL_SECONDS = 0.06;

/** Then what is left of it fades to nothing in this time; so it does where nothing more is expected. */
const FADE_SECONDS = 0.02;

/** The loudness at the end of `CONCEAL_SECONDS`. */
const DECAY = 0.5;

/** The pitch of voices, from a child's to a low bass's and some periods of it. */
const SHORTEST_PERIOD_SECONDS = 0.0025;
const LONGEST_PERIOD_SECONDS = 0.02;

/** The sound that a period is judged by. */
const MODEL_SECONDS = 0.01;

/** The part of the period that is blended with the one before it, so that the end of the loop meets its beginning. */
const SEAM = 0.25;

/** What is not periodic steps where the loop begins; that step dies away in this time. */
const STEP_SECONDS = 0.001;

export class Concealment {
  #ring;
  #similarity;
  #shortest;
  #longest;
  #model;
  #plateau;
  #fade;
  #loops;
  #steps;
  #stepDecay;
  #period = 0;
  #phase = 0;
  #position = 0;
  #fadeFrom = 0;

  /** @param {import("./ring.js").Ring} ring @param {number} rate Samples a second. */
  constructor(ring, rate) {
    this.#ring = ring;
    this.#similarity = new Similarity(ring, rate);
    this.#shortest = Math.ceil(SHORTEST_PERIOD_SECONDS * rate);
    this.#longest = Math.floor(LONGEST_PERIOD_SECONDS * rate);
    this.#model = Math.floor(MODEL_SECONDS * rate);
    this.#plateau = Math.floor(CONCEAL_SECONDS * rate);
    this.#fade = Math.floor(FADE_SECONDS * rate);
    this.#stepDecay = Math.exp(-5 / (STEP_SECONDS * rate));
    this.#loops = ring.planes.map(() => new Float32Array(this.#longest));
    this.#steps = new Float32Array(ring.planes.length);
  }

  /** The length of the loop. */
  get period() {
    return this.#period;
  }

  /** Whether it has faded out. */
  get isOver() {
    return this.#position >= this.#fadeFrom + this.#fade;
  }

  /** Whether sound that comes now may go on directly: it has not begun to fade out. */
  get isFresh() {
    return this.#position < this.#fadeFrom;
  }

  /**
   * Begins behind the ring's last sample.
   *
   * @param {boolean} isExpecting Whether more sound is due; if not, it only fades out.
   */
  begin(isExpecting) {
    const ring = this.#ring;
    const { end } = ring;
    this.#position = 0;
    this.#phase = 0;
    this.#fadeFrom = isExpecting ? this.#plateau : 0;
    const longest = Math.min(this.#longest, end - ring.start - this.#model);
    if (longest < this.#shortest) {
      this.#period = 0;
      this.#fadeFrom = 0;
    } else {
      const model = end - this.#model;
      this.#similarity.search(model, model - longest, model - this.#shortest, this.#model);
      this.#period = model - this.#similarity.place;
      this.#fillLoops(end);
    }
    for (let channel = 0; channel < this.#steps.length; channel += 1) {
      const plane = ring.planes[channel];
      const last = end > ring.start ? plane[(end - 1) & ring.mask] : 0;
      const before = this.#period === 0 ? 0 : plane[(end - 1 - this.#period) & ring.mask];
      this.#steps[channel] = last - before;
    }
  }

  /**
   * Gives the sample of a channel that is `later` samples ahead; `advance` moves on.
   *
   * @param {number} channel
   * @param {number} later
   */
  sampleAt(channel, later) {
    const position = this.#position + later;
    const loop = this.#period === 0 ? 0 : this.#loops[channel][(this.#phase + later) % this.#period];
    const step = this.#steps[channel] * this.#stepDecay ** position;
    return (loop + step) * this.#gainAt(position);
  }

  /** @param {number} count */
  advance(count) {
    this.#position += count;
    this.#phase = this.#period === 0 ? 0 : (this.#phase + count) % this.#period;
  }

  /**
   * Gives how many samples to wait until the loop is most like the sound that now stands at `place` in the ring, which
   * has at least `length` samples behind it.
   *
   * @param {number} place
   * @param {number} length
   */
  bestWait(place, length) {
    const { planes, mask } = this.#ring;
    let best = 0;
    let bestProduct = -Infinity;
    const stride = this.#similarity.stride;
    for (let wait = 0; wait < this.#period; wait += 1) {
      let product = 0;
      for (let channel = 0; channel < planes.length; channel += 1) {
        const loop = this.#loops[channel];
        let phase = (this.#phase + wait) % this.#period;
        for (let i = 0; i < length; i += stride) {
          product += loop[phase] * planes[channel][(place + i) & mask];
          phase = (phase + stride) % this.#period;
        }
      }
      if (product > bestProduct) {
        bestProduct = product;
        best = wait;
      }
    }
    return best;
  }

  /** @param {number} end */
  #fillLoops(end) {
    const { planes, mask, start } = this.#ring;
    const period = this.#period;
    const seam = Math.min(Math.floor(SEAM * period), end - 2 * period - start);
    for (let channel = 0; channel < planes.length; channel += 1) {
      const plane = planes[channel];
      const loop = this.#loops[channel];
      for (let i = 0; i < period; i += 1) {
        const weight = seam > 0 ? Math.max(0, (i - (period - seam) + 1) / (seam + 1)) : 0;
        const sample = plane[(end - period + i) & mask];
        const earlier = plane[(end - 2 * period + i) & mask];
        loop[i] = weight > 0 ? sample + weight * (earlier - sample) : sample;
      }
    }
  }

  /** @param {number} position */
  #gainAt(position) {
    if (position < this.#fadeFrom) {
      return 1 - (1 - DECAY) * (position / this.#plateau);
    }
    const level = this.#fadeFrom > 0 ? DECAY : 1;
    return level * Math.max(0, 1 - (position - this.#fadeFrom) / this.#fade);
  }
}
