/**
 * Makes the frames that a broadcaster sends out of the samples of a microphone or a file.
 *
 * Pure: no AudioWorklet. Every frame lasts `FRAME_SECONDS` and has the levels of the sound it was made of.
 */

import { SincResampler } from "./resampler.js";

/** What this page broadcasts; enough for speech, and a quarter of a megabit a second. */
export const BROADCAST_FORMAT = Object.freeze({ codec: "pcm_s16le", rate: 16_000, channels: 1 });

export const FRAME_SECONDS = 0.02;

const FRAME_SAMPLES = BROADCAST_FORMAT.rate * FRAME_SECONDS;

export class FrameMaker {
  #resampler;
  #output = [new Float32Array(FRAME_SAMPLES)];
  #emit;
  #peak = 0;
  #power = 0;
  #count = 0;

  /**
   * @param {number} inputRate Samples a second that are written.
   * @param {(frame: {pcm: Int16Array, peak: number, rms: number}) => void} emit Gets every frame; `peak` and `rms`
   *   are of the input, 1 is full scale.
   */
  constructor(inputRate, emit) {
    this.#emit = emit;
    this.#resampler = new SincResampler({
      inputRate,
      outputRate: BROADCAST_FORMAT.rate,
      channels: BROADCAST_FORMAT.channels,
      capacity: inputRate,
    });
  }

  /** @param {Float32Array} samples Mono, at most a second. */
  write(samples) {
    for (const sample of samples) {
      this.#peak = Math.max(this.#peak, Math.abs(sample));
      this.#power += sample * sample;
    }
    this.#count += samples.length;
    this.#resampler.write(samples);
    while (this.#resampler.available >= FRAME_SAMPLES) {
      this.#resampler.read(this.#output, FRAME_SAMPLES);
      this.#emit({ pcm: toPcm(this.#output[0]), peak: this.#peak, rms: Math.sqrt(this.#power / this.#count) });
      this.#peak = 0;
      this.#power = 0;
      this.#count = 0;
    }
  }
}

function toPcm(samples) {
  return Int16Array.from(samples, (sample) => Math.max(-32768, Math.min(32767, Math.round(sample * 32768))));
}
