/**
 * Turns samples from a microphone or a file into the frames that a broadcaster sends.
 *
 * Every frame lasts `FRAME_SECONDS` and carries the levels of its input. Pure: uses no AudioWorklet.
 */

import { MonoMix } from "./mono-mix.js";
import { SincResampler } from "./player/resampler.js";

export const FRAME_SECONDS = 0.02;

/** At this peak, a sound card's converter has usually clipped. */
export const CLIPPED_PEAK = 0.999;

export class FrameMaker {
  #mix;
  #resampler;
  #output;
  #emit;
  #peak = 0;
  #power = 0;
  #count = 0;
  #gain;

  /**
   * @param {number} inputRate Samples per second of the input.
   * @param {number} outputRate Samples per second of the frames.
   * @param {(frame: {pcm: Int16Array<ArrayBuffer>, peak: number, rms: number}) => void} emit Receives every frame;
   *   `peak` and `rms` describe the input, and 1 is full scale.
   * @param {boolean} [muted] Whether the frames are silent from the first sample on.
   */
  constructor(inputRate, outputRate, emit, muted = false) {
    /** Makes the frames silent. Their levels still describe the input. */
    this.muted = muted;
    this.#gain = muted ? 0 : 1;
    this.#emit = emit;
    this.#mix = new MonoMix(inputRate);
    this.#output = [new Float32Array(Math.round(outputRate * FRAME_SECONDS))];
    this.#resampler = new SincResampler({ inputRate, outputRate, channels: 1, capacity: inputRate });
  }

  /** @param {Float32Array[]} channels One or two channels of at most a second. */
  write(channels) {
    const input = this.#mix.mix(channels);
    // A converter clips each channel separately, so the peak comes from the channels and not from their mix.
    for (const samples of channels) {
      this.#peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), this.#peak);
    }
    for (const sample of input) {
      this.#power += sample * sample;
    }
    this.#count += input.length;
    this.#resampler.write(input);
    const [samples] = this.#output;
    while (this.#resampler.available >= samples.length) {
      this.#resampler.read(this.#output, samples.length);
      this.#fade(samples);
      this.#emit({ pcm: toPcm(samples), peak: this.#peak, rms: Math.sqrt(this.#power / this.#count) });
      this.#peak = 0;
      this.#power = 0;
      this.#count = 0;
    }
  }

  /**
   * Fades to silence or back within one frame, because an abrupt change would click.
   *
   * @param {Float32Array} samples
   */
  #fade(samples) {
    const target = this.muted ? 0 : 1;
    if (this.#gain === 1 && target === 1) {
      return;
    }
    const step = (target - this.#gain) / samples.length;
    for (let i = 0; i < samples.length; i += 1) {
      samples[i] *= this.#gain + step * i;
    }
    this.#gain = target;
  }
}

/** @param {Float32Array} samples */
function toPcm(samples) {
  return Int16Array.from(samples, (sample) => Math.max(-32768, Math.min(32767, Math.round(sample * 32768))));
}
