/**
 * Samples of every channel by their place in the stream, as far back as the ring reaches.
 *
 * Places count from the beginning of the stream and never wrap (a 53-bit number lasts for ever). Invariants: only the
 * constructor allocates; `start <= end`, and `end - start` is at most the capacity: what is too much drops the oldest.
 */

const FULL_SCALE = 32_768;

export class Ring {
  #mask;
  #capacity;

  /**
   * @param {number} channels
   * @param {number} capacity Samples of each channel.
   */
  constructor(channels, capacity) {
    const size = 2 ** Math.ceil(Math.log2(capacity));
    this.#mask = size - 1;
    this.#capacity = capacity;
    /** The rings of the channels, to be read as `ring.planes[channel][place & ring.mask]` where speed matters. */
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
   * Joins two pieces that do not belong together and meet at `place`, without a step: `skip` samples behind the place
   * are dropped, the `length` samples behind those are blended over the `length` before it, and the rest moves up.
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
