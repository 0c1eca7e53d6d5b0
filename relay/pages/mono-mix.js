/**
 * Makes one channel of a microphone's two, as loud as the louder of them. Pure.
 *
 * The mean, which browsers make, halves a voice that is on one channel only, as many interfaces deliver it. The sum
 * doubles one that is on both. So the sum gets the gain that makes its power that of the louder channel, of what was
 * heard lately: 1 for a voice on one side, a half for the same on both, and between them for anything else.
 */

/** So long what was heard counts; a gain that follows each word would be heard. */
const MEMORY_SECONDS = 10;

export class MonoMix {
  #rate;
  #powers = [0, 0, 0];
  /** @type {number | null} */
  #gain = null;

  /** @param {number} rate Samples a second. */
  constructor(rate) {
    this.#rate = rate;
  }

  /**
   * @param {Float32Array[]} channels One or two, of the same length.
   * @returns {Float32Array} the only one itself, or a new one.
   */
  mix(channels) {
    if (channels.length === 1) {
      return channels[0];
    }
    const [left, right] = channels;
    const mixed = left.map((sample, i) => sample + right[i]);
    const keep = Math.exp(-left.length / (MEMORY_SECONDS * this.#rate));
    this.#powers = [left, right, mixed].map((samples, i) => this.#powers[i] * keep + powerOf(samples));
    const [ofLeft, ofRight, ofSum] = this.#powers;
    const gain = ofSum > 0 ? Math.min(1, Math.sqrt(Math.max(ofLeft, ofRight) / ofSum)) : (this.#gain ?? 1);
    const before = this.#gain ?? gain;
    this.#gain = gain;
    const step = (gain - before) / mixed.length;
    return mixed.map((sample, i) => sample * (before + step * (i + 1)));
  }
}

/** @param {Float32Array} samples */
function powerOf(samples) {
  let power = 0;
  for (const sample of samples) {
    power += sample * sample;
  }
  return power;
}
