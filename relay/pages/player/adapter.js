/**
 * Converts a stream's sound to another sample rate and number of channels. Pure.
 */

import { SincResampler } from "./resampler.js";

/** More than the longest frame (250 ms) at the highest rate. */
const CAPACITY = 16_384;

const FULL_SCALE = 32_768;

/** @typedef {{rate: number, channels: number}} SoundFormat */

/** @param {SoundFormat} a @param {SoundFormat} b */
export function isSameFormat(a, b) {
  return a.rate === b.rate && a.channels === b.channels;
}

export class Adapter {
  #resampler;
  #taken = 0;
  #given = 0;

  /**
   * @param {SoundFormat} from
   * @param {SoundFormat} to
   */
  constructor(from, to) {
    this.from = { rate: from.rate, channels: from.channels };
    this.to = { rate: to.rate, channels: to.channels };
    this.#resampler = new SincResampler({
      inputRate: from.rate,
      outputRate: to.rate,
      channels: to.channels,
      capacity: CAPACITY,
    });
  }

  /** Output samples per channel that wait for the next input. */
  get lag() {
    return Math.round((this.#taken * this.to.rate) / this.from.rate) - this.#given;
  }

  /**
   * Converts the next samples. The last millisecond waits for the next input.
   *
   * @param {Int16Array} samples Interleaved samples in the input format.
   * @returns {{samples: Int16Array<ArrayBuffer>, lead: number}} Samples in the output format. `lead` is the number of
   *   samples per channel at their beginning that belong to earlier input.
   */
  convert(samples) {
    const lead = this.lag;
    const count = Math.floor(samples.length / this.from.channels);
    this.#resampler.writePlanar(this.#planes(samples, count), count);
    this.#taken += count;
    const available = this.#resampler.available;
    const planes = Array.from({ length: this.to.channels }, () => new Float32Array(available));
    this.#resampler.read(planes, available);
    this.#given += available;
    return { samples: interleave(planes), lead };
  }

  /**
   * @param {Int16Array} samples
   * @param {number} count
   */
  #planes(samples, count) {
    const { channels } = this.from;
    const isMix = this.to.channels < channels;
    return Array.from({ length: this.to.channels }, (_, channel) => {
      const plane = new Float32Array(count);
      for (let i = 0; i < count; i += 1) {
        const first = samples[i * channels + Math.min(channel, channels - 1)];
        plane[i] = (isMix ? (first + samples[i * channels + 1]) / 2 : first) / FULL_SCALE;
      }
      return plane;
    });
  }
}

/**
 * Interleaves planes of samples between -1 and 1 as 16-bit integers, which the audio thread expects.
 *
 * @param {Float32Array[]} planes
 * @returns {Int16Array<ArrayBuffer>}
 */
export function interleave(planes) {
  const channels = planes.length;
  const samples = new Int16Array(planes[0].length * channels);
  for (let channel = 0; channel < channels; channel += 1) {
    const plane = planes[channel];
    for (let i = 0; i < plane.length; i += 1) {
      const sample = Math.round(plane[i] * FULL_SCALE);
      samples[i * channels + channel] = Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, sample));
    }
  }
  return samples;
}
