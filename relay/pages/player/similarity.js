/**
 * Finds the piece of sound that is most similar to another piece: the search of WSOLA.
 *
 * Source: W. Verhelst, M. Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality
 * time-scale modification of speech", ICASSP 1993. Pure. It allocates nothing, so the result is in fields.
 */

/** The first search tries places and compares samples at this reduced rate. */
const COARSE_RATE = 8000;

/** Two pieces below this energy per sample (-70 dB) are silent and count as alike. */
const SILENT_POWER = 1e-7;

export class Similarity {
  #ring;

  /** @param {import("./ring.js").Ring} ring @param {number} rate Samples per second. */
  constructor(ring, rate) {
    this.#ring = ring;
    /** Distance in samples between compared samples. */
    this.stride = Math.max(1, Math.floor(rate / COARSE_RATE));
    /** The best place of the last search. */
    this.place = 0;
    /** Its similarity: 1 means the same except for loudness, and 0 or less means none. */
    this.score = 0;
  }

  /**
   * Searches the places from `first` to `last` for the one whose next `length` samples are most similar to those at
   * `model`. All samples must be in the ring.
   *
   * @param {number} model
   * @param {number} first
   * @param {number} last
   * @param {number} length
   */
  search(model, first, last, length) {
    const stride = this.stride;
    this.#scan(model, first, last, length, stride, stride);
    if (stride > 1) {
      const middle = this.place;
      this.#scan(model, Math.max(first, middle - stride + 1), Math.min(last, middle + stride - 1), length, 1, stride);
    }
  }

  /**
   * @param {number} model
   * @param {number} first
   * @param {number} last
   * @param {number} length
   * @param {number} step
   * @param {number} stride
   */
  #scan(model, first, last, length, step, stride) {
    this.score = -Infinity;
    for (let place = first; place <= last; place += step) {
      const score = this.#compare(model, place, length, stride);
      if (score > this.score) {
        this.score = score;
        this.place = place;
      }
    }
  }

  /**
   * @param {number} model
   * @param {number} place
   * @param {number} length
   * @param {number} stride
   */
  #compare(model, place, length, stride) {
    const { planes, mask } = this.#ring;
    let product = 0;
    let power = 0;
    let modelPower = 0;
    for (let channel = 0; channel < planes.length; channel += 1) {
      const plane = planes[channel];
      for (let i = 0; i < length; i += stride) {
        const wanted = plane[(model + i) & mask];
        const found = plane[(place + i) & mask];
        product += wanted * found;
        power += found * found;
        modelPower += wanted * wanted;
      }
    }
    const floor = (SILENT_POWER * length * planes.length) / stride;
    if (power < floor && modelPower < floor) {
      return 1;
    }
    return product / Math.sqrt(Math.max(power, floor) * Math.max(modelPower, floor));
  }
}

/**
 * Returns the mean square of `length` samples at `place` over all channels.
 *
 * @param {import("./ring.js").Ring} ring
 * @param {number} place
 * @param {number} length
 */
export function powerAt(ring, place, length) {
  let sum = 0;
  for (let channel = 0; channel < ring.planes.length; channel += 1) {
    const plane = ring.planes[channel];
    for (let i = 0; i < length; i += 1) {
      const sample = plane[(place + i) & ring.mask];
      sum += sample * sample;
    }
  }
  return sum / (length * ring.planes.length);
}
