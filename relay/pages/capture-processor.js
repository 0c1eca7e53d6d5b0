/**
 * The audio thread of the broadcasting page: posts {pcm, peak, rms} for every frame of its mono input.
 */

import { FrameMaker } from "./capture.js";

class CaptureProcessor extends AudioWorkletProcessor {
  #frames = new FrameMaker(sampleRate, (frame) => this.port.postMessage(frame, [frame.pcm.buffer]));
  #silence = new Float32Array(128);

  process(inputs) {
    // A source that is not connected has no channels; time goes on for the listeners all the same.
    this.#frames.write(inputs[0][0] ?? this.#silence);
    return true;
  }
}

registerProcessor("relay-capture", CaptureProcessor);
