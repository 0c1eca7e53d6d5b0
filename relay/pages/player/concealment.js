/**
 * Conceals missing sound: repeats the last pitch period at falling volume, then fades it out.
 *
 * The idea is that of ITU-T G.711 Appendix I. Invariants: the sound continues the end of the ring without a step; after
 * `CONCEAL_SECONDS` and the fade it is exact silence; only the constructor allocates.
 */

import { Similarity } from "./similarity.js";

/** Speech is nearly periodic for about this long. Longer repetition buzzes. */
const CONCEAL_SECONDS = 0.06;

/** Duration of the final fade. If no more sound is expected, the fade begins at once. */
const FADE_SECONDS = 0.02;

/** The gain at the end of `CONCEAL_SECONDS`. */
const DECAY = 0.5;

/** Pitch periods of voices, from a child's to a low bass's. */
const SHORTEST_PERIOD_SECONDS = 0.0025;
const LONGEST_PERIOD_SECONDS = 0.02;

/** Length of the sound that is compared to find the period. */
const MODEL_SECONDS = 0.01;

/** The part of the period that is blended with the period before it, so that the loop's end fits its beginning. */
const SEAM = 0.25;

/** If the sound is not periodic, there is a step where the loop begins. The step decays within this time. */
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

  /** @param {import("./ring.js").Ring} ring @param {number} rate Samples per second. */
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

  /** The length of the loop in samples; 0 if there is none. */
  get period() {
    return this.#period;
  }

  /** Whether the sound has faded out. */
  get isOver() {
    return this.#position >= this.#fadeFrom + this.#fade;
  }

  /** Whether new sound may continue directly, because the fade has not begun. */
  get isFresh() {
    return this.#position < this.#fadeFrom;
  }

  /**
   * Starts after the ring's last sample.
   *
   * @param {boolean} isExpecting Whether more sound is due. If not, the sound fades out at once.
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
   * Returns a channel's sample that is `later` samples ahead of the position. `advance` moves the position.
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
   * Returns how many samples to wait until the loop best matches the sound at `place` in the ring. At least `length`
   * samples must follow `place`.
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
