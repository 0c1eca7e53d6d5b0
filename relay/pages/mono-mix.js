/**
 * Mixes a microphone's two channels into one that is as loud as the louder channel. Pure.
 *
 * Browsers average the channels, which halves the amplitude of a voice that is on one channel only; many audio
 * interfaces deliver voices like that. A sum doubles the amplitude of a voice that is on both channels. This mix is a
 * sum with a gain that matches its recent power to the recent power of the louder channel. The gain is 1 for a voice on
 * one channel, a half for the same voice on both, and in between for anything else.
 */

/** Time constant of the recent power. A gain that followed each word would be audible. */
const MEMORY_SECONDS = 10;

export class MonoMix {
  #rate;
  #powers = [0, 0, 0];
  /** @type {number | null} */
  #gain = null;

  /** @param {number} rate Samples per second. */
  constructor(rate) {
    this.#rate = rate;
  }

  /**
   * @param {Float32Array[]} channels One or two channels of the same length.
   * @returns {Float32Array} The mix: a new array, or the input itself if there is only one channel.
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
