/**
 * A ring buffer with the latest samples of every channel, addressed by their place in the stream.
 *
 * Places count from the beginning of the stream and never wrap, because 53 bits suffice. Invariants: only the
 * constructor allocates; `start <= end`; `end - start` is at most the capacity, beyond which the oldest is dropped.
 */

const FULL_SCALE = 32_768;

export class Ring {
  #mask;
  #capacity;

  /**
   * @param {number} channels
   * @param {number} capacity Samples per channel.
   */
  constructor(channels, capacity) {
    const size = 2 ** Math.ceil(Math.log2(capacity));
    this.#mask = size - 1;
    this.#capacity = capacity;
    /** The channels' samples. Where speed matters, read `ring.planes[channel][place & ring.mask]`. */
    this.planes = Array.from({ length: channels }, () => new Float32Array(size));
    this.start = 0;
    this.end = 0;
  }

  get mask() {
    return this.#mask;
  }

  /**
   * Appends interleaved 16-bit samples.
   *
   * @param {Int16Array} samples
   */
  append(samples) {
    const channels = this.planes.length;
    const count = Math.floor(samples.length / channels);
    for (let channel = 0; channel < channels; channel += 1) {
      const plane = this.planes[channel];
      for (let i = 0; i < count; i += 1) {
        plane[(this.end + i) & this.#mask] = samples[i * channels + channel] / FULL_SCALE;
      }
    }
    this.#advance(count);
  }

  /** @param {number} count */
  appendSilence(count) {
    for (const plane of this.planes) {
      for (let i = 0; i < count; i += 1) {
        plane[(this.end + i) & this.#mask] = 0;
      }
    }
    this.#advance(count);
  }

  /**
   * Joins two unrelated pieces of sound that meet at `place` without a step. Drops `skip` samples after the place,
   * blends the next `length` samples over the `length` samples before the place, and moves the rest up.
   *
   * @param {number} place
   * @param {number} length
   * @param {number} skip
   */
  join(place, length, skip) {
    const moved = length + skip;
    for (const plane of this.planes) {
      for (let i = 0; i < length; i += 1) {
        const weight = (i + 0.5) / length;
        const before = (place - length + i) & this.#mask;
        plane[before] += weight * (plane[(place + skip + i) & this.#mask] - plane[before]);
      }
      for (let i = place; i < this.end - moved; i += 1) {
        plane[i & this.#mask] = plane[(i + moved) & this.#mask];
      }
    }
    this.end -= moved;
  }

  /**
   * Forgets everything before `place`.
   *
   * @param {number} place
   */
  forget(place) {
    this.start = Math.max(this.start, Math.min(place, this.end));
  }

  /** @param {number} count */
  #advance(count) {
    this.end += count;
    this.start = Math.max(this.start, this.end - this.#capacity);
  }
}
