/**
 * When a listener's audio is played: after a start-up buffer, again after one when it ran out, never far behind.
 *
 * Pure: no AudioWorklet, no clock but the samples that are rendered. Invariants: `render` allocates nothing and
 * always fills its output; where the audio starts, stops or skips, the signal does not jump.
 */

import { SincResampler } from "./resampler.js";

/** Held before playing starts: it covers the jitter of an ordinary network. */
export const TARGET_SECONDS = 0.3;

/** Held at most; beyond it one skip goes back to the target, so that a listener does not stay late for ever. */
export const LIMIT_SECONDS = 3;

/** Room in the ring above the limit; the relay's frames are at most 0.25 s. */
const HEADROOM_SECONDS = 1;

const FADE_SECONDS = 0.005;

/** Below a hundredth of a 16-bit step; decaying values end here, so that silence is exact zeros. */
const INAUDIBLE = 3e-7;

export class Playout {
  #outputRate;
  #rate = 0;
  #channels = 0;
  #resampler = null;
  #outputs = [null, null];
  #playing = false;
  #draining = false;
  #waited = 0;
  #gain = 0;
  #fadeStep;
  #decay;
  #tail = [0, 0];
  #last = [0, 0];
  #underruns = 0;
  #skippedSeconds = 0;

  /** @param {number} outputRate Samples a second that are rendered. */
  constructor(outputRate) {
    this.#outputRate = outputRate;
    this.#fadeStep = 1 / (FADE_SECONDS * outputRate);
    this.#decay = Math.exp(-5 * this.#fadeStep);
  }

  /** Prepares for audio of this format. What is held of another format is thrown away. */
  setFormat(rate, channels) {
    if (rate === this.#rate && channels === this.#channels) {
      return;
    }
    this.#rate = rate;
    this.#channels = channels;
    this.#resampler = new SincResampler({
      inputRate: rate,
      outputRate: this.#outputRate,
      channels,
      capacity: Math.ceil((LIMIT_SECONDS + HEADROOM_SECONDS) * rate),
    });
    this.#pause();
  }

  /**
   * Takes audio in.
   *
   * @param {Int16Array} samples Interleaved, of the present format; ignored before there is one.
   */
  write(samples) {
    if (this.#resampler === null) {
      return;
    }
    this.#draining = false;
    this.#resampler.writeInterleaved(samples);
    const excess = this.#heldSeconds - TARGET_SECONDS;
    if (this.#heldSeconds > LIMIT_SECONDS) {
      this.#resampler.keep(Math.round(TARGET_SECONDS * this.#rate));
      this.#skippedSeconds += excess;
      this.#splice();
    }
  }

  /** Plays what is held however little it is, because nothing follows for now. */
  drain() {
    this.#draining = true;
  }

  /**
   * Fills one block.
   *
   * @param {Float32Array} left
   * @param {Float32Array} right Of the same length.
   */
  render(left, right) {
    if (!this.#playing && this.#isReady(left.length)) {
      this.#playing = true;
      this.#splice();
    }
    const count = this.#playing ? Math.min(left.length, this.#resampler.available) : 0;
    if (count > 0) {
      this.#outputs[0] = left;
      this.#outputs[1] = right;
      this.#resampler.read(this.#outputs, count);
      if (this.#channels === 1) {
        right.set(left);
      }
    }
    this.#shape(left, 0, count);
    this.#shape(right, 1, count);
    this.#gain = Math.min(1, this.#gain + count * this.#fadeStep);
    if (this.#playing && count < left.length) {
      this.#underruns += this.#draining ? 0 : 1;
      this.#pause();
    }
  }

  /** @returns {{playing: boolean, heldSeconds: number, underruns: number, skippedSeconds: number}} */
  report() {
    return {
      playing: this.#playing,
      heldSeconds: this.#heldSeconds,
      underruns: this.#underruns,
      skippedSeconds: this.#skippedSeconds,
    };
  }

  get #heldSeconds() {
    return this.#resampler === null ? 0 : this.#resampler.held / this.#rate;
  }

  #isReady(blockLength) {
    if (this.#resampler === null || this.#resampler.available === 0) {
      return false;
    }
    this.#waited += blockLength;
    // A broadcaster who says one word and pauses is heard as well, though the target is never reached.
    const waitedLong = this.#waited > 2 * TARGET_SECONDS * this.#outputRate;
    return this.#heldSeconds >= TARGET_SECONDS || this.#draining || waitedLong;
  }

  #pause() {
    this.#playing = false;
    this.#waited = 0;
  }

  /** Makes the next sample begin where the last one was, and fade in from there. */
  #splice() {
    this.#gain = 0;
    this.#tail[0] = this.#last[0];
    this.#tail[1] = this.#last[1];
  }

  /** Fades in the first `count` samples; behind them the signal dies away instead of jumping to zero. */
  #shape(output, channel, count) {
    let gain = this.#gain;
    let tail = this.#tail[channel];
    let value = this.#last[channel];
    for (let i = 0; i < count; i += 1) {
      tail *= this.#decay;
      value = output[i] * gain + tail;
      output[i] = value;
      gain = Math.min(1, gain + this.#fadeStep);
    }
    for (let i = count; i < output.length; i += 1) {
      value *= this.#decay;
      output[i] = value;
    }
    this.#tail[channel] = Math.abs(tail) < INAUDIBLE ? 0 : tail;
    this.#last[channel] = Math.abs(value) < INAUDIBLE ? 0 : value;
  }
}
