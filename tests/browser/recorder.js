// Records its input from the first non-zero sample on, and posts the recording once it is long enough.
class Recorder extends AudioWorkletProcessor {
  #left = [];
  #right = [];
  #missing;

  constructor({ processorOptions: { seconds } }) {
    super();
    this.#missing = seconds * sampleRate;
  }

  process([[left, right]]) {
    if (left === undefined || this.#missing <= 0) {
      return this.#missing > 0;
    }
    if (this.#left.length === 0 && left.every((sample) => sample === 0)) {
      return true;
    }
    this.#left.push(left.slice());
    this.#right.push((right ?? left).slice());
    this.#missing -= left.length;
    if (this.#missing <= 0) {
      this.port.postMessage([this.#left, this.#right]);
    }
    return true;
  }
}

registerProcessor("test-recorder", Recorder);
