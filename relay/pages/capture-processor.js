/**
 * The audio thread of the broadcasting page: turns its input, mono or stereo, into frames.
 *
 * It posts {peak, rms} for every frame. The message {frames: port, rate} hands it a MessagePort, to which it sends each
 * frame as an Int16Array of PCM at that sample rate; until then it only measures levels. The message {rate} changes the
 * rate, and {muted: true} makes the frames silent.
 */

import { FrameMaker } from "./capture.js";

class CaptureProcessor extends AudioWorkletProcessor {
  #frames = this.#makeFrames(sampleRate);
  #silence = [new Float32Array(128)];
  /** @type {MessagePort | null} */
  #sink = null;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      this.#sink = data.frames ?? this.#sink;
      if (data.rate !== undefined) {
        this.#frames = this.#makeFrames(data.rate, this.#frames.muted);
      }
      this.#frames.muted = data.muted ?? this.#frames.muted;
    };
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    // A disconnected source has no channels. Silence keeps the listeners' audio running.
    this.#frames.write(inputs[0].length > 0 ? inputs[0] : this.#silence);
    return true;
  }

  /**
   * @param {number} rate Samples per second of the frames.
   * @param {boolean} [muted]
   */
  #makeFrames(rate, muted) {
    /** @type {ConstructorParameters<typeof FrameMaker>[2]} */
    const emit = ({ pcm, peak, rms }) => {
      this.#sink?.postMessage(pcm, [pcm.buffer]);
      this.port.postMessage({ peak, rms });
    };
    return new FrameMaker(sampleRate, rate, emit, muted);
  }
}

registerProcessor("relay-capture", CaptureProcessor);
