/**
 * Resamples through a windowed sinc of 32 taps: a ring that is written at one rate and read at another.
 *
 * Invariants: reads and writes allocate nothing. The ring holds at most its capacity; beyond that, it drops the oldest
 * samples. With equal rates and no trim, it copies samples exactly.
 *
 * A table contains the kernel at `PHASES` positions between two samples. Between these, the kernel is interpolated
 * linearly. The error is about -94 dB, below the quantization of 16-bit samples.
 */

const PHASES = 256;

/** Zero crossings of the kernel on each side of its centre. */
const CROSSINGS = 16;

/** Stop band at about -80 dB, with a transition of 16 % of the lower rate. */
const KAISER_BETA = 8;

/** Centre of the transition band, as a part of the lower Nyquist frequency. Most of what would alias is above it. */
const ROLL_OFF = 0.9;

export class SincResampler {
  #nominalStep;
  #step;
  #half;
  #taps;
  #table;
  #rings;
  #mask;
  #capacity;
  #position = 0;
  #written = 0;

  /**
   * @param {object} options
   * @param {number} options.inputRate Samples per second of the input.
   * @param {number} options.outputRate Samples per second of the output.
   * @param {number} options.channels
   * @param {number} options.capacity Maximum number of unread input samples.
   */
  constructor({ inputRate, outputRate, channels, capacity }) {
    const scale = Math.min(1, outputRate / inputRate);
    const cutoff = inputRate === outputRate ? 1 : scale * ROLL_OFF;
    this.#nominalStep = inputRate / outputRate;
    this.#step = this.#nominalStep;
    this.#half = Math.ceil(CROSSINGS / scale);
    this.#taps = 2 * this.#half;
    this.#table = makeTable(this.#half, cutoff);
    this.#capacity = capacity;
    const size = 2 ** Math.ceil(Math.log2(capacity + this.#taps));
    this.#mask = size - 1;
    this.#rings = Array.from({ length: channels }, () => new Float32Array(size));
  }

  /** Number of unread input samples. */
  get held() {
    return this.#written - this.#position;
  }

  /** Number of output samples that can be read now. The last few input samples wait for the next ones. */
  get available() {
    const readable = this.#written - this.#half - this.#position;
    return Math.max(0, Math.ceil(readable / this.#step - 1e-9));
  }

  /**
   * Returns how many input samples must be written before `count` output samples can be read.
   *
   * @param {number} count
   */
  missing(count) {
    if (count === 0) {
      return 0;
    }
    const lastNeeded = Math.floor(this.#position + (count - 1) * this.#step) + this.#half;
    return Math.max(0, lastNeeded + 1 - this.#written);
  }

  /**
   * Changes the speed of reading slightly, from the next sample on.
   *
   * @param {number} ppm Parts per million. Positive values read faster.
   */
  trim(ppm) {
    this.#step = this.#nominalStep * (1 + ppm * 1e-6);
  }

  /**
   * Writes samples between -1 and 1.
   *
   * @param {Float32Array[]} inputs One array per channel.
   * @param {number} count Samples per channel.
   */
  writePlanar(inputs, count) {
    for (let channel = 0; channel < this.#rings.length; channel += 1) {
      const ring = this.#rings[channel];
      const input = inputs[channel];
      for (let i = 0; i < count; i += 1) {
        ring[(this.#written + i) & this.#mask] = input[i];
      }
    }
    this.#advance(count);
  }

  /**
   * Writes mono samples between -1 and 1.
   *
   * @param {Float32Array} samples
   */
  write(samples) {
    const ring = this.#rings[0];
    for (let i = 0; i < samples.length; i += 1) {
      ring[(this.#written + i) & this.#mask] = samples[i];
    }
    this.#advance(samples.length);
  }

  /**
   * Reads `count` output samples of every channel into `outputs`. `count` is at most `available`.
   *
   * @param {Float32Array[]} outputs At least one array per channel.
   * @param {number} count
   */
  read(outputs, count) {
    const table = this.#table;
    const taps = this.#taps;
    const mask = this.#mask;
    for (let i = 0; i < count; i += 1) {
      const whole = Math.floor(this.#position);
      const phase = (this.#position - whole) * PHASES;
      const row = Math.floor(phase);
      const mix = phase - row;
      const near = row * taps;
      const far = near + taps;
      const first = whole - this.#half + 1;
      for (let channel = 0; channel < this.#rings.length; channel += 1) {
        const ring = this.#rings[channel];
        let sum = 0;
        let next = 0;
        for (let tap = 0; tap < taps; tap += 1) {
          const sample = ring[(first + tap) & mask];
          sum += sample * table[near + tap];
          next += sample * table[far + tap];
        }
        outputs[channel][i] = sum + mix * (next - sum);
      }
      this.#position += this.#step;
    }
  }

  /** @param {number} count */
  #advance(count) {
    this.#written += count;
    this.#position = Math.max(this.#position, this.#written - this.#capacity);
  }
}

/**
 * Returns rows of kernel values for the fractions 0, 1/PHASES … 1. Each row sums to one, so that a constant signal
 * stays constant.
 *
 * @param {number} half
 * @param {number} cutoff
 */
function makeTable(half, cutoff) {
  const taps = 2 * half;
  const table = new Float32Array((PHASES + 1) * taps);
  const row = new Float64Array(taps);
  for (let phase = 0; phase <= PHASES; phase += 1) {
    let sum = 0;
    for (let tap = 0; tap < taps; tap += 1) {
      const distance = tap - half + 1 - phase / PHASES;
      row[tap] = sinc(cutoff * distance) * kaiser(distance / half);
      sum += row[tap];
    }
    for (let tap = 0; tap < taps; tap += 1) {
      table[phase * taps + tap] = row[tap] / sum;
    }
  }
  return table;
}

/** @param {number} x */
function sinc(x) {
  // Exact zeros at integers make equal rates reproduce the input bit by bit.
  if (Number.isInteger(x)) {
    return x === 0 ? 1 : 0;
  }
  return Math.sin(Math.PI * x) / (Math.PI * x);
}

/** @param {number} x */
function kaiser(x) {
  return Math.abs(x) >= 1 ? 0 : bessel(KAISER_BETA * Math.sqrt(1 - x * x)) / bessel(KAISER_BETA);
}

/**
 * The modified Bessel function of the first kind and order zero, by its power series.
 *
 * @param {number} x
 */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
