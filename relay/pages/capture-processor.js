/**
 * The audio thread of the broadcasting page: turns its input, mono or stereo, into frames.
 *
 * It posts {peak, rms} for every frame. The message {frames: port} hands it a MessagePort, to which it sends each frame
 * as an Int16Array of PCM; until then it only measures levels. The message {muted: true} makes the frames silent.
 */

import { FrameMaker } from "./capture.js";

class CaptureProcessor extends AudioWorkletProcessor {
  #frames;
  #silence = [new Float32Array(128)];
  /** @type {MessagePort | null} */
  #sink = null;

  /** @param {{processorOptions: {rate: number}}} options */
  constructor({ processorOptions: { rate } }) {
    super();
    this.port.onmessage = ({ data }) => {
      this.#sink = data.frames ?? this.#sink;
      this.#frames.muted = data.muted ?? this.#frames.muted;
    };
    this.#frames = new FrameMaker(sampleRate, rate, ({ pcm, peak, rms }) => {
      this.#sink?.postMessage(pcm, [pcm.buffer]);
      this.port.postMessage({ peak, rms });
    });
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    // A disconnected source has no channels. Silence keeps the listeners' audio running.
    this.#frames.write(inputs[0].length > 0 ? inputs[0] : this.#silence);
    return true;
  }
}

registerProcessor("relay-capture", CaptureProcessor);
