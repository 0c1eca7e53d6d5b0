/**
 * The audio thread of the broadcasting page: makes frames of its input, which has one channel or two.
 *
 * Posts {peak, rms} for every frame; the frame itself, an Int16Array of PCM, goes to the MessagePort that comes with
 * the message {frames: port}. Until then frames are made for their levels only. {muted: true} makes them silent.
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
    // A source that is not connected has no channels; time goes on for the listeners all the same.
    this.#frames.write(inputs[0].length > 0 ? inputs[0] : this.#silence);
    return true;
  }
}

registerProcessor("relay-capture", CaptureProcessor);
